"""Draw a configuration from a space."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Protocol

from microseg.space.nodes import Group, Node, Number, Place, Scalar, Value, ambiguous_paths


class Suggest(Protocol):
    """Where the values of a sample come from: a sampler, a stored trial, a test."""

    def number(self, name: str, distribution: Number) -> float | int:
        """Return a number within the distribution."""

    def choice(self, name: str, labels: Sequence[Scalar]) -> Scalar:
        """Return one of the labels."""


class RandomSuggest:
    """Draws evenly at random, of logarithmic ranges in the logarithm.

    Parameters
    ----------
    seed : int
        The same seed draws the same.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def number(self, name: str, distribution: Number) -> float | int:
        """Return a number within the distribution."""
        low, high = distribution.low, distribution.high
        if distribution.whole:
            return self._random.randint(int(low), int(high))
        if distribution.kind == "log_uniform":
            return math.exp(self._random.uniform(math.log(low), math.log(high)))
        return self._random.uniform(low, high)

    def choice(self, name: str, labels: Sequence[Scalar]) -> Scalar:
        """Return one of the labels."""
        return self._random.choice(labels)


def sample(root: Group, suggest: Suggest) -> dict[str, Any]:
    """Draw a value for every part of a group."""
    drawn: dict[str, Any] = _sample(root, Place(), suggest, ambiguous_paths(root))
    return drawn


def _sample(node: Node, place: Place, suggest: Suggest, ambiguous: frozenset[str]) -> Any:
    if isinstance(node, Value):
        return node.value
    if isinstance(node, Number):
        return suggest.number(place.name(ambiguous), node)
    if isinstance(node, Group):
        return {key: _sample(part, place.down(key), suggest, ambiguous) for key, part in node.parts.items()}
    label = suggest.choice(place.name(ambiguous), node.labels)
    return _sample(node.options[node.labels.index(label)], place.into(label), suggest, ambiguous)
