"""Checks of whole configurations against every table, before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from microseg.augment import AUGMENTATIONS, augmenter
from microseg.components import Table, check, create
from microseg.config import Component, SearchConfig, TrialConfig, parse, read_yaml
from microseg.data.preprocess import PREPROCESSING, output_channels
from microseg.errors import MicrosegError, did_you_mean
from microseg.losses import LOSSES
from microseg.metrics import METRICS, better
from microseg.models import ARCHITECTURES, check_tile, stride
from microseg.optimizers import OPTIMIZERS
from microseg.schedules import SCHEDULES
from microseg.space import RandomSuggest, Scalar, Space, check_constraints, parse_space

VALIDATION_METRICS = ("val/loss", *(f"val/{name}" for name in METRICS))
TABLES: dict[str, Table] = {
    "model": ARCHITECTURES,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "preprocess": PREPROCESSING,
}
# What is made of a component to see that its parameters go together
PROBES: dict[str, Callable[[Component], object]] = {
    "model": stride,
    "optimizer": lambda component: create(component, OPTIMIZERS, "optimizer"),
    "augment": augmenter,
}
# What a study sets for its trials unless its space does: a configuration of another study may differ in them
STUDY_SETS = ("seed", "monitor", "accumulation")
# How long a trial trains: what a short study found begins a long one
LENGTH = ("epochs", "patience", "steps_per_epoch")
DRAWS = 1000  # configurations of which the constraints must allow one


def check_trial(config: TrialConfig, source: str = "configuration") -> None:
    """Check one configuration: every name and parameter, and that the tile suits the network.

    Raises
    ------
    MicrosegError
        For the first thing that does not fit, with what is allowed.
    """
    for slot in TABLES:
        _check_component(getattr(config, slot), slot, source)
    _check_metric(config.monitor, source)
    check_tile(config.model, config.tile, source)


def check_space(config: SearchConfig, source: str = "space") -> Space:
    """Check every branch of a space and both ends of every range; returns the parsed space.

    What the space does not state it has as the constants that a `TrialConfig` has by default. What the
    constraints exclude may be unfit.

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
    stated = {"seed": config.seed, "monitor": config.metric} | config.space
    space = parse_space(_defaults() | stated, source, config.constraints)
    if config.metric == "val/loss" and len(space.part("loss")) > 1:
        raise MicrosegError(
            f"{source}: metric is val/loss, but the loss is searched, and values of different losses do not "
            "compare; set metric: val/dice, or fix the loss"
        )
    check_constraints(space.constraints, space.root, source)
    _check_room(space, source)
    for corner in space.corners():
        _check_shape(corner, space, source)
    _check_parts(space, source)
    return space


def _defaults() -> dict[str, Any]:
    """Return what a trial has of what a space need not state, as plain values."""
    return {
        name: field.default.model_dump() if isinstance(field.default, Component) else field.default
        for name, field in TrialConfig.model_fields.items()
        if not field.is_required()
    }


def _check_room(space: Space, source: str) -> None:
    """Check that the constraints leave something: their parts may each hold somewhere, but never together."""
    drawn = RandomSuggest(0)
    for _ in range(DRAWS):
        refused = space.violated(space.sample(drawn))
        if refused is None:
            return
    raise MicrosegError(
        f"{source}: the constraints refuse all of {DRAWS} random configurations, the last one because: "
        f"{refused}; widen the space, or take a constraint out"
    )


def _check_shape(corner: dict[str, Any], space: Space, source: str) -> None:
    """Check that a corner is a trial; what does not go together may be what a constraint keeps apart."""
    try:
        parse(TrialConfig, corner, source)
    except MicrosegError:
        if space.violated(corner) is None:
            raise


def _check_parts(space: Space, source: str) -> None:
    """Check every component, and every network with every tile, unless a constraint excludes just that."""
    fixed = space.fixed()
    for monitor in space.part("monitor"):
        _check_metric(monitor, source)
    for slot in TABLES:
        for values in space.part(slot):
            if space.violated(fixed | {slot: values}) is None:
                _check_component(parse(Component, values, f"{source}: {slot}"), slot, source)
    for model, tile in itertools.product(space.part("model", between=True), sorted(set(space.part("tile")))):
        if space.violated(fixed | {"model": model, "tile": tile}) is None:
            check_tile(Component.model_validate(model), tile, source)


def start_points(config: SearchConfig, space: Space, source: str) -> list[dict[str, Scalar]]:
    """Return the parameters of the configurations that a search starts with.

    Parameters
    ----------
    config : SearchConfig
        Its ``start_with`` holds (possibly partial) configurations, or paths of YAML files of such.
    space : Space
        From `check_space`.
    source : str
        What the message names first.

    Raises
    ------
    MicrosegError
        For the first one that is no point of the space, or that the constraints refuse.
    """
    points = []
    for index, entry in enumerate(config.start_with):
        where = f"{source}: start_with[{index}]"
        if isinstance(entry, str):
            where = f"{where} ({entry})"
        values = _read_point(entry, where)
        try:
            points.append(_point(values, config, space))
        except MicrosegError as error:
            raise MicrosegError(f"{where}: {error}") from error
    return points


def fitting_points(
    configurations: Iterable[Mapping[str, Any]], config: SearchConfig, space: Space, source: str
) -> tuple[list[dict[str, Scalar]], list[str]]:
    """Return the parameters of the configurations that fit a space, and why the others do not.

    Parameters
    ----------
    configurations : iterable of mapping
        Those of another study, in the shape of a `TrialConfig`. How long they trained does not count where
        the space fixes it.
    config, space, source
        As `start_points`.
    """
    points, reasons = [], []
    own = set(LENGTH) & space.fixed().keys()
    for values in configurations:
        try:
            points.append(_point({key: values[key] for key in values.keys() - own}, config, space))
        except MicrosegError as error:
            reasons.append(f"{source}: {error}")
    return points, reasons


def _read_point(entry: dict[str, Any] | str, where: str) -> dict[str, Any]:
    values = read_yaml(Path(entry)) if isinstance(entry, str) else entry
    if not isinstance(values, dict):
        raise MicrosegError(f"{where}: expected a configuration, a mapping, got {type(values).__name__}")
    return values


def _point(values: Mapping[str, Any], config: SearchConfig, space: Space) -> dict[str, Scalar]:
    given = {key: value for key, value in values.items() if key in config.space or key not in STUDY_SETS}
    parameters = space.parameters(given)
    refused = space.violated(space.fixed() | given)
    if refused:
        raise MicrosegError(f"refused by a constraint: {refused}")
    return parameters


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


def _check_component(component: Component, slot: str, source: str) -> None:
    """Check name and parameters; what is cheap to make is made, as parameters may exclude each other."""
    try:
        check(component, TABLES[slot], slot)
        if slot in PROBES:
            PROBES[slot](component)
    except MicrosegError as error:
        raise MicrosegError(f"{source}: {error}") from error


def _check_metric(metric: str, source: str) -> None:
    if metric not in VALIDATION_METRICS:
        raise MicrosegError(
            f"{source}: unknown metric '{metric}'; {did_you_mean(metric, VALIDATION_METRICS)}"
        )
