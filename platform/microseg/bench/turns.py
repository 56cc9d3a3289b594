"""Compare ways of doing the same in one run: by turns, so that a machine that is busy is busy for all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from microseg.config import Strict

Name = TypeVar("Name", bound=str)
Way = Callable[[], float]
"""Does its work once and returns the seconds of it that count."""


class Spread(Strict):
    """The median of repeated measurements, and the lowest and the highest of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1 if self.median >= 10 else 2 if self.median >= 1 else 3
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the range of at least one value."""
    return Spread(median=statistics.median(values), low=min(values), high=max(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Return the spread of quotients of what was measured in the same turns."""
    return spread([one / other for one, other in zip(above, below, strict=True)])


def take_turns(
    ways: Mapping[Name, Way],
    budget: float,
    least: int = 3,
    clock: Callable[[], float] = time.monotonic,
) -> dict[Name, list[float]]:
    """Let each way work in turn, until the time is spent.

    Parameters
    ----------
    ways : mapping of str to callable
        Each does its work once and returns the seconds that count. The first call of each prepares (compiles,
        fills caches) and does not count.
    budget : float
        Seconds after which no further turn begins.
    least : int
        Turns that are taken however long they last.
    clock : callable
        The time in seconds.

    Returns
    -------
    dict of str to list of float
        The seconds of each way, one number for each turn.
    """
    for way in ways.values():
        way()
    start, seconds = clock(), {name: list[float]() for name in ways}
    turns = 0
    while turns < least or clock() - start < budget:
        for name, way in ways.items():
            seconds[name].append(way())
        turns += 1
    return seconds


def timed(work: Callable[[], object]) -> Way:
    """Return a way that counts all of its work."""

    def way() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return way
