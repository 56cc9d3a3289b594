"""Checks of whole configurations against every table, before anything is trained."""

from __future__ import annotations

from microseg.augment import AUGMENTATIONS, augmenter
from microseg.components import Table, check, create
from microseg.config import Component, SearchConfig, TrialConfig, did_you_mean, parse
from microseg.data.preprocess import PREPROCESSING, output_channels
from microseg.errors import MicrosegError
from microseg.losses import LOSSES
from microseg.metrics import METRICS, better
from microseg.models import ARCHITECTURES, check_tile, stride
from microseg.optimizers import OPTIMIZERS
from microseg.schedules import SCHEDULES
from microseg.space import Space, parse_space

VALIDATION_METRICS = ("val/loss", *(f"val/{name}" for name in METRICS))
TABLES: dict[str, Table] = {
    "model": ARCHITECTURES,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "preprocess": PREPROCESSING,
}


def check_trial(config: TrialConfig, source: str = "configuration") -> None:
    """Check one configuration: every name and parameter, and that the tile suits the network.

    Raises
    ------
    MicrosegError
        For the first thing that does not fit, with what is allowed.
    """
    _check_components(config, source)
    _check_metric(config.monitor, source)
    check_tile(config.model, config.tile, source)


def check_space(config: SearchConfig, source: str = "space") -> Space:
    """Check every branch of a space and both ends of every range; returns the parsed space.

    Raises
    ------
    MicrosegError
        For the first branch that could not be trained, with what is allowed.
    """
    _check_metric(config.metric, source)
    if config.mode != better(config.metric):
        raise MicrosegError(
            f"{source}: mode is {config.mode}, but {config.metric} is better when it is "
            f"{'lower' if config.mode == 'max' else 'higher'}; set mode: {better(config.metric)}"
        )
    space = parse_space({"seed": config.seed, "monitor": config.metric} | config.space, source)
    if config.metric == "val/loss" and len(space.part("loss")) > 1:
        raise MicrosegError(
            f"{source}: metric is val/loss, but the loss is searched, and values of different losses do not "
            "compare; set metric: val/dice, or fix the loss"
        )
    corners = [parse(TrialConfig, corner, source) for corner in space.corners()]
    for corner in corners:
        _check_components(corner, source)
        _check_metric(corner.monitor, source)
    tiles = {corner.tile for corner in corners}
    for model in {corner.model.model_dump_json(): corner.model for corner in corners}.values():
        for tile in sorted(tiles):
            check_tile(model, tile, source)
    return space


def check_data(space: Space, channels: int, maps: int, source: str) -> None:
    """Check that every preprocessing and loss of a space suits images of so many channels and classes.

    Parameters
    ----------
    space : Space
        From `check_space`.
    channels, maps : int
        Channels of the images, and output maps of the network: 1 for foreground and background.
    source : str
        What the message names first.

    Raises
    ------
    MicrosegError
        For the first one that does not, with what is allowed.
    """
    for corner in space.part("preprocess"):
        try:
            output_channels(Component.model_validate(corner), channels)
        except MicrosegError as error:
            raise MicrosegError(f"{source}: {error}") from error
    classes = max(maps, 2)
    for corner in space.part("loss"):
        weights = corner.get("params", {}).get("class_weights", "balanced")
        if weights not in (None, "balanced") and len(weights) != classes:
            raise MicrosegError(
                f"{source}: loss '{corner['name']}': class_weights has {len(weights)} numbers, the data has "
                f"{classes} classes; give one number per class, the background first, or 'balanced'"
            )


def _check_components(config: TrialConfig, source: str) -> None:
    """Check names and parameters; what is cheap to make is made, as parameters may exclude each other."""
    try:
        for slot, table in TABLES.items():
            check(getattr(config, slot), table, slot)
        create(config.optimizer, OPTIMIZERS, "optimizer")
        augmenter(config.augment)
        stride(config.model)
    except MicrosegError as error:
        raise MicrosegError(f"{source}: {error}") from error


def _check_metric(metric: str, source: str) -> None:
    if metric not in VALIDATION_METRICS:
        raise MicrosegError(
            f"{source}: unknown metric '{metric}'; {did_you_mean(metric, VALIDATION_METRICS)}"
        )
