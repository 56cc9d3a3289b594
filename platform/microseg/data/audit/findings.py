"""What an audit finds, and how grave it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from microseg.config import Strict
from microseg.data.manifest import Item
from microseg.folds import Fold

Level = Literal["refuse", "warn", "note"]
LEVELS: tuple[Level, ...] = ("refuse", "warn", "note")

_SHOWN = 3


class Pair(Strict):
    """Two images that are alike.

    ``correlation`` is that of their fine structure, see `microseg.data.audit.likeness`; ``turned``: only
    once the other is mirrored or turned by quarters.
    """

    one: str
    other: str
    correlation: float
    turned: bool = False


class Finding(Strict):
    """Something the audit found.

    ``refuse``: a score from this data would be wrong. ``warn``: it probably would be. ``note``: worth
    knowing. ``check`` is the stable name of what was looked at; ``advice`` says what to do; ``items`` are
    the names concerned, and ``pairs`` the most telling of the images that are alike.
    """

    level: Level
    check: str
    text: str
    advice: str = ""
    items: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()

    @property
    def line(self) -> str:
        """The finding and what to do about it."""
        return f"{self.text}; {self.advice}" if self.advice else self.text


class Division:
    """How a data set is divided: by its own splits, by groups and, where they are known, by folds.

    Parameters
    ----------
    folds : sequence of Fold
        The folds to be used; items that are in none of them are the hold-out.
    """

    def __init__(self, folds: Sequence[Fold]) -> None:
        self._folds = [(frozenset(fold.train), frozenset(fold.valid)) for fold in folds]
        self._seen = self._folds[0][0] | self._folds[0][1] if folds else frozenset()

    @property
    def folds(self) -> int:
        """The number of folds; 0 where they are not known."""
        return len(self._folds)

    def apart(self, items: Iterable[Item]) -> tuple[Level, str]:
        """Say which division has these items on both of its sides, and how grave a leak that is."""
        items = list(items)
        names, splits = {item.name for item in items}, {item.split for item in items}
        if "test" in splits and len(splits) > 1:
            return "refuse", "in the test split and outside it"
        if self._folds and 0 < len(names & self._seen) < len(names):
            return "refuse", "in the hold-out and outside it"
        if any(names & train and names & valid for train, valid in self._folds):
            return "refuse", "in training and validation of a fold"
        if not self._folds and {"train", "valid"} <= splits:
            return "warn", "in both the given train and valid splits, which only pooled folds repair"
        if len({item.group for item in items}) == 1:
            return "note", "in one group"
        if self._folds:
            return "note", "in different groups, but on one side of every fold"
        return "warn", "in different groups"


def named(level: Level, check: str, text: str, items: Iterable[Item], advice: str = "") -> Finding:
    """Return a finding that names the first items it is about."""
    names = tuple(item.name for item in items)
    return Finding(level=level, check=check, text=f"{text} ({shown(names)})", advice=advice, items=names)


def shown(names: Sequence[str]) -> str:
    """Return the first few names, and whether there are more."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
