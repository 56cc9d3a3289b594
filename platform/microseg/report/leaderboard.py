"""A study as MLflow holds it: its trials in the order of a leaderboard, and the repeats of the finalists."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from mlflow import MlflowClient
from mlflow.entities import Run

from microseg.errors import MicrosegError
from microseg.report.fold_sizes import SizeRatio, size_ratio
from microseg.report.pareto import front
from microseg.tracking import tree

METRIC, MODE, FOLDS = "microseg.metric", "microseg.mode", "microseg.folds"
AGAINST = "microseg.against"
ORIGIN = "microseg.origin"  # of what was imported: "table" of results, or "network" that is judged here

# What a trial costs, and the metric of its run that holds it: seconds that all folds trained, those that
# processors worked for them, the most memory that one of them took, the size of the network, seconds in which
# it predicts a megapixel.
COSTS = {
    "seconds": "seconds",
    "cpu_seconds": "cpu_seconds",
    "peak_memory_mib": "peak_memory_mib",
    "gpu_memory_mib": "gpu_memory_mib",
    "parameters": "parameters",
    "inference_seconds": "cv/inference_seconds_mean",
}


@dataclass(frozen=True)
class Row:
    """One trial on the leaderboard, or a repeat of one with another seed.

    ``scores`` are those of the completed folds, in fold order; ``fold_runs`` are the runs of all folds that
    were begun. ``mean`` and ``std`` are over ``scores``. ``costs`` are those of `COSTS` that were measured.
    ``seconds`` passed between the start and the end of the run.
    """

    rank: int | None
    name: str
    state: str
    reason: str
    mean: float | None
    std: float | None
    scores: tuple[float, ...]
    seconds: float
    params: dict[str, str]
    run_id: str
    fold_runs: tuple[str, ...]
    replicate_of: str = ""
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyView:
    """A study as MLflow holds it.

    ``against`` is the cost that it searches to be low, if any; ``ratio`` how the sizes of its folds' parts
    compare, None where there is only one fold.
    """

    run: Run
    metric: str
    mode: str
    folds: int
    against: str
    rows: tuple[Row, ...]
    replicates: tuple[Row, ...] = ()
    ratio: SizeRatio | None = None

    @property
    def sign(self) -> float:
        """1 where a larger score is better, else -1."""
        return 1.0 if self.mode == "max" else -1.0

    @property
    def ranked(self) -> list[Row]:
        """The trials with all folds, the best first."""
        return [row for row in self.rows if row.rank is not None]

    @property
    def origin(self) -> str:
        """Where the scores come from: a ``search``, an imported ``table`` or an imported ``network``."""
        return str(self.run.data.tags.get(ORIGIN, "search"))

    @cached_property
    def varied(self) -> list[str]:
        """The parameters in which the trials differ, in order of their paths."""
        names = sorted({name for row in self.rows for name in row.params})
        return [name for name in names if len({row.params.get(name) for row in self.rows}) > 1]

    @cached_property
    def shared(self) -> list[str]:
        """Those of them that every trial has, not only one branch of the space."""
        return [name for name in self.varied if all(name in row.params for row in self.rows)]

    @property
    def observations(self) -> tuple[list[dict[str, str]], list[float]]:
        """Parameters and score of each ranked trial; larger is better."""
        rows = [(row.params, row.mean) for row in self.ranked]
        known = [(params, self.sign * mean) for params, mean in rows if mean is not None]
        return [params for params, _ in known], [score for _, score in known]

    @cached_property
    def price(self) -> str:
        """The cost that scores are set against: the one searched to be low, or else one that was measured."""
        known = ("inference_seconds", "parameters")
        return self.against or next((cost for cost in known if any(cost in r.costs for r in self.ranked)), "")

    @cached_property
    def priced(self) -> list[tuple[float, float, str]]:
        """That cost, mean and name of the ranked trials of which it was measured."""
        rows = [row for row in self.ranked if self.price in row.costs]
        return [(row.costs[self.price], row.mean, row.name) for row in rows if row.mean is not None]

    @cached_property
    def front(self) -> frozenset[str]:
        """The names of the ranked trials that none beats in both score and that cost."""
        chosen = front([self.sign * mean for _, mean, _ in self.priced], [cost for cost, _, _ in self.priced])
        return frozenset(name for (_, _, name), member in zip(self.priced, chosen, strict=True) if member)

    def first(self, limit: int) -> list[Row]:
        """Return the first rows and, where a low cost is searched, those of the front: they may rank low."""
        kept = self.front if self.against else frozenset[str]()
        return [row for place, row in enumerate(self.rows) if place < limit or row.name in kept]


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
    metric, count = tags[METRIC].removeprefix("val/"), int(tags[FOLDS])
    folds = _folds(client, study)
    rows: dict[str, list[Row]] = defaultdict(list)
    for run in tree.children(client, study.info.experiment_id, study.info.run_id):
        row = _row(run, folds.get(run.info.run_id, []), metric)
        rows[run.data.tags[tree.LEVEL]].append(row)
    return StudyView(
        run=study,
        metric=tags[METRIC],
        mode=tags[MODE],
        folds=count,
        against=tags.get(AGAINST, ""),
        rows=_ranked(rows["trial"], 1.0 if tags[MODE] == "max" else -1.0),
        replicates=tuple(rows["replicate"]),
        ratio=size_ratio(client, study, count),
    )


def _folds(client: MlflowClient, study: Run) -> dict[str, list[Run]]:
    """Return the runs of all folds by the trial that they belong to."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in tree.study_folds(client, study):
        found[run.data.tags[tree.PARENT]].append(run)
    return {parent: sorted(runs, key=_fold_number) for parent, runs in found.items()}


def _fold_number(run: Run) -> int:
    return int(run.info.run_name.rpartition("fold-")[2])


def _row(run: Run, folds: Sequence[Run], metric: str) -> Row:
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
        costs={cost: metrics[name] for cost, name in COSTS.items() if name in metrics},
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
