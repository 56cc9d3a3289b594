"""Which columns of a table of results are meant, which of its rows, and what its cells say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from microseg.config import Strict, did_you_mean
from microseg.errors import MicrosegError

Cells = dict[str, str]

_FOLD = re.compile(r"(?:fold|split)[ _-]?(\d+)(?:_test_score)?", re.IGNORECASE)  # also scikit-learn's
_IDS = ("id", "name", "configuration", "config", "trial", "model")
_MISSING = frozenset({"", "-", "na", "n/a", "nan", "none", "null"})


class Columns(Strict):
    """Which columns of a table are meant, and which of its rows.

    ``fold_columns`` hold the scores of one fold each, by default those named ``fold1``, ``fold_2`` ...; a
    table with a row for each fold has columns ``fold`` and ``score`` (or the metric's name) instead.
    ``id_columns`` name the configurations: one that holds nothing but names, or several parameters that
    differ together. ``metric_columns`` are further metrics; every other column is a parameter, but
    for ``id`` and ``index``. ``where`` takes the rows that have these values: ``input=height``.
    """

    metric: str = "dice"
    fold_columns: tuple[str, ...] = ()
    id_columns: tuple[str, ...] = ()
    metric_columns: tuple[str, ...] = ()
    where: tuple[str, ...] = ()


def chosen_rows(rows: list[Cells], where: Sequence[str], file: Path) -> list[Cells]:
    """Return the rows that meet all conditions ``COLUMN=VALUE``; values are compared as text.

    Raises
    ------
    MicrosegError
        If a condition is none, or names a column or a value that the table does not have.
    """
    for condition in where:
        name, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or name not in rows[0]:
            raise MicrosegError(
                f"--where '{condition}': give COLUMN=VALUE with a column of {file.name}; "
                f"{did_you_mean(name, rows[0])}"
            )
        there = {row[name] for row in rows}
        if value not in there:
            raise MicrosegError(f"--where '{condition}': no row has it; {did_you_mean(value, there)}")
        rows = [row for row in rows if row[name] == value]
    return rows


def fold_columns(header: Iterable[str], columns: Columns) -> list[str]:
    """Return the columns of fold scores: those stated, in that order, or those named so, by their numbers."""
    if columns.fold_columns:
        return list(columns.fold_columns)
    numbers = {name: int(found[1]) for name in header if (found := _FOLD.fullmatch(name))}
    return sorted(numbers, key=lambda name: numbers[name])


def identity_columns(header: Iterable[str], columns: Columns) -> tuple[str, ...]:
    """Return the columns that name the configurations: those stated, else one named so, else none."""
    return columns.id_columns or tuple(name for name in _IDS if name in header)[:1]


def number(cell: str, column: str, name: str, file: Path) -> float | None:
    """Read a score; None where the cell says that there is none.

    Raises
    ------
    MicrosegError
        If it is neither a finite number nor missing; ``column`` and ``name`` say which one.
    """
    if cell.lower() in _MISSING:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MicrosegError(
            f"{file}: '{cell}' in column '{column}' of '{name}' is no number; write 0.91, or leave the cell "
            "empty where the fold is missing"
        )
    return value
