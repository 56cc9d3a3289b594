"""The tree of runs: a parent per study, a child per trial, a grandchild per fold.

Runs are got or created by a key, written with explicit ids, and ended by the process that started the
study: a fluent ``with start_run()`` marks a stopped trial as failed, and workers inherit the run that
``mlflow run`` made and rename it. Every step may be interrupted and done again: the tree is the same.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Param, Run, RunTag

from microseg.config import Strict
from microseg.tracking import clock
from microseg.tracking.rights import allowed
from microseg.tracking.store import experiment_for

LEVEL, KEY, STUDY = "microseg.level", "microseg.key", "microseg.study"
STATE, REASON = "microseg.state", "microseg.reason"
PARENT, RESUMES = "mlflow.parentRunId", "microseg.resumes"
REPLICATE_OF = "microseg.replicate_of"

# What MLflow's three final statuses mean for a trial; the tag says which state it really is.
STATUS = {
    "completed": "FINISHED",
    "pruned": "KILLED",
    "raced_out": "KILLED",
    "interrupted": "KILLED",
    "out_of_memory": "FAILED",
    "diverged": "FAILED",
    "collapsed": "FAILED",
    "failed": "FAILED",
    "refused": "FAILED",  # of a trial in flight, by the constraints of a study that was forced to go on
}


@dataclass(frozen=True)
class StudyRun:
    """The parent run of a study, and where it lives."""

    run_id: str
    experiment_id: str
    name: str


class TrialRun(Strict):
    """All a worker needs to write a trial's runs, from any process or machine.

    ``name`` is the run's, the prefix of its folds' and that of the trial's folder: ``trial-007``, or
    ``trial-007-seed-2`` for a replicate.
    """

    tracking_uri: str
    experiment_id: str
    study: str
    number: int
    name: str
    run_id: str


def trial_name(number: int) -> str:
    """Return a trial's readable name, such as ``trial-007``."""
    return f"trial-{number:03d}"


def fold_name(trial: str, fold: int) -> str:
    """Return a fold's readable name, such as ``trial-007/fold-2`` (folds count from 1)."""
    return f"{trial}/fold-{fold + 1}"


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

    Raises
    ------
    MicrosegError
        If the server does not let this user write there.
    """
    given = os.environ.pop("MLFLOW_RUN_ID", None)
    with allowed("the experiment of this study"):
        return _opened(client, name, given, former)


def _opened(client: MlflowClient, name: str, given: str | None, former: str | None) -> StudyRun:
    if former:
        if given and given != former:
            client.set_tag(given, RESUMES, former)
            _terminate(client, client.get_run(given), "FINISHED")
        client.update_run(former, status="RUNNING")
        return StudyRun(former, str(client.get_run(former).info.experiment_id), name)
    experiment_id = experiment_for(client, given)
    key = f"{name}/{uuid.uuid4().hex}"  # another study may have the name
    tags = {LEVEL: "study", KEY: key, STUDY: name, STATE: "running"}
    if not given:
        run = _create(client, experiment_id, name, tags)
        return StudyRun(str(run.info.run_id), experiment_id, name)
    client.update_run(given, name=name)
    set_tags(client, given, tags)
    return StudyRun(given, experiment_id, name)


@contextmanager
def study_run(
    client: MlflowClient, name: str, former: str | None = None, reason: str = ""
) -> Iterator[StudyRun]:
    """Open the study's run in MLflow; whatever happens, it ends with what became of the study.

    ``former`` is as for `open_study`; ``reason`` is kept with a study that ends well.
    """
    run = open_study(client, name, former)
    try:
        yield run
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        interrupt(client, run)
        end(client, run.run_id, state, str(error)[:500])
        raise
    end(client, run.run_id, "completed", reason)


def open_trial(
    client: MlflowClient,
    study: StudyRun,
    name: str,
    parameters: Mapping[str, str],
    number: int,
    replicate_of: int | None = None,
) -> TrialRun:
    """Get or create the run of a trial; its parameters are written once.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    study : StudyRun
        The parent.
    name : str
        The trial's name, one of its kind within the study.
    parameters : mapping of str to str
        The configuration by path, see `microseg.tracking.recorder.flatten`.
    number : int
        The trial's number in the search.
    replicate_of : int, optional
        The number of the trial that this one repeats with another seed; its level is then
        ``replicate``, so that it is no row among the trials.
    """
    key = f"{study.name}/{study.run_id[:8]}/{name}"
    run = find(client, study.experiment_id, key)
    if run is None:
        tags = {LEVEL: "trial", KEY: key, STUDY: study.name, PARENT: study.run_id, STATE: "running"}
        if replicate_of is not None:
            tags |= {LEVEL: "replicate", REPLICATE_OF: trial_name(replicate_of)}
        run = _create(client, study.experiment_id, name, tags)
    else:
        reopen(client, run)
    missing = parameters.keys() - run.data.params.keys()  # MLflow refuses to change one
    client.log_batch(run.info.run_id, params=[Param(path, parameters[path]) for path in sorted(missing)])
    return TrialRun(
        tracking_uri=client.tracking_uri,
        experiment_id=study.experiment_id,
        study=study.name,
        number=number,
        name=name,
        run_id=run.info.run_id,
    )


def fold_runs(client: MlflowClient, trial: TrialRun) -> dict[str, Run]:
    """Return the runs of a trial's folds by key: one search instead of one per fold."""
    return once(client, children(client, trial.experiment_id, trial.run_id))


