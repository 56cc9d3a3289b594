"""The leaderboard and the repeats as tables: for the terminal, for a CSV and MLflow's table viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from microseg.report.comparisons import Rival, interval, rivals
from microseg.report.formats import cost, headings, number, rounded
from microseg.report.leaderboard import COSTS, Row, StudyView
from microseg.report.replicates import Repeats, repeats
from microseg.report.sentences import measured, state

COST_UNITS = {"parameters": "parameters", "inference_seconds": "s/megapixel"}
INTERVAL, COMPARED = ("low", "high"), ("behind", "p", "p_holm")
_COST_COLUMNS = {"seconds": "training_seconds"}  # the other seconds are those of the run


def terminal_table(study: StudyView, limit: int = 20) -> RenderableType:
    """Return the leaderboard for the terminal, which draws it as its width allows.

    The parameters in which the trials differ are columns where all of them fit; else the settings of the
    best trials follow beneath.
    """
    return _Leaderboard(study, limit)


@dataclass(frozen=True)
class _Leaderboard:
    study: StudyView
    limit: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide, names = options.update(max_width=10_000), self.study.varied
        needed = Measurement.get(console, wide, self._table(names, reasons=False)).maximum
        if needed <= options.max_width:
            yield self._table(names)
            return
        yield self._table([])
        if self.study.ranked:
            yield _settings(self.study)

    def _table(self, names: Sequence[str], reasons: bool = True) -> Table:
        shown = self.study.first(self.limit)
        more = len(self.study.rows) - len(shown)
        title = f"{self.study.run.info.run_name}: {self.study.metric}, mean over {self.study.folds} folds"
        table = _plain(title, f"{more} more in leaderboard.csv" if more else None)
        columns = ["#", "trial", "mean ± sd", *_cost_columns(self.study)]
        columns += [heading.replace(" ", "\n") for heading in headings(names)]
        for column in columns:
            table.add_column(column, no_wrap=True)
        table.add_column("state")  # may wrap: such a column is the first to be made narrow
        for row in shown:
            cells = [str(row.rank or ""), row.name, measured(row), *_cost_cells(row, self.study)]
            values = [Text(rounded(row.params.get(name, ""))) for name in names]
            said = state(row) if reasons else row.state
            table.add_row(*cells, *values, Text(said, no_wrap=True, overflow="ellipsis"))
        return table


def _plain(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption=caption,
        caption_justify="left",
    )


def _settings(study: StudyView, best: int = 5) -> Table:
    """Return the parameters of the best trials, one cell for each trial, that wraps."""
    table = _plain("Settings of the best")
    table.add_column("trial", no_wrap=True)
    table.add_column("what differs between trials")
    names = study.varied
    for row in study.ranked[:best]:
        table.add_row(row.name, Text(settings(row, names)))  # not markup: a value may hold brackets
    return table


def settings(row: Row, names: Sequence[str]) -> str:
    """Return the named parameters of a trial, as many as it has, in one line."""
    pairs = zip(headings(names), (row.params.get(name, "") for name in names), strict=True)
    return ", ".join(f"{name} {rounded(value)}" for name, value in pairs if value)


def unlike(row: Row, other: Row, names: Sequence[str]) -> str:
    """Return those of the named parameters of a trial in which it differs from another one."""
    return settings(row, [name for name in names if row.params.get(name) != other.params.get(name)])


def _cost_columns(study: StudyView) -> tuple[str, ...]:
    return (COST_UNITS[study.against], "front") if study.against else ()


def _cost_cells(row: Row, study: StudyView) -> tuple[str, ...]:
    return (
        (cost(row.costs.get(study.against)), "●" if row.name in study.front else "") if study.against else ()
    )


def repeats_table(study: StudyView) -> Table:
    """Return the finalists and their repeats as a table for the terminal; without rows where none were."""
    table = _plain("Repeats of the best trials with other seeds")
    for column in ("trial", "in the search", "other seeds", "sd of seeds", "sd of folds", "seeds"):
        table.add_column(column, no_wrap=True)
    for entry in repeats(study):
        values = (entry.chosen, entry.mean, entry.seed_sd, entry.fold_sd)
        table.add_row(entry.trial, *map(number, values), str(entry.seeds))
    return table


def frame(study: StudyView) -> pd.DataFrame:
    """Return the leaderboard as a data frame, one row per trial, for a CSV or MLflow's table viewer.

    ``low`` and ``high`` bound the 95 % interval of the mean; ``behind`` is by how much the best trial is
    better, with its own ``p`` and ``p_holm`` after Holm's correction. What costs were measured are
    columns too.
    """
    compared = {rival.row.name: rival for rival in rivals(study)}
    costs = [cost for cost in COSTS if any(cost in row.costs for row in study.rows)]
    columns = ["rank", "trial", "mean", "std", *INTERVAL, *COMPARED, "state", "reason", "seconds"]
    columns += [_COST_COLUMNS.get(cost, cost) for cost in costs] + (["pareto"] if study.against else [])
    columns += [f"fold {index}" for index in range(1, study.folds + 1)] + study.varied
    records = [_record(row, study) | _compared(compared.get(row.name)) for row in study.rows]
    return pd.DataFrame(records, columns=columns).astype({"rank": "Int64"})  # whole numbers, also beside none


def _record(row: Row, study: StudyView) -> dict[str, object]:
    record: dict[str, object] = {
        "rank": row.rank,
        "trial": row.name,
        "mean": row.mean,
        "std": row.std,
        "state": row.state,
        "reason": row.reason,
        "seconds": round(row.seconds, 1),
    }
    within = interval(row, study)
    record |= dict(zip(INTERVAL, (within.low, within.high), strict=True)) if within else {}
    record |= {_COST_COLUMNS.get(name, name): value for name, value in row.costs.items()}
    record |= {"pareto": row.name in study.front}
    record |= {f"fold {index}": value for index, value in enumerate(row.scores, 1)}
    return record | {name: row.params.get(name, "") for name in study.varied}


def _compared(rival: Rival | None) -> dict[str, object]:
    if rival is None:
        return {}
    return dict(zip(COMPARED, (rival.behind.difference, rival.behind.p, rival.corrected), strict=True))


def repeats_frame(study: StudyView) -> pd.DataFrame:
    """Return the finalists and their repeats as a data frame, one row per finalist, for a CSV."""
    columns = ["trial", "chosen", "repeats_mean", "seed_sd", "fold_sd", "seeds", "incomplete"]
    return pd.DataFrame([_repeats_record(entry) for entry in repeats(study)], columns=columns)


def _repeats_record(entry: Repeats) -> dict[str, object]:
    incomplete = "; ".join(f"{row.name}: {state(row)}" for row in entry.incomplete)
    return {"trial": entry.trial, "chosen": entry.chosen, "repeats_mean": entry.mean} | {
        "seed_sd": entry.seed_sd,
        "fold_sd": entry.fold_sd,
        "seeds": entry.seeds,
        "incomplete": incomplete,
    }
