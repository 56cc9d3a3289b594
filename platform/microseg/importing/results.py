"""Import a table of results: a study in MLflow as a search would have left it, to report and to compare."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from pydantic import Field

from microseg import report
from microseg.config import Strict
from microseg.errors import MicrosegError
from microseg.importing.columns import Columns
from microseg.importing.table import Configuration, Results, read_results
from microseg.metrics import better
from microseg.report.fold_sizes import RATIO
from microseg.report.leaderboard import FOLDS, METRIC, MODE, ORIGIN
from microseg.tracking import store, tree, views

DIGEST, FILE = "microseg.results_digest", "microseg.results_file"


class ResultsRequest(Strict):
    """Which table is to become which study.

    ``lower_is_better`` turns the direction of a metric that is not known to improve downwards.
    ``test_to_train`` is the size of a fold's validation part over that of its training part, where it
    is known; a report takes folds of unknown size to be equal parts.
    """

    file: Path
    name: str
    columns: Columns = Columns()
    lower_is_better: bool = False
    test_to_train: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)


@dataclass(frozen=True)
class ImportedResults:
    """What an import leaves: the study, what was noticed, and whether it was there already."""

    view: report.StudyView
    notes: tuple[str, ...]
    link: str
    known: bool


def import_results(request: ResultsRequest) -> ImportedResults:
    """Write a table of results into MLflow as study, trials and folds.

    The same table under the same name is not written twice: a study that is whole is left as it is, one
    that an interruption left unfinished is gone on with. The study's own run ends last.

    Parameters
    ----------
    request : ResultsRequest
        The table, and how to understand it.

    Raises
    ------
    MicrosegError
        If the table cannot be used, or the name belongs to another study.
    """
    _check_names(request)
    results = read_results(request.file, request.columns)
    client = store.connect()
    digest = _digest(request, results)
    former = _former(client, request, digest)
    if former and former.data.tags.get(tree.STATE) == "completed":
        run, known = tree.StudyRun(former.info.run_id, former.info.experiment_id, request.name), True
    else:
        former_id, reason = former.info.run_id if former else None, f"imported from {request.file.name}"
        with tree.study_run(client, request.name, former_id, reason) as run:
            _write_whole(client, run, request, results, digest)
        known = False
    view = report.view(client, client.get_run(run.run_id))
    link = views.share_view(client, run, f"cv/{request.columns.metric}", view.varied, view.shared)
    return ImportedResults(view, results.notes, link, known)


def _check_names(request: ResultsRequest) -> None:
    """Refuse names that searches of MLflow's runs, or its metrics, cannot hold."""
    name, metric = request.name, request.columns.metric
    if not name.strip() or name.startswith(".") or set(name) & set("/\\'`\"\n"):
        raise MicrosegError(f"study name {name!r}: use letters, digits, '-' and '_', such as afm-2022")
    if not metric.replace("_", "").replace("-", "").isalnum():
        raise MicrosegError(f"metric {metric!r}: use letters, digits, '-' and '_', such as dice")


def _direction(request: ResultsRequest) -> str:
    return "min" if request.lower_is_better else better(request.columns.metric)


def _digest(request: ResultsRequest, results: Results) -> str:
    """Hash what the study would hold, so that another choice of rows or columns is another study."""
    table = [[one.name, one.scores, one.params, one.metrics] for one in results.configurations]
    meaning = [request.columns.metric, _direction(request), request.test_to_train]
    return hashlib.sha256(json.dumps([meaning, table], sort_keys=True).encode()).hexdigest()


def _former(client: MlflowClient, request: ResultsRequest, digest: str) -> Run | None:
    """Return the study that an earlier import of this table has left, if any."""
    experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
    condition = f"tags.`{tree.LEVEL}` = 'study' and tags.`{tree.STUDY}` = '{request.name}'"
    runs = list(client.search_runs(experiments, condition))
    own = next((run for run in runs if run.data.tags.get(DIGEST) == digest), None)
    if runs and own is None:
        raise MicrosegError(
            f"study '{request.name}' exists in {client.tracking_uri} and holds something else, or other rows "
            "or columns of this table; choose another --name"
        )
    return own


def _write_whole(
    client: MlflowClient, run: tree.StudyRun, request: ResultsRequest, results: Results, digest: str
) -> None:
    """Write a study, or what it lacks."""
    _describe(client, run, request, results, digest)
    for number, one in enumerate(results.configurations):
        _write_trial(client, run, request.columns.metric, one, number)
    view = report.view(client, client.get_run(run.run_id))
    report.mark(client, view)
    client.log_text(run.run_id, report.frame(view).to_csv(index=False), "leaderboard.csv")


def _describe(
    client: MlflowClient, run: tree.StudyRun, request: ResultsRequest, results: Results, digest: str
) -> None:
    """Write to the study's run what its readers go by, and the table itself."""
    count, ratio = len(results.configurations), request.test_to_train
    chosen = f", rows with {' and '.join(request.columns.where)}" if request.columns.where else ""
    tags = {
        DIGEST: digest,
        FILE: request.file.name,
        ORIGIN: "table",
        METRIC: f"val/{request.columns.metric}",
        MODE: _direction(request),
        FOLDS: str(results.folds),
        "microseg.trials": str(count),
        "mlflow.note.content": f"{count} configurations imported from {request.file.name}{chosen}: "
        "trained and scored elsewhere.",
    }
    tree.set_tags(client, run.run_id, tags | ({RATIO: repr(ratio)} if ratio else {}))
    client.log_artifact(run.run_id, str(request.file))


def _write_trial(
    client: MlflowClient, run: tree.StudyRun, metric: str, one: Configuration, number: int
) -> None:
    """Write the runs of a configuration and of its folds; one that lacks folds is never ranked."""
    trial = tree.open_trial(client, run, one.name, one.params, number)
    former = tree.fold_runs(client, trial)
    for fold, score in one.known.items():
        own = tree.open_fold(client, trial, fold, former)
        _finish(client, own, {f"final/{metric}": score}, "completed", "imported")
    scores = list(one.known.values())
    summary = {f"cv/{name}_mean": value for name, value in one.metrics.items()}
    if scores:
        summary |= {f"cv/{metric}_mean": statistics.fmean(scores)}
    if len(scores) > 1:
        summary |= {f"cv/{metric}_std": statistics.stdev(scores)}
    summary |= {"folds_done": float(len(scores))}
    whole = len(scores) == len(one.scores)
    reason = "all folds" if whole else f"{len(scores)} of {len(one.scores)} folds are in the table"
    _finish(client, client.get_run(trial.run_id), summary, "completed" if whole else "interrupted", reason)


def _finish(client: MlflowClient, run: Run, metrics: Mapping[str, float], state: str, reason: str) -> None:
    """Write all that is known of a run and end it, at the time it started.

    How long a training took, the table does not say; and metrics of that time that are written again are the
    same points, not new ones.
    """
    points = [Metric(name, value, run.info.start_time, 0) for name, value in metrics.items()]
    tags = [RunTag(tree.STATE, state), RunTag(tree.REASON, reason)]
    client.log_batch(run.info.run_id, metrics=points, tags=tags)
    client.set_terminated(run.info.run_id, tree.STATUS[state], end_time=run.info.start_time)
