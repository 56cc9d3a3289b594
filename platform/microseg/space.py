"""A search space: YAML in the shape of a `TrialConfig`, with distributions in place of values.

Four distributions, ``{uniform: [low, high]}``, ``{log_uniform: [low, high]}``, ``{int_uniform: [low, high]}``
and ``{choice: [...]}``, plus ``{one_of: [...]}``, whose options are themselves spaces. Values only: no import
paths, no code. A parameter is named by its path (``model/params/depth``); where two branches define the same
path differently, the branch's label is put into the name (``model/unet/params/depth``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from microseg.config import did_you_mean
from microseg.errors import MicrosegError

Scalar = str | int | float | bool | None
NumberKind = Literal["uniform", "log_uniform", "int_uniform"]
DISTRIBUTIONS = ("uniform", "log_uniform", "int_uniform", "choice", "one_of")


class Suggest(Protocol):
    """Where the values of a sample come from: a sampler, a stored trial, a test."""

    def number(self, name: str, distribution: Number) -> float | int:
        """Return a number within the distribution."""

    def choice(self, name: str, labels: Sequence[Scalar]) -> Scalar:
        """Return one of the labels."""


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


@dataclass(frozen=True)
class OneOf:
    """Alternatives, each a space of its own; ``labels`` name them in the order of ``options``."""

    labels: tuple[Scalar, ...]
    options: tuple[Node, ...]


@dataclass(frozen=True)
class Group:
    """Named parts that are sampled together."""

    parts: Mapping[str, Node]


Node = Value | Number | OneOf | Group


@dataclass(frozen=True)
class Space:
    """A parsed search space."""

    root: Group

    def sample(self, suggest: Suggest) -> dict[str, Any]:
        """Draw one configuration, as plain values in the shape of a `TrialConfig`."""
        ambiguous = _ambiguous(self.root)
        sampled: dict[str, Any] = _sample(self.root, _Place((), ()), suggest, ambiguous)
        return sampled

    def corners(self) -> Iterator[dict[str, Any]]:
        """Yield configurations that together hold every alternative and both ends of every range.

        One part is varied at a time, so their number grows with the size of the YAML, not
        exponentially.
        """
        yield from _corners(self.root)

    def part(self, name: str) -> list[Any]:
        """Return the corner values of one top-level part, such as ``"tile"``; empty if not given."""
        return list(_corners(self.root.parts[name])) if name in self.root.parts else []


def parse_space(values: Any, source: str = "space") -> Space:
    """Parse plain YAML values as a search space.

    Raises
    ------
    MicrosegError
        If a distribution is malformed; the message names its path.
    """
    if not isinstance(values, dict):
        raise MicrosegError(
            f"{source}: a space is a mapping in the shape of a trial, got {type(values).__name__}"
        )
    return Space(Group({key: _parse(value, f"{source}: {key}") for key, value in values.items()}))


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
    ends = argument if isinstance(argument, list) else []
    try:  # YAML 1.1 reads 1e-4 as text, so text that is a number is taken as one
        low, high = (float(end) for end in ends)
    except (TypeError, ValueError):
        raise MicrosegError(f"{where}: {kind} takes [low, high], two numbers, got {argument!r}") from None
    if not low < high:
        raise MicrosegError(f"{where}: {kind} takes [low, high] with low < high, got {argument!r}")
    if kind == "log_uniform" and low <= 0:
        raise MicrosegError(f"{where}: log_uniform needs low > 0, got {argument!r}")
    if kind == "int_uniform" and not (low.is_integer() and high.is_integer()):
        raise MicrosegError(f"{where}: int_uniform takes whole numbers, got {argument!r}")
    return Number(kind, low, high)


def _parse_options(kind: str, argument: Any, where: str) -> OneOf:
    if not isinstance(argument, list) or not argument:
        raise MicrosegError(f"{where}: {kind} takes a list of at least one option, got {argument!r}")
    options = tuple(
        _parse(option, f"{where}/{kind}[{index}]") if kind == "one_of" else Value(option)
        for index, option in enumerate(argument)
    )
    return OneOf(_labels(argument, where), options)


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


@dataclass(frozen=True)
class _Place:
    """Where a node stands: its path, and the path with the labels of the branches that lead to it."""

    path: tuple[str, ...]
    branch: tuple[str, ...]

    def down(self, key: str) -> _Place:
        return _Place((*self.path, key), (*self.branch, key))

    def into(self, label: Scalar) -> _Place:
        return _Place(self.path, (*self.branch, str(label)))

    def name(self, ambiguous: frozenset[str]) -> str:
        path = "/".join(self.path)
        return "/".join(self.branch) if path in ambiguous else path


def _walk(node: Node, place: _Place) -> Iterator[tuple[str, Node]]:
    if isinstance(node, Group):
        for key, part in node.parts.items():
            yield from _walk(part, place.down(key))
    elif isinstance(node, OneOf):
        yield "/".join(place.path), node
        for label, option in zip(node.labels, node.options, strict=True):
            yield from _walk(option, place.into(label))
    elif isinstance(node, Number):
        yield "/".join(place.path), node


def _ambiguous(root: Node) -> frozenset[str]:
    """Paths at which different branches define different distributions."""
    seen: dict[str, Node] = {}
    found = set()
    for path, node in _walk(root, _Place((), ())):
        if seen.setdefault(path, node) != node:
            found.add(path)
    return frozenset(found)


def _sample(node: Node, place: _Place, suggest: Suggest, ambiguous: frozenset[str]) -> Any:
    if isinstance(node, Value):
        return node.value
    if isinstance(node, Number):
        return suggest.number(place.name(ambiguous), node)
    if isinstance(node, Group):
        return {key: _sample(part, place.down(key), suggest, ambiguous) for key, part in node.parts.items()}
    label = node.labels[0] if len(node.labels) == 1 else suggest.choice(place.name(ambiguous), node.labels)
    index = node.labels.index(label)
    return _sample(node.options[index], place.into(label), suggest, ambiguous)


def _corners(node: Node) -> Iterator[Any]:
    if isinstance(node, Value):
        yield node.value
    elif isinstance(node, Number):
        ends = (node.low, node.high)
        yield from (int(end) for end in ends) if node.kind == "int_uniform" else ends
    elif isinstance(node, OneOf):
        for option in node.options:
            yield from _corners(option)
    else:
        yield from _group_corners(node)


def _group_corners(group: Group) -> Iterator[dict[str, Any]]:
    corners = {key: list(_corners(part)) for key, part in group.parts.items()}
    first = {key: values[0] for key, values in corners.items()}
    yield first
    for key, values in corners.items():
        for value in values[1:]:
            yield first | {key: value}
