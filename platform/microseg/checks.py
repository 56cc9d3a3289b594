"""Checks of whole configurations against every table, before anything is trained."""

from __future__ import annotations

from microseg.augment import AUGMENTATIONS
from microseg.components import Table, check
from microseg.config import Component, SearchConfig, TrialConfig, did_you_mean, parse
from microseg.data.preprocess import PREPROCESSING
from microseg.errors import MicrosegError
from microseg.losses import LOSSES
from microseg.metrics import METRICS
from microseg.models import ARCHITECTURES, stride
from microseg.optimizers import OPTIMIZERS
from microseg.space import Space, parse_space

VALIDATION_METRICS = ("val/loss", *(f"val/{name}" for name in METRICS))
TABLES: dict[str, Table] = {
    "model": ARCHITECTURES,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
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
    for slot, table in TABLES.items():
        _check_slot(getattr(config, slot), table, slot, source)
    _check_tile(config.model, config.tile, source)


def check_space(config: SearchConfig, source: str = "space") -> Space:
    """Check every branch of a space and both ends of every range; returns the parsed space.

    Raises
    ------
    MicrosegError
        For the first branch that could not be trained, with what is allowed.
    """
    if config.metric not in VALIDATION_METRICS:
        hint = did_you_mean(config.metric, VALIDATION_METRICS)
        raise MicrosegError(f"{source}: unknown metric '{config.metric}'; {hint}")
    space = parse_space({"seed": config.seed} | config.space, source)
    corners = [parse(TrialConfig, corner, source) for corner in space.corners()]
    for corner in corners:
        for slot, table in TABLES.items():
            _check_slot(getattr(corner, slot), table, slot, source)
    tiles = {corner.tile for corner in corners}
    for model in {corner.model.model_dump_json(): corner.model for corner in corners}.values():
        for tile in sorted(tiles):
            _check_tile(model, tile, source)
    return space


def _check_slot(component: Component, table: Table, slot: str, source: str) -> None:
    try:
        check(component, table, slot)
    except MicrosegError as error:
        raise MicrosegError(f"{source}: {error}") from error


def _check_tile(model: Component, tile: int, source: str) -> None:
    """Training tiles must halve evenly at every level; inference pads and crops instead."""
    step = stride(model)
    if tile % step:
        params = ", ".join(f"{name} {value}" for name, value in model.params.items())
        down, up = tile // step * step, (tile // step + 1) * step
        near = f"{down} or {up}" if down else str(up)
        raise MicrosegError(
            f"{source}: tile {tile} is not a multiple of {step}, which model '{model.name}' ({params}) "
            f"needs; use {near}, or fewer levels"
        )
