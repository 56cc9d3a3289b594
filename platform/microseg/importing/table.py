"""A table of results from elsewhere: one row per configuration with its fold scores, or one row per fold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from microseg.config import did_you_mean
from microseg.data.entries import read_rows
from microseg.errors import MicrosegError
from microseg.importing.columns import Cells, Columns, chosen_rows, fold_columns, identity_columns, number
from microseg.importing.long_form import one_row_each
from microseg.metrics import METRICS

_KNOWN_METRICS = frozenset({*METRICS, "roc_auc", "auc", "f1", "boundary_f1", "hausdorff95", "ap50", "miou"})
_LABELS = ("id", "index")  # number the rows: nothing that was varied
_LONGEST = 200  # letters of a name: a run's key holds it besides those of the study


@dataclass(frozen=True)
class Configuration:
    """One configuration: its score on every fold, None where the table has none, and what else is known."""

    name: str
    scores: tuple[float | None, ...]
    params: dict[str, str]
    metrics: dict[str, float]

    @property
    def known(self) -> dict[int, float]:
        """The scores that the table has, by fold (from 0)."""
        return {fold: score for fold, score in enumerate(self.scores) if score is not None}


@dataclass(frozen=True)
class Results:
    """The configurations of a table, in its order, and what a reader should know about them."""

    folds: int
    configurations: tuple[Configuration, ...]
    notes: tuple[str, ...]


def read_results(file: Path, columns: Columns) -> Results:
    """Read a table of results: CSV or TSV in UTF-8, with a header line.

    Parameters
    ----------
    file : Path
        The table; values are separated by commas, semicolons or tabs.
    columns : Columns
        What its columns mean.

    Raises
    ------
    MicrosegError
        If the file is no such table, a column does not exist, a score is no number, or a configuration
        occurs twice.
    """
    rows = [{name or "index": cell for name, cell in row.items()} for row in read_rows(file)]
    for named in (*columns.fold_columns, *columns.metric_columns, *columns.id_columns):
        if named not in rows[0]:
            raise MicrosegError(f"{file}: no column '{named}'; {did_you_mean(named, rows[0])}")
    rows = chosen_rows(rows, columns.where, file)
    notes: list[str] = []
    folds = fold_columns(rows[0], columns)
    if not folds:
        rows, folds, notes = one_row_each(rows, columns, file)
    table = _configurations(rows, folds, columns, file)
    return Results(len(folds), table, (*notes, *_remarks(table, columns.metric)))


def _configurations(
    rows: Sequence[Cells], folds: Sequence[str], columns: Columns, file: Path
) -> tuple[Configuration, ...]:
    identity = identity_columns(rows[0], columns)
    names = _names(rows, identity, file)
    taken = {*_LABELS, *folds, *columns.metric_columns, *(identity if len(identity) == 1 else ())}
    parameters = {name: _path(name, file) for name in rows[0] if name not in taken}
    metrics = {name: _path(name, file) for name in columns.metric_columns}
    if len({*parameters.values(), *metrics.values()}) < len(parameters) + len(metrics):
        raise MicrosegError(f"{file}: two columns have names that differ by special signs only; rename one")
    found = []
    for name, row in zip(names, rows, strict=True):
        extra = {path: number(row[column], column, name, file) for column, path in metrics.items()}
        one = Configuration(
            name=name,
            scores=tuple(number(row[fold], fold, name, file) for fold in folds),
            params={path: row[column] for column, path in parameters.items() if row[column]},
            metrics={path: value for path, value in extra.items() if value is not None},
        )
        found.append(one)
    return tuple(found)


def _names(rows: Sequence[Cells], identity: Sequence[str], file: Path) -> list[str]:
    """Name the configurations by columns, a mere number with its column's name, or by their place."""
    if not identity:
        return [f"row-{number}" for number in range(1, len(rows) + 1)]
    names = [" ".join(row[column] for column in identity).strip() for row in rows]
    names = [f"{identity[0]}-{name}" if name.isdigit() else name for name in names]
    stated = ",".join(identity)
    for name in names:
        if not name or len(name) > _LONGEST or not name.isprintable() or set(name) & set("'\"\\`"):
            raise MicrosegError(
                f"{file}: {name!r} in column '{stated}' is no name; use 1 to {_LONGEST} letters without "
                "quotes, or choose another --id-column"
            )
        if names.count(name) > 1:
            raise MicrosegError(
                f"{file}: '{name}' occurs {names.count(name)} times in column '{stated}'; name every "
                "configuration once, give --id-column other columns, or take some rows by --where"
            )
    return names


def _path(name: str, file: Path) -> str:
    """Return a column's name as MLflow takes it: parts of letters, digits and ``_.- `` between slashes."""
    parts = (re.sub(r"[^\w .-]+", "_", part).strip(" .") for part in name.split("/"))
    path = "/".join(part for part in parts if part)
    if not path:
        raise MicrosegError(f"{file}: the column name {name!r} has no letters; rename it")
    return path


def _remarks(table: Sequence[Configuration], metric: str) -> list[str]:
    """Say what a reader would not expect: missing folds, another scale, a metric among the parameters."""
    notes = []
    short = [one.name for one in table if None in one.scores]
    if short:
        shown = ", ".join(short[:3]) + (" ..." if len(short) > 3 else "")
        notes.append(f"{len(short)} of {len(table)} lack folds and are not ranked: {shown}")
    scores = [score for one in table for score in one.known.values()]
    if scores and not 0 <= min(scores) <= max(scores) <= 1:
        notes.append(
            f"{metric} runs from {min(scores):g} to {max(scores):g}, not within 0 to 1; taken as it is"
        )
    names = dict.fromkeys(name for one in table for name in one.params)
    notes += [
        f"column '{name}' is taken for a parameter; if it is a metric, add --metric-columns {name}"
        for name in names
        if name.lower() in _KNOWN_METRICS
    ]
    return notes
