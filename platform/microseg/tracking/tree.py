"""The tree of runs: a parent per study, a child per trial, a grandchild per fold.

Runs are got or created by a key, written with explicit ids, and ended by the process that started the
study: a fluent ``with start_run()`` marks a stopped trial as failed, and workers inherit the run that
``mlflow run`` made and rename it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run, RunStatus

from microseg.config import Strict
from microseg.tracking.store import experiment_for

LEVEL, KEY, STUDY = "microseg.level", "microseg.key", "microseg.study"
STATE, REASON = "microseg.state", "microseg.reason"
PARENT, RESUMES = "mlflow.parentRunId", "microseg.resumes"

# What MLflow's three final statuses mean for a trial; the tag says which state it really is.
STATUS = {"completed": "FINISHED", "pruned": "KILLED", "interrupted": "KILLED"}


@dataclass(frozen=True)
class StudyRun:
    """The parent run of a study, and where it lives."""

    run_id: str
    experiment_id: str
    name: str


class TrialRun(Strict):
    """All a worker needs to write a trial's runs, from any process or machine."""

    tracking_uri: str
    experiment_id: str
    study: str
    number: int
    run_id: str


def trial_name(number: int) -> str:
    """Return a trial's readable name, such as ``trial-007``."""
    return f"trial-{number:03d}"


def fold_name(number: int, fold: int) -> str:
    """Return a fold's readable name, such as ``trial-007/fold-2`` (folds count from 1)."""
    return f"{trial_name(number)}/fold-{fold + 1}"


def open_study(client: MlflowClient, name: str, former: str | None = None) -> StudyRun:
    """Open the parent run of a study.

    The run that ``mlflow run`` made is the parent. On resume the former parent is reopened, and
    the new run is tagged with the one it resumes and ended. ``MLFLOW_RUN_ID`` is taken out of the
    environment, because workers would inherit it.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    name : str
        The study's name, which becomes the run's.
    former : str, optional
        The parent run of the study that is resumed.
    """
    given = os.environ.pop("MLFLOW_RUN_ID", None)
    if former:
        if given and given != former:
            client.set_tag(given, RESUMES, former)
            client.set_terminated(given, "FINISHED")
        client.update_run(former, status="RUNNING")
        return StudyRun(former, str(client.get_run(former).info.experiment_id), name)
    experiment_id = experiment_for(client, given)
    tags = {LEVEL: "study", KEY: name, STUDY: name, STATE: "running"}
    if not given:
        run_id = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
        return StudyRun(str(run_id), experiment_id, name)
    client.update_run(given, name=name)
    set_tags(client, given, tags)
    return StudyRun(given, experiment_id, name)


def open_trial(client: MlflowClient, study: StudyRun, number: int, parameters: Mapping[str, str]) -> TrialRun:
    """Get or create the run of a trial; its parameters are written once, when it is created."""
    key = f"{study.name}/{study.run_id[:8]}/{trial_name(number)}"
    run = find(client, study.experiment_id, key)
    if run is None:
        tags = {LEVEL: "trial", KEY: key, STUDY: study.name, PARENT: study.run_id, STATE: "running"}
        run = client.create_run(study.experiment_id, tags=tags, run_name=trial_name(number))
        for path, value in parameters.items():
            client.log_param(run.info.run_id, path, value)
    else:
        reopen(client, run)
    return TrialRun(
        tracking_uri=client.tracking_uri,
        experiment_id=study.experiment_id,
        study=study.name,
        number=number,
        run_id=run.info.run_id,
    )


def open_fold(client: MlflowClient, trial: TrialRun, fold: int) -> Run:
    """Get or create the run of a fold."""
    key = f"{trial.run_id}/{fold_name(trial.number, fold)}"
    run = find(client, trial.experiment_id, key)
    if run is not None:
        reopen(client, run)
        return run
    name = fold_name(trial.number, fold)
    tags = {LEVEL: "fold", KEY: key, STUDY: trial.study, PARENT: trial.run_id, STATE: "running"}
    return client.create_run(trial.experiment_id, tags=tags, run_name=name)


def reopen(client: MlflowClient, run: Run) -> None:
    """Mark a run that was ended too early as running again."""
    if run.info.status != RunStatus.to_string(RunStatus.RUNNING):
        client.update_run(run.info.run_id, status="RUNNING")
        client.set_tag(run.info.run_id, STATE, "running")


def end(client: MlflowClient, run_id: str, state: str, reason: str = "") -> None:
    """End a run with its state (``completed``, ``pruned``, ``failed``, ...) and why it ended."""
    set_tags(client, run_id, {STATE: state, REASON: reason or state})
    client.set_terminated(run_id, STATUS.get(state, "FAILED"))


def end_children(client: MlflowClient, experiment_id: str, parent: str, state: str, reason: str) -> None:
    """End the runs below a trial that a stopped or dead worker left running."""
    for run in children(client, experiment_id, parent):
        if run.info.status == RunStatus.to_string(RunStatus.RUNNING):
            end(client, run.info.run_id, state, reason)


def interrupt(client: MlflowClient, study: StudyRun) -> None:
    """End the trials of a study that stopped while they ran, and their folds; resuming reopens them."""
    for trial in children(client, study.experiment_id, study.run_id):
        if trial.info.status == RunStatus.to_string(RunStatus.RUNNING):
            end_children(client, study.experiment_id, trial.info.run_id, "interrupted", "the study stopped")
            end(client, trial.info.run_id, "interrupted", "the study stopped")


def children(client: MlflowClient, experiment_id: str, parent: str) -> Iterator[Run]:
    """Yield the runs directly below a run."""
    yield from search(client, experiment_id, f"tags.`{PARENT}` = '{parent}'")


def find(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Return the run with this key, if there is one."""
    return next(search(client, experiment_id, f"tags.`{KEY}` = '{key}'"), None)


def search(client: MlflowClient, experiment_id: str, condition: str) -> Iterator[Run]:
    """Yield all runs that meet a condition, page by page, the oldest first."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], condition, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set several tags of a run."""
    for name, value in tags.items():
        client.set_tag(run_id, name, value)
