"""Which studies are no longer needed, and how they go.

A study goes whole or stays whole: a table that lacks the trials that lost would say that few were tried. What
serves or may serve, what met the champion on a hold-out, and what runs stays, whatever its age.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from microseg.errors import MicrosegError, one_line
from microseg.registry import history
from microseg.registry.decision import OUTCOME
from microseg.search import database, state
from microseg.storage import home
from microseg.study.request import StudyState, alone, folder, optuna_file, read_state
from microseg.tracking import clock, tree
from microseg.tracking.keeping import artifact_bytes

_EXPERIMENTS = 1000  # in one answer of MLflow


class Expired(NamedTuple):
    """A study that may go: its runs, the study's own last; versions that nobody uses; bytes of its files."""

    study: Run
    runs: tuple[Run, ...]
    versions: tuple[ModelVersion, ...]
    size: int

    @property
    def ended(self) -> str:
        """The day on which it ended."""
        return f"{_ended(self.study):%Y-%m-%d}"


class Kept(NamedTuple):
    """A study that is old enough to go, and why it stays."""

    study: Run
    reason: str


def look(client: MlflowClient, days: int) -> tuple[list[Expired], list[Kept]]:
    """Find the studies that ended longer ago than some days: those that may go, and those that stay.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    days : int
        How long a study is kept after its end.

    Raises
    ------
    MicrosegError
        If the store of artifacts does not tell how large they are.
    """
    limit = clock.moment() - timedelta(days=days)
    versions = _versions(client)
    expired, kept = [], []
    for study in _studies(client):
        if study.info.status == "RUNNING":
            if datetime.fromtimestamp(study.info.start_time / 1000, UTC) < limit:
                kept.append(Kept(study, "it runs, or its process was killed: then end it by --resume"))
        elif _ended(study) < limit:
            own = versions[study.info.run_id]
            reason = next(filter(None, map(_use, own)), "")
            if reason:
                kept.append(Kept(study, reason))
            else:
                expired.append(_expired(client, study, own))
    return expired, kept


def delete(client: MlflowClient, expired: Expired) -> None:
    """Mark a study as deleted in MLflow, which can restore it until `microseg.tracking.garbage.purge`.

    What is interrupted is done by the next call: the study's own run goes last.

    Raises
    ------
    MicrosegError
        If a version of its models came into use meanwhile, or MLflow refuses.
    """
    try:
        for version in expired.versions:
            _delete_version(client, version)
        for run in expired.runs:
            client.delete_run(run.info.run_id)
    except MlflowException as error:
        raise MicrosegError(
            f"study {expired.study.info.run_name} could not be deleted ({one_line(error)[:200]}); "
            "ask who may delete its runs and models"
        ) from error


def deleted_here(client: MlflowClient) -> list[str]:
    """Return the studies that have a folder here but whose run was deleted.

    A folder whose run is not known is none of them: it belongs to another tracking store.
    """
    files = sorted((home() / "studies").glob("*/study.json"))
    states = {file.parent.name: StudyState.model_validate_json(file.read_bytes()) for file in files}
    return [name for name, state in states.items() if _deleted(client, state.run_id)]


def forget(name: str) -> None:
    """Remove the folder of a study, its trials from Optuna's storage, and their state from a store.

    Raises
    ------
    MicrosegError
        If a process works in it, or the database of its trials cannot be used.
    """
    with alone(name):
        database.forget(optuna_file(name), name)
        if store := state.study_store(name, read_state(name).run_id):
            state.forget(store)
        shutil.rmtree(folder(name))


def _studies(client: MlflowClient) -> Iterator[Run]:
    for experiment in client.search_experiments(max_results=_EXPERIMENTS):
        yield from list(tree.search(client, experiment.experiment_id, f"tags.`{tree.LEVEL}` = 'study'"))


def _ended(run: Run) -> datetime:
    return datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)


def _expired(client: MlflowClient, study: Run, versions: Sequence[ModelVersion]) -> Expired:
    trials = list(tree.children(client, study.info.experiment_id, study.info.run_id))
    owners = {run.info.run_id for run in trials}
    folds = [run for run in tree.study_folds(client, study) if run.data.tags.get(tree.PARENT) in owners]
    runs = (*folds, *trials, study)
    return Expired(study, runs, tuple(versions), sum(artifact_bytes(client, run) for run in runs))


def _versions(client: MlflowClient) -> Mapping[str | None, list[ModelVersion]]:
    """Return all versions of all models by the run that they belong to."""
    found: defaultdict[str | None, list[ModelVersion]] = defaultdict(list)
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        for version in page:
            # A search leaves out which aliases point to a version.
            found[version.run_id].append(client.get_model_version(version.name, version.version))
        token = page.token
        if not token:
            return found


def _use(version: ModelVersion) -> str:
    """Say what a version is needed for; nothing where it may go."""
    name = f"{version.name} version {version.version}"
    if version.aliases:
        return f"{name} is {' and '.join(sorted(version.aliases))}"
    if OUTCOME in version.tags:
        return f"{name} has met a champion: the record of a hold-out"
    moves = {number for move in history(version.name) for number in (move.version, move.former)}
    return f"{name} was champion, and a rollback may return to it" if int(version.version) in moves else ""


def _delete_version(client: MlflowClient, version: ModelVersion) -> None:
    """Delete a version and its files, unless somebody gave it a use since it was looked at."""
    now = client.get_model_version(version.name, version.version)
    if _use(now):
        raise MicrosegError(f"nothing of its study was deleted: {_use(now)} by now")
    client.delete_model_version(version.name, version.version)
    if version.model_id:
        client.delete_logged_model(version.model_id)


def _deleted(client: MlflowClient, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
