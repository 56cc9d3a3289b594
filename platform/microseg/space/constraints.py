"""Constraints on the points of a space: what they say of a configuration, and whether they make sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from microseg.config import Constraint
from microseg.errors import MicrosegError, did_you_mean
from microseg.space.nodes import Group, Number, Value, number, same, walk

LIMITS = ("min", "max")
_ABSENT = object()


def violated(constraint: Constraint, config: Mapping[str, Any]) -> str | None:
    """Return why a constraint refuses a configuration, None if it does not.

    Parameters
    ----------
    constraint : Constraint
        A path that the configuration does not have meets no ``when``, and every ``need``.
    config : mapping
        In the shape of a `TrialConfig`, possibly partial.
    """
    if not all(
        _meets(condition, _look_up(config, path), False) for path, condition in constraint.when.items()
    ):
        return None
    for path, condition in constraint.need.items():
        value = _look_up(config, path)
        if not _meets(condition, value, True):
            return f"{constraint.reason or _rule(constraint)} (given: {path} {value})"
    return None


def _look_up(config: Any, path: str) -> Any:
    for key in path.split("/"):
        if not isinstance(config, Mapping) or key not in config:
            return _ABSENT
        config = config[key]
    return config


def _meets(condition: Any, value: Any, absent: bool) -> bool:
    if value is _ABSENT:
        return absent
    if isinstance(condition, Mapping):
        low, high = _limits(condition)
        size = number(value)
        return size is not None and low <= size <= high
    return any(same(allowed, value) for allowed in _values(condition))


def _values(condition: Any) -> list[Any]:
    return condition if isinstance(condition, list) else [condition]


def _limits(condition: Mapping[str, Any]) -> tuple[float, float]:
    low, high = number(condition.get("min", -math.inf)), number(condition.get("max", math.inf))
    if low is None or high is None or not condition or not condition.keys() <= set(LIMITS) or low > high:
        raise MicrosegError(
            f"{dict(condition)!r} is no condition; give a value, a list of values, or a mapping with min or "
            "max or both, numbers with min <= max"
        )
    return low, high


def _rule(constraint: Constraint) -> str:
    needs = " and ".join(_clause(path, condition) for path, condition in constraint.need.items())
    whens = " and ".join(_clause(path, condition) for path, condition in constraint.when.items())
    return f"{whens} only with {needs}" if whens else f"only with {needs}"


def _clause(path: str, condition: Any) -> str:
    if not isinstance(condition, Mapping):
        return f"{path} {' or '.join(str(value) for value in _values(condition))}"
    if len(condition) == len(LIMITS):
        return f"{path} from {condition['min']} to {condition['max']}"
    sign = ">=" if "min" in condition else "<="
    return f"{path} {sign} {next(iter(condition.values()))}"


def check_constraints(constraints: tuple[Constraint, ...], root: Group, source: str) -> None:
    """Check that every condition names a path of the space and can hold somewhere in it.

    Raises
    ------
    MicrosegError
        For the first condition that does not, with what is allowed.
    """
    nodes: dict[str, list[Value | Number]] = {}
    for place, node in walk(root):
        if isinstance(node, Value | Number):
            nodes.setdefault(str(place), []).append(node)
    for index, constraint in enumerate(constraints):
        for part, conditions in (("when", constraint.when), ("need", constraint.need)):
            where = f"{source}: constraints[{index}]: {part}"
            for path, condition in conditions.items():
                _check(path, condition, nodes, where)


def _check(path: str, condition: Any, nodes: Mapping[str, list[Value | Number]], where: str) -> None:
    if path not in nodes:
        raise MicrosegError(f"{where}: unknown path '{path}'; {did_you_mean(path, nodes)}")
    try:
        possible = any(_possible(condition, node) for node in nodes[path])
    except MicrosegError as error:
        raise MicrosegError(f"{where}: {path}: {error}") from error
    if not possible:
        held = ", ".join(dict.fromkeys(_says(node) for node in nodes[path]))
        raise MicrosegError(f"{where}: '{_clause(path, condition)}' never holds; the space has {held}")


def _possible(condition: Any, node: Value | Number) -> bool:
    """Whether some value of a node meets a condition."""
    if isinstance(node, Value):
        return _meets(condition, node.value, False)
    if isinstance(condition, Mapping):
        low, high = _limits(condition)
        low, high = max(low, node.low), min(high, node.high)
        return math.ceil(low) <= high if node.whole else low <= high
    return any(value is not None and same(value, node.value(value)) for value in _values(condition))


def _says(node: Value | Number) -> str:
    return str(node.value) if isinstance(node, Value) else "{:g} to {:g}".format(*node.ends())
