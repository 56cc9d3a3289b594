"""A study as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from microseg import pages
from microseg.report import figures, formats, probabilities, sentences, tables
from microseg.report.comparisons import LEVEL, interval, matrix, rivals
from microseg.report.hold_out import decisions
from microseg.report.leaderboard import COSTS, StudyView
from microseg.report.pictures import pictures
from microseg.report.replicates import repeats

REPORT = "report.html"  # among the artifacts of a study
ROWS = 200  # a browser lays out a longer table slowly, and nobody reads it; the CSV has all
LEADERS = 20  # rows of the leaderboard that are open, and rivals of the best that are listed
COLUMNS = 5  # parameters that are columns; of more, those of the best trials are told in words
COST_HEADINGS = {
    "seconds": "training, s",
    "cpu_seconds": "CPU-seconds",
    "peak_memory_mib": "memory, MiB",
    "gpu_memory_mib": "GPU memory, MiB",
    "parameters": "parameters",
    "inference_seconds": "ms per megapixel",
}


def page(client: MlflowClient, study: StudyView, importance: Mapping[str, float] | None = None) -> str:
    """Render a study as one HTML page that opens without a network.

    Parameters
    ----------
    client : MlflowClient
        The tracking store, for what the trials' runs have beside their scores.
    study : StudyView
        The study.
    importance : mapping of str to float, optional
        The share of each parameter, by path; see `microseg.search.importance`.
    """
    environment = pages.environment()
    names = ("rounded", "number", "cost", "probability", "difference")
    environment.filters |= {name: getattr(formats, name) for name in names}
    environment.filters |= {"measured": sentences.measured, "state": sentences.state, "shade": _shade}
    environment.filters |= {
        "settings": lambda row: tables.settings(row, study.varied),
        "unlike": lambda row, other: tables.unlike(row, other, study.varied),
    }
    return environment.get_template("report.html").render(
        study=study,
        **_leaderboard(study),
        **_comparisons(study),
        **_best(client, study),
        **_charts(client, study, importance or {}),
        summary=sentences.summary(study).splitlines(),
        decisions=decisions(client, study.run.info.run_id),
        repeats=repeats(study),
        repetition=sentences.repetition(study),
        facts=_facts(study),
    )


def log_page(client: MlflowClient, study: StudyView, importance: Mapping[str, float] | None = None) -> str:
    """Render a study as `page` does, keep that in its artifacts in place of an earlier one, and return it."""
    text = page(client, study, importance)
    client.log_text(study.run.info.run_id, text, REPORT)
    return text


def _leaderboard(study: StudyView) -> dict[str, Any]:
    shown = study.first(ROWS)
    ranked = [row for row in shown if row.rank is not None]
    units = COST_HEADINGS | (
        {"seconds": "GPU-seconds"} if any("gpu_memory_mib" in row.costs for row in ranked) else {}
    )
    columns = study.varied if len(study.varied) <= COLUMNS else []
    return {
        "shown": shown,
        "ranked": [(row, interval(row, study)) for row in ranked],
        "leaders": LEADERS,
        "others": [row for row in shown if row.rank is None],
        "columns": list(zip(columns, formats.headings(columns), strict=True)),
        "costs": [(cost, units[cost]) for cost in COSTS if any(cost in row.costs for row in ranked)],
    }


def _comparisons(study: StudyView) -> dict[str, Any]:
    found = rivals(study)
    return {
        "verdict": sentences.verdict(study),
        "resolution": sentences.resolution(study),
        "rivals": found[:LEADERS],
        "more_rivals": len(found) - len(found[:LEADERS]),
        "matrix": matrix(study),
        "level": LEVEL,
    }


def _best(client: MlflowClient, study: StudyView) -> dict[str, Any]:
    found = probabilities.probabilities(client, study)
    return {
        "probabilities": found,
        "probability_chart": probabilities.chart(found) if found else "",
        "pictures": pictures(client, study.run.info.run_id),
    }


def _charts(client: MlflowClient, study: StudyView, importance: Mapping[str, float]) -> dict[str, str]:
    return {
        "points": figures.fold_points(study),
        "pareto": figures.pareto(study),
        "importances": figures.importances(importance),
        "slices": figures.slices(study, importance),
        "curves": figures.curves(client, study),
    }


def _shade(p: float) -> str:
    """Return the class of a cell by its corrected p."""
    return "clear" if p < LEVEL else "near" if p < 2 * LEVEL else "alike"


def _facts(study: StudyView) -> dict[str, str]:
    tags = study.run.data.tags
    return {
        "Data set": tags.get("microseg.data", ""),
        "Content digest": tags.get("microseg.digest", "")[:16],
        "Code": tags.get("mlflow.source.git.commit", "")[:12] or "not in a git checkout",
        "Hardware": tags.get("microseg.hardware", ""),
        "Seed": tags.get("microseg.seed", ""),
    }
