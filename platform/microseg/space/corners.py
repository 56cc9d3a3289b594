"""The corners of a space: few configurations that hold every alternative and both ends of every range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from microseg.space.nodes import Group, Node, Number, OneOf, Value

MOST_BETWEEN = 64  # a longer range of whole numbers, such as one of filters, counts by its ends


def corners(node: Node, between: bool = False) -> Iterator[Any]:
    """Yield the corners of a node; with ``between``, also what lies between the ends of whole ranges."""
    if isinstance(node, Value):
        yield node.value
    elif isinstance(node, Number):
        yield from _marks(node, between)
    elif isinstance(node, OneOf):
        for option in node.options:
            yield from corners(option, between)
    else:
        yield from _group_corners(node, between)


def _marks(node: Number, between: bool) -> Iterator[float]:
    if between and node.whole and node.high - node.low <= MOST_BETWEEN:
        yield from range(int(node.low), int(node.high) + 1)
    else:
        yield from node.ends()


def _group_corners(group: Group, between: bool) -> Iterator[dict[str, Any]]:
    found = {key: list(corners(part, between)) for key, part in group.parts.items()}
    first = {key: values[0] for key, values in found.items()}
    yield first
    for key, values in found.items():
        for value in values[1:]:
            yield first | {key: value}
