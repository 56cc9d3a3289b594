"""A study as MLflow holds it: its trials in the order of a leaderboard, and the repeats of the finalists."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mlflow import MlflowClient
from mlflow.entities import Run

from microseg.errors import MicrosegError
from microseg.report.pareto import front
from microseg.tracking import tree

METRIC, MODE, FOLDS = "microseg.metric", "microseg.mode", "microseg.folds"
AGAINST = "microseg.against"

# The metric of a trial's run that holds what a study searches to be low.
COSTS = {"parameters": "parameters", "inference_seconds": "cv/inference_seconds_mean"}


@dataclass(frozen=True)
class Row:
    """One trial on the leaderboard, or a repeat of one with another seed.

    ``scores`` are those of the completed folds, in fold order; ``fold_runs`` are the runs of all folds that
    were begun. ``mean`` and ``std`` are over ``scores``. ``cost`` is what the study searches to be low.
    """

    rank: int | None
    name: str
    state: str
    reason: str
    mean: float | None
    std: float | None
    scores: tuple[float, ...]
    cost: float | None
    seconds: float
    params: dict[str, str]
    run_id: str
    fold_runs: tuple[str, ...]
    replicate_of: str = ""


@dataclass(frozen=True)
class StudyView:
    """A study as MLflow holds it."""

    run: Run
    metric: str
    mode: str
    folds: int
    against: str
    rows: tuple[Row, ...]
    replicates: tuple[Row, ...] = ()

    @property
    def sign(self) -> float:
        """1 where a larger score is better, else -1."""
        return 1.0 if self.mode == "max" else -1.0

    @property
    def ranked(self) -> list[Row]:
        """The trials with all folds, the best first."""
        return [row for row in self.rows if row.rank is not None]

    @cached_property
    def varied(self) -> list[str]:
        """The parameters in which the trials differ, in order of their paths."""
        names = sorted({name for row in self.rows for name in row.params})
        return [name for name in names if len({row.params.get(name) for row in self.rows}) > 1]

    @cached_property
    def shared(self) -> list[str]:
        """Those of them that every trial has, not only one branch of the space."""
        return [name for name in self.varied if all(name in row.params for row in self.rows)]

    @cached_property
    def priced(self) -> list[tuple[float, float, str]]:
        """Cost, mean and name of the ranked trials whose cost was measured."""
        rows = ((row.cost, row.mean, row.name) for row in self.ranked)
        return [(cost, mean, name) for cost, mean, name in rows if cost is not None and mean is not None]

    @cached_property
    def front(self) -> frozenset[str]:
        """The names of the ranked trials that none beats in both score and cost; empty without a cost."""
        chosen = front([self.sign * mean for _, mean, _ in self.priced], [cost for cost, _, _ in self.priced])
        return frozenset(name for (_, _, name), member in zip(self.priced, chosen, strict=True) if member)

    def first(self, limit: int) -> list[Row]:
        """Return the first rows and, later on, those of the Pareto front: cheap networks rank low."""
        return [row for place, row in enumerate(self.rows) if place < limit or row.name in self.front]


def find_study(client: MlflowClient, name: str) -> Run:
    """Return the newest study of this name, in any experiment.

    Raises
    ------
    MicrosegError
        If there is none; the message lists those there are.
    """
    experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
    condition = f"tags.`{tree.LEVEL}` = 'study'"
    runs = client.search_runs(experiments, condition, order_by=["attributes.start_time DESC"])
    for run in runs:
        if run.data.tags[tree.STUDY] == name and tree.RESUMES not in run.data.tags:
            return run
    known = ", ".join(sorted({run.data.tags[tree.STUDY] for run in runs})) or "none yet"
    raise MicrosegError(f"there is no study '{name}' in {client.tracking_uri}; studies: {known}")


def view(client: MlflowClient, study: Run) -> StudyView:
    """Read a study's trials and folds from MLflow, the best trial first.

    Only trials with all folds are ranked: the mean of fewer folds is another quantity. Those that were
    raced out follow, those with more folds first, then those that were pruned, the later ones first.
    """
    tags = study.data.tags
    against = tags.get(AGAINST, "")
    metric = tags[METRIC].removeprefix("val/")
    folds = _folds(client, study)
    rows: dict[str, list[Row]] = defaultdict(list)
    for run in tree.children(client, study.info.experiment_id, study.info.run_id):
        row = _row(run, folds.get(run.info.run_id, []), metric, COSTS.get(against, ""))
        rows[run.data.tags[tree.LEVEL]].append(row)
    return StudyView(
        run=study,
        metric=tags[METRIC],
        mode=tags[MODE],
        folds=int(tags[FOLDS]),
        against=against,
        rows=_ranked(rows["trial"], 1.0 if tags[MODE] == "max" else -1.0),
        replicates=tuple(rows["replicate"]),
    )


def _folds(client: MlflowClient, study: Run) -> dict[str, list[Run]]:
    """Return the runs of all folds by the trial that they belong to: one search, not one for each trial."""
    condition = f"tags.`{tree.LEVEL}` = 'fold' and tags.`{tree.STUDY}` = '{study.data.tags[tree.STUDY]}'"
    found: dict[str, list[Run]] = defaultdict(list)
    for run in tree.search(client, study.info.experiment_id, condition):
        found[run.data.tags[tree.PARENT]].append(run)
    return {parent: sorted(runs, key=_fold_number) for parent, runs in found.items()}


def _fold_number(run: Run) -> int:
    return int(run.info.run_name.rpartition("fold-")[2])


def _row(run: Run, folds: Sequence[Run], metric: str, cost: str) -> Row:
    metrics, tags = run.data.metrics, run.data.tags
    done = [fold.data.metrics for fold in folds if fold.data.tags.get(tree.STATE) == "completed"]
    return Row(
        rank=None,
        name=run.info.run_name,
        state=tags.get(tree.STATE, "running"),
        reason=tags.get(tree.REASON, ""),
        mean=metrics.get(f"cv/{metric}_mean"),
        std=metrics.get(f"cv/{metric}_std"),
        scores=tuple(values[f"final/{metric}"] for values in done if f"final/{metric}" in values),
        cost=metrics.get(cost),
        seconds=_duration(run),
        params=dict(run.data.params),
        run_id=run.info.run_id,
        fold_runs=tuple(fold.info.run_id for fold in folds),
        replicate_of=tags.get(tree.REPLICATE_OF, ""),
    )


def _duration(run: Run) -> float:
    """Return how long a trial took, whatever became of it, in seconds."""
    return (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0


def complete(row: Row) -> bool:
    """Return whether a trial has all folds and a number as its mean."""
    return row.state == "completed" and row.mean is not None and math.isfinite(row.mean)


def _ranked(rows: Sequence[Row], sign: float) -> tuple[Row, ...]:
    """Order the rows as `view` says, and number those with all folds; of equals, the older comes first."""
    ordered = sorted(rows, key=lambda row: _place(row, sign))
    ranks = {row.run_id: rank for rank, row in enumerate(filter(complete, ordered), 1)}
    return tuple(replace(row, rank=ranks.get(row.run_id)) for row in ordered)


def _place(row: Row, sign: float) -> tuple[float, ...]:
    mean = -sign * (row.mean or 0.0)
    if complete(row):
        return (0, mean)
    if row.state == "raced_out":
        return (1, -len(row.scores), mean)
    if row.state == "pruned":
        return (2, -_epoch(row.reason))
    return (3,)


def _epoch(reason: str) -> int:
    """Return the epoch that the reason of a pruned trial names, ``ASHA at epoch 9``; 0 without one."""
    found = re.search(r"epoch (\d+)", reason)
    return int(found[1]) if found else 0
