"""A table with a row for each fold, turned into one with a row for each configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from microseg.errors import MicrosegError
from microseg.importing.columns import Cells, Columns, identity_columns, number

_FOLD_LABEL = "fold"


def one_row_each(
    rows: Sequence[Cells], columns: Columns, file: Path
) -> tuple[list[Cells], list[str], list[str]]:
    """Turn a row per fold into a row per configuration; return rows, their fold columns, and notes.

    Of a further metric the mean is taken. Another column that differs between the folds of a configuration,
    such as a time, is no parameter of it.

    Raises
    ------
    MicrosegError
        If the columns fold, score and identity are not all there, or a configuration has a fold twice.
    """
    identity, score = _long_columns(rows[0], columns, file)
    groups: dict[tuple[str, ...], list[Cells]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in identity)].append(row)
    taken = {_FOLD_LABEL, score, *identity, *columns.metric_columns}
    others = [name for name in rows[0] if name not in taken]
    steady = [name for name in others if all(len({row[name] for row in own}) == 1 for own in groups.values())]
    labels = sorted({row[_FOLD_LABEL] for row in rows}, key=lambda label: (len(label), label))  # 2 before 10
    wide = []
    for key, own in groups.items():
        scores = {f"fold {row[_FOLD_LABEL]}": row[score] for row in own}
        if len(scores) < len(own):
            raise MicrosegError(f"{file}: '{' '.join(key)}' has a fold twice; name every configuration once")
        means = {metric: _mean(own, metric, file) for metric in columns.metric_columns}
        cells = {name: own[0][name] for name in (*identity, *steady)} | means
        wide.append(cells | {f"fold {label}": scores.get(f"fold {label}", "") for label in labels})
    dropped = ", ".join(name for name in others if name not in steady)
    notes = [f"left out, because they differ between folds: {dropped}"] if dropped else []
    return wide, [f"fold {label}" for label in labels], notes


def _long_columns(header: Mapping[str, str], columns: Columns, file: Path) -> tuple[tuple[str, ...], str]:
    """Return which columns name the configuration, and which holds the score."""
    score = next((name for name in (columns.metric, "score") if name in header), "")
    if _FOLD_LABEL not in header or not score:
        raise MicrosegError(
            f"{file}: no fold scores; name their columns by --fold-columns, or give a row per fold with "
            f"columns fold and score; columns: {', '.join(header)}"
        )
    identity = identity_columns(header, columns)
    if not identity:
        raise MicrosegError(
            f"{file}: a row per fold needs a column that names the configuration; give --id-column, one of "
            f"{', '.join(header)}"
        )
    return identity, score


def _mean(rows: Sequence[Cells], metric: str, file: Path) -> str:
    values = [number(row[metric], metric, f"fold {row[_FOLD_LABEL]}", file) for row in rows]
    known = [value for value in values if value is not None]
    return str(fmean(known)) if known else ""
