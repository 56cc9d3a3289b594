"""The leaderboard and the repeats as tables: for the terminal, for a CSV and MLflow's table viewer."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from microseg.report.leaderboard import Row, StudyView
from microseg.report.replicates import Repeats, repeats
from microseg.report.sentences import measured, state

COST_UNITS = {"parameters": "parameters", "inference_seconds": "s/megapixel"}


def terminal_table(study: StudyView, limit: int = 20) -> Table:
    """Return the leaderboard as a table for the terminal."""
    shown = study.first(limit)
    more = len(study.rows) - len(shown)
    table = Table(
        title=f"{study.run.info.run_name}: {study.metric}, mean over {study.folds} folds",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption=f"{more} more in leaderboard.csv" if more else None,
        caption_justify="left",
    )
    for column in ("#", "trial", "mean ± sd", *_cost_columns(study)):
        table.add_column(column, no_wrap=True)
    for name in study.varied:
        table.add_column(short(name), overflow="fold")
    table.add_column("state", min_width=13)
    for row in shown:
        cells = [str(row.rank or ""), row.name, measured(row), *_cost_cells(row, study)]
        values = [rounded(row.params.get(name, "")) for name in study.varied]
        # Text on one line in a column that may wrap: such columns are the first to be made narrow.
        table.add_row(*cells, *values, Text(state(row), no_wrap=True, overflow="ellipsis"))
    return table


def _cost_columns(study: StudyView) -> tuple[str, ...]:
    return (COST_UNITS[study.against], "front") if study.against else ()


def _cost_cells(row: Row, study: StudyView) -> tuple[str, ...]:
    return (cost(row), "●" if row.name in study.front else "") if study.against else ()


def repeats_table(study: StudyView) -> Table:
    """Return the finalists and their repeats as a table for the terminal; without rows where none were."""
    table = Table(title="Repeats with other seeds", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("trial", "chosen with", "repeats' mean", "sd of seeds", "sd of folds", "seeds"):
        table.add_column(column, no_wrap=True)
    for entry in repeats(study):
        values = (entry.chosen, entry.mean, entry.seed_sd, entry.fold_sd)
        table.add_row(entry.trial, *map(number, values), str(entry.seeds))
    return table


def frame(study: StudyView) -> pd.DataFrame:
    """Return the leaderboard as a data frame, one row per trial, for a CSV or MLflow's table viewer."""
    columns = ["rank", "trial", "mean", "std", "state", "reason", "seconds"]
    columns += [study.against, "pareto"] if study.against else []
    columns += [f"fold {index}" for index in range(1, study.folds + 1)] + study.varied
    records = [_record(row, study) for row in study.rows]
    return pd.DataFrame(records, columns=columns).astype({"rank": "Int64"})  # whole numbers, also beside none


def _record(row: Row, study: StudyView) -> dict[str, object]:
    record: dict[str, object] = {
        "rank": row.rank,
        "trial": row.name,
        "mean": row.mean,
        "std": row.std,
        "state": row.state,
    }
    record |= {"reason": row.reason, "seconds": round(row.seconds, 1)}
    if study.against:
        record |= {study.against: row.cost, "pareto": row.name in study.front}
    record |= {f"fold {index}": value for index, value in enumerate(row.scores, 1)}
    return record | {name: row.params.get(name, "") for name in study.varied}


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


def number(value: float | None) -> str:
    """Return a score with four decimals, or nothing for none."""
    return "" if value is None else f"{value:.4f}"


def cost(row: Row) -> str:
    """Return a trial's cost, whole numbers in groups of three digits; empty where it was not measured."""
    if row.cost is None:
        return ""
    return f"{row.cost:,.0f}".replace(",", " ") if row.cost >= 1000 else f"{row.cost:.3g}"


def short(path: str) -> str:
    """Return a path as a heading: ``model/params/depth`` is ``depth``, ``loss/name`` is ``loss``."""
    parts = [part for part in path.split("/") if part not in ("params", "name")]
    return parts[-1].replace("_", " ")


def rounded(value: str) -> str:
    """Return a parameter's value with at most four significant digits."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number.is_integer() else f"{number:.4g}"
