"""The parts of a search space: constants, ranges of numbers, alternatives and groups of named parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scalar = str | int | float | bool | None
NumberKind = Literal["uniform", "log_uniform", "int_uniform"]


@dataclass(frozen=True)
class Value:
    """A constant, taken as it is."""

    value: Any


@dataclass(frozen=True)
class Number:
    """A range of numbers, both ends included."""

    kind: NumberKind
    low: float
    high: float

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return self.kind == "int_uniform"

    def ends(self) -> tuple[float, float]:
        """Return both ends, as whole numbers where the range is one of whole numbers."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def value(self, given: Any) -> float | int | None:
        """Return what is given as a number of the range, None if it is none."""
        value = number(given)
        if value is None or not self.low <= value <= self.high or (self.whole and not value.is_integer()):
            return None
        return int(value) if self.whole else value


@dataclass(frozen=True)
class OneOf:
    """Two or more alternatives, each a space of its own; ``labels`` name them in the order of ``options``."""

    labels: tuple[Scalar, ...]
    options: tuple[Node, ...]


@dataclass(frozen=True)
class Group:
    """Named parts that are sampled together."""

    parts: Mapping[str, Node]


Node = Value | Number | OneOf | Group


@dataclass(frozen=True)
class Place:
    """Where a node stands: its path, and the path with the labels of the branches that lead to it."""

    path: tuple[str, ...] = ()
    branch: tuple[str, ...] = ()

    def down(self, key: str) -> Place:
        """Return the place of a part of the group that is here."""
        return Place((*self.path, key), (*self.branch, key))

    def into(self, label: Scalar) -> Place:
        """Return the place of an option of the alternatives that are here."""
        return Place(self.path, (*self.branch, str(label)))

    def name(self, ambiguous: frozenset[str]) -> str:
        """Return the parameter's name: its path, with the branches where the path alone is ambiguous."""
        return "/".join(self.branch) if str(self) in ambiguous else str(self)

    def __str__(self) -> str:
        return "/".join(self.path)


def walk(node: Node, place: Place | None = None) -> Iterator[tuple[Place, Node]]:
    """Yield every node below, and the node itself, that is no group."""
    place = place or Place()
    if isinstance(node, Group):
        for key, part in node.parts.items():
            yield from walk(part, place.down(key))
        return
    yield place, node
    if isinstance(node, OneOf):
        for label, option in zip(node.labels, node.options, strict=True):
            yield from walk(option, place.into(label))


def ambiguous_paths(root: Node) -> frozenset[str]:
    """Return the paths at which different branches define different distributions."""
    seen: dict[str, Node] = {}
    parameters = ((str(place), node) for place, node in walk(root) if not isinstance(node, Value))
    return frozenset(path for path, node in parameters if seen.setdefault(path, node) != node)


def same(one: Any, other: Any) -> bool:
    """Whether two values of a configuration are the same; to Python ``1 == True``, here it is not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def number(value: Any) -> float | None:
    """Return a value as a number, None if it is none; YAML 1.1 reads 1e-4 as text, so text may be one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
