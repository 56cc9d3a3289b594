"""From plain YAML values to a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microseg.config import Constraint
from microseg.errors import MicrosegError, did_you_mean
from microseg.space.nodes import Group, Node, Number, OneOf, Scalar, Value, number
from microseg.space.space import Space

DISTRIBUTIONS = ("uniform", "log_uniform", "int_uniform", "choice", "one_of")


def parse_space(values: Any, source: str = "space", constraints: Sequence[Constraint] = ()) -> Space:
    """Parse plain YAML values as a search space.

    Parameters
    ----------
    values : mapping
        In the shape of a `microseg.config.TrialConfig`, with distributions in place of values.
    source : str
        What a message names first.
    constraints : sequence of Constraint
        What a configuration must meet; `microseg.space.check_constraints` checks them.

    Raises
    ------
    MicrosegError
        If a distribution is malformed; the message names its path.
    """
    if not isinstance(values, dict):
        raise MicrosegError(
            f"{source}: a space is a mapping in the shape of a trial, got {type(values).__name__}"
        )
    root = Group({key: _parse(value, f"{source}: {key}") for key, value in values.items()})
    return Space(root, tuple(constraints))


def _parse(value: Any, where: str) -> Node:
    if not isinstance(value, dict):
        return Value(value)
    names = [key for key in value if key in DISTRIBUTIONS]
    if not names:
        _refuse_mistyped(value, where)
        return Group({key: _parse(part, f"{where}/{key}") for key, part in value.items()})
    if len(value) > 1:
        raise MicrosegError(
            f"{where}: '{names[0]}' stands alone, but other keys stand beside it: {sorted(value)}"
        )
    name, argument = names[0], value[names[0]]
    if name in ("choice", "one_of"):
        return _parse_options(name, argument, where)
    return _parse_number(name, argument, where)


def _refuse_mistyped(value: Mapping[Any, Any], where: str) -> None:
    """Refuse a single unknown key with a list: it looks like a distribution, not like a mapping to sample."""
    if len(value) == 1 and isinstance(next(iter(value.values())), list):
        key = str(next(iter(value)))
        hint = did_you_mean(key, DISTRIBUTIONS)
        if hint.startswith("did"):
            raise MicrosegError(f"{where}: unknown distribution '{key}'; {hint}")


def _parse_number(kind: Any, argument: Any, where: str) -> Number:
    ends = [number(end) for end in argument] if isinstance(argument, list) else []
    if len(ends) != 2 or ends[0] is None or ends[1] is None:
        raise MicrosegError(f"{where}: {kind} takes [low, high], two numbers, got {argument!r}")
    low, high = ends[0], ends[1]
    if not low < high:
        raise MicrosegError(f"{where}: {kind} takes [low, high] with low < high, got {argument!r}")
    if kind == "log_uniform" and low <= 0:
        raise MicrosegError(f"{where}: log_uniform needs low > 0, got {argument!r}")
    if kind == "int_uniform" and not (low.is_integer() and high.is_integer()):
        raise MicrosegError(f"{where}: int_uniform takes whole numbers, got {argument!r}")
    return Number(kind, low, high)


def _parse_options(kind: str, argument: Any, where: str) -> Node:
    if not isinstance(argument, list) or not argument:
        raise MicrosegError(f"{where}: {kind} takes a list of at least one option, got {argument!r}")
    options = tuple(
        _parse(option, f"{where}/{kind}[{index}]") if kind == "one_of" else Value(option)
        for index, option in enumerate(argument)
    )
    labels = _labels(argument, where)
    return OneOf(labels, options) if len(options) > 1 else options[0]


def _labels(options: Sequence[Any], where: str) -> tuple[Scalar, ...]:
    """Name the options: a scalar by itself, a component by its name (numbered where the name recurs)."""
    labels: list[Scalar] = []
    for option in options:
        label: Scalar = option if isinstance(option, Scalar) else str(option)
        if isinstance(option, dict) and isinstance(option.get("name"), str):
            name = option["name"]
            count = sum(isinstance(label, str) and label.split("-")[0] == name for label in labels)
            label = name if count == 0 else f"{name}-{count + 1}"
        if label in labels:
            raise MicrosegError(
                f"{where}: the option {option!r} is given twice; remove one (1 and true count as the same)"
            )
        labels.append(label)
    return tuple(labels)