def open_fold(
    client: MlflowClient, trial: TrialRun, fold: int, former: Mapping[str, Run] | None = None
) -> Run:
    """Get the run of a fold as it was left, or create it; ``former`` is what `fold_runs` has returned."""
    name = fold_name(trial.name, fold)
    key = f"{trial.run_id}/{name}"
    former = fold_runs(client, trial) if former is None else former
    if key in former:
        return former[key]
    tags = {LEVEL: "fold", KEY: key, STUDY: trial.study, PARENT: trial.run_id, STATE: "running"}
    return _create(client, trial.experiment_id, name, tags)


def reopen(client: MlflowClient, run: Run) -> None:
    """Mark a run that was ended too early as running again."""
    if run.data.tags.get(STATE) != "running":
        client.set_tag(run.info.run_id, STATE, "running")
    if run.info.status != "RUNNING":
        client.update_run(run.info.run_id, status="RUNNING")


def end(client: MlflowClient, run_id: str, state: str, reason: str = "") -> None:
    """End a run with its state (``completed``, ``pruned``, ``failed``, ...) and why it ended.

    A run that has ended in this state already keeps its reason and its end time.
    """
    run = client.get_run(run_id)
    if run.data.tags.get(STATE) == state and run.info.status == STATUS[state]:
        return
    set_tags(client, run_id, {STATE: state, REASON: reason or state})
    _terminate(client, run, STATUS[state])


def _terminate(client: MlflowClient, run: Run, status: str) -> None:
    """End a run now, but not before it began: another machine may have begun it, or the clock been set."""
    client.set_terminated(run.info.run_id, status, max(clock.milliseconds(), run.info.start_time))


def end_children(client: MlflowClient, experiment_id: str, parent: str, state: str, reason: str) -> None:
    """End the runs below a trial that a stopped or dead worker, or an interrupted study, left unfinished."""
    for run in once(client, children(client, experiment_id, parent)).values():
        if unfinished(run):
            end(client, run.info.run_id, state, reason)


def interrupt(client: MlflowClient, study: StudyRun) -> None:
    """End the trials of a study that stopped while they ran, and their folds; resuming reopens them."""
    running = f"tags.`{PARENT}` = '{study.run_id}' and attributes.status = 'RUNNING'"
    for trial in list(search(client, study.experiment_id, running)):
        end_children(client, study.experiment_id, trial.info.run_id, "interrupted", "the study stopped")
        end(client, trial.info.run_id, "interrupted", "the study stopped")


def children(client: MlflowClient, experiment_id: str, parent: str) -> Iterator[Run]:
    """Yield the runs directly below a run."""
    yield from search(client, experiment_id, f"tags.`{PARENT}` = '{parent}'")


def study_folds(client: MlflowClient, study: Run) -> Iterator[Run]:
    """Yield the runs of all folds of the studies of this name: one search, not one for each trial."""
    condition = f"tags.`{LEVEL}` = 'fold' and tags.`{STUDY}` = '{study.data.tags[STUDY]}'"
    yield from search(client, study.info.experiment_id, condition)


def unfinished(run: Run) -> bool:
    """Say whether a run has not ended, or only because its study stopped."""
    return run.info.status == "RUNNING" or run.data.tags.get(STATE) == "interrupted"


def find(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Return the run with this key, if there is one."""
    return once(client, search(client, experiment_id, f"tags.`{KEY}` = '{key}'")).get(key)


def _create(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> Run:
    """Create a run that is not there.

    MLflow's client asks a server that does not answer again, also when the server had created the run
    before it died: then there are two.
    """
    run = client.create_run(experiment_id, start_time=clock.milliseconds(), tags=dict(tags), run_name=name)
    if not client.tracking_uri.startswith("http"):
        return run
    return find(client, experiment_id, tags[KEY]) or run


def once(client: MlflowClient, runs: Iterable[Run]) -> dict[str, Run]:
    """Return runs by key; of two with the same key one stays, and the other is deleted.

    One that was written to stays: a server that stood still makes the run of a request that was given up
    after it has made that of the second one, which is in use. Of others the older one does.
    """
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: not (run.data.metrics or run.data.params)):
        key = run.data.tags.get(KEY, run.info.run_id)  # somebody may have put a run of their own here
        if found.setdefault(key, run) is not run:
            client.delete_run(run.info.run_id)
    return found


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
    """Set several tags of a run at once."""
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
