"""What MLflow's own tables show of a study: rank, mean ± interval and cost of each trial, and of the best."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from microseg.report.comparisons import interval
from microseg.report.formats import cost
from microseg.report.leaderboard import Row, StudyView, complete
from microseg.tracking import clock
from microseg.tracking.views import BEST, COST, INTERVAL, RANK, TRIALS


def mark(client: MlflowClient, study: StudyView) -> None:
    """Write to the runs of a study, its trials and their repeats, what readers of MLflow's tables choose by.

    A trial's tags are ``mean CI95``, such as ``0.8465 ± 0.0361`` by the interval that the report has too,
    and ``cost``; its rank is a metric. The study has those of its best trial, and what all cost together.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    study : StudyView
        The study as it is in the store; it may be marked again.
    """
    for row in (*study.rows, *study.replicates):
        ranks = {RANK: float(row.rank)} if row.rank else {}
        tags = {INTERVAL: mean_and_interval(row, study), COST: _spent([row])}
        _write(client, row.run_id, tags, ranks)
    trials = f"{len(study.rows)}, {len(study.ranked)} with all folds"
    tags = {TRIALS: trials, COST: _spent([*study.rows, *study.replicates])}
    if study.ranked:
        best = study.ranked[0]
        tags |= {BEST: best.name, INTERVAL: mean_and_interval(best, study)}
    _write(client, study.run.info.run_id, tags, {})


def mean_and_interval(row: Row, study: StudyView) -> str:
    """Return a trial's mean with half of its 95 % interval; empty without a mean over all folds."""
    if not complete(row):
        return ""
    within = interval(row, study)
    return f"{row.mean:.4f}" + (f" ± {(within.high - within.low) / 2:.4f}" if within else "")


def _spent(rows: Sequence[Row]) -> str:
    """Say what trials cost: seconds of training and, of one alone, the size of its network."""
    seconds = sum(row.costs.get("seconds", row.seconds) for row in rows)
    parts = [f"{cost(seconds)} s"] if seconds else []  # of imported results nobody knows how long they took
    if len(rows) == 1 and "parameters" in rows[0].costs:
        parts.append(f"{cost(rows[0].costs['parameters'])} parameters")
    return ", ".join(parts)


def _write(client: MlflowClient, run_id: str, tags: dict[str, str], metrics: dict[str, float]) -> None:
    now = clock.milliseconds()
    points = [Metric(name, value, now, 0) for name, value in metrics.items()]
    known = [RunTag(name, text) for name, text in tags.items() if text]
    client.log_batch(run_id, metrics=points, tags=known)
