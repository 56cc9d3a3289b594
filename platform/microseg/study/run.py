"""Run a study: check, divide, search, repeat, conclude."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import yaml
from mlflow import MlflowClient
from rich.console import Console

from microseg import folds as folding
from microseg import registry
from microseg.checks import check_data, check_space
from microseg.config import TrialConfig
from microseg.data.audit import audit
from microseg.data.open import open_dataset
from microseg.errors import MicrosegError
from microseg.search import database
from microseg.search.job import Job
from microseg.search.resources import Share
from microseg.search.runner import run_trials
from microseg.search.samplers import check_sampler
from microseg.search.scheduler import rungs
from microseg.search.session import ready
from microseg.search.spending import Spending
from microseg.search.state import study_store
from microseg.search.trials import Trials
from microseg.space import Space
from microseg.storage import cache
from microseg.study import auditing, provenance
from microseg.study.candidate import check_candidate
from microseg.study.changes import refuse_changes, refuse_data
from microseg.study.conclusion import Outcome, conclude
from microseg.study.keeping import bound
from microseg.study.needs import needs
from microseg.study.provenance import Provenance
from microseg.study.queue import Point, add_replicates, again_name, cost, first_points, kept_points
from microseg.study.request import (
    Prepared,
    Request,
    StudyState,
    alone,
    folder,
    optuna_file,
    read_state,
    splits_file,
    state_file,
    write_text,
)
from microseg.study.watching import watch
from microseg.tracking import environment, store, tree
from microseg.tracking.tree import StudyRun, study_run


def prepare(request: Request) -> Prepared:
    """Check the space and the data set completely, and divide the data.

    Raises
    ------
    MicrosegError
        For the first thing that would go wrong later.
    """
    source = f"study {request.name}"
    space = check_space(request.config, source)
    check_sampler(request.config, space, source)
    check_candidate(request.config, space, source)
    return divide(request, space)


def divide(request: Request, space: Space) -> Prepared:
    """Check the data set of a request, and divide it as every study of these images does.

    Raises
    ------
    MicrosegError
        If the data set cannot be used or divided.
    """
    manifest = open_dataset(request.data, request.options, cache())
    check_data(space, manifest.channels, len(manifest.classes), f"study {request.name}")
    fraction, seed = request.config.holdout, request.config.seed
    development, _ = folding.split_holdout(manifest, fraction, seed, splits_file(manifest))
    if request.config.folds == "given":
        folds = folding.given_fold(development)
    else:
        folds = folding.make_folds(development, request.config.folds, seed)
    findings = audit(manifest, cache(), folds, max(space.part("tile"), default=None))
    refused = [finding.line for finding in findings if finding.level == "refuse"]
    if refused:
        raise MicrosegError(f"data audit: {refused[0]}")
    return Prepared(request, space, manifest, development, folds, findings)


def search(request: Request, console: Console) -> Outcome:
    """Run a new study.

    Raises
    ------
    MicrosegError
        If the study exists already, or the request does not pass its checks.
    """
    if state_file(request.name).exists():
        raise MicrosegError(
            f"study '{request.name}' exists in {folder(request.name)}; add --resume to go on, "
            "or choose another --study"
        )
    prepared = prepare(request)
    points = first_points(prepared, console)
    auditing.tell(prepared.findings, console)
    database.check()
    client = store.connect()
    registry.check_model(client, request.model or prepared.manifest.name)
    with _share(prepared, client) as share, alone(request.name), study_run(client, request.name) as run:
        _remember(run, prepared, points)
        job = job_of(prepared, describe(client, run, prepared), run.run_id)
        return _run((client, run), prepared, job, points, share.gpus, console)


def resume(request: Request, force: bool, console: Console) -> Outcome:
    """Go on with a study where it stopped: finished folds are not trained again.

    Parameters
    ----------
    request : Request
        The study's own, from `read_state`, with what may change: trials, budget, replicates.
    force : bool
        Go on although the data set, the space or the code has changed.
    console : Console
        Where progress is shown.

    Raises
    ------
    MicrosegError
        If there is no such study, or what it began with has changed.
    """
    state = read_state(request.name)
    with alone(request.name):
        refuse_changes(state, request, force)
        prepared = prepare(request)
        refuse_data(state, prepared.manifest.digest, force)
        points = kept_points(state, prepared, console)
        database.check()
        client, former = store.connect(), state.run_id
        registry.check_model(client, request.model or prepared.manifest.name)
        with _share(prepared, client) as share, study_run(client, request.name, former) as run:
            _remember(run, prepared, points)
            if force or "microseg.metric" not in client.get_run(run.run_id).data.tags:
                # also where the study was killed before it was described
                origin: Provenance | None = describe(client, run, prepared)
            else:
                origin = provenance.read(client, run.run_id)
            job = job_of(prepared, origin, run.run_id)
            return _run((client, run), prepared, job, points, share.gpus, console)


def _remember(run: StudyRun, prepared: Prepared, points: Sequence[Point]) -> None:
    """Write what resuming needs, as soon as the run exists."""
    state = StudyState(
        request=prepared.request,
        digest=prepared.manifest.digest,
        code=environment.code(),
        run_id=run.run_id,
        points=tuple(points),
    )
    write_text(state_file(prepared.request.name), state.model_dump_json(indent=1))


def describe(client: MlflowClient, run: StudyRun, prepared: Prepared) -> Provenance:
    """Write to the study's run all that a reader needs to judge and repeat it."""
    config = prepared.request.config
    origin = provenance.record(client, run, prepared)
    client.log_text(run.run_id, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "space.yaml")
    auditing.record(client, run.run_id, prepared)
    tags = {
        "microseg.mode": config.mode,
        "microseg.folds": str(len(prepared.folds)),
        "microseg.trials": str(config.trials),
        "microseg.metric": config.metric,
    }
    against = {"microseg.against": config.against} if config.against else {}
    tree.set_tags(client, run.run_id, against | tags)
    return origin


@contextmanager
def _share(prepared: Prepared, client: MlflowClient) -> Iterator[Share]:
    """Hold a Ray whose machines see what the study needs; yield what its first trial asks for."""
    with needs(prepared, client.tracking_uri) as found, ready(prepared.request.config, found) as share:
        yield share


def job_of(prepared: Prepared, origin: Provenance | None = None, run_id: str = "") -> Job:
    """Return what all trials of a study have in common; its run tells its state from that of others."""
    config = prepared.request.config
    epochs = max(prepared.space.part("epochs"), default=TrialConfig.model_fields["epochs"].default)
    return Job(
        manifest=prepared.development,
        folds=tuple(prepared.folds),
        metric=config.metric,
        mode=config.mode,
        epochs=epochs,
        rungs=rungs(config, epochs),
        workdir=folder(prepared.request.name),
        cache=cache(),
        against=config.against,
        curves=config.curves,
        keep=config.keep,
        origin=origin.model_dump(mode="json") if origin else {},
        data=prepared.request.data,
        options=prepared.request.options,
        store=study_store(prepared.request.name, run_id),
    )


def _run(
    runs: tuple[MlflowClient, StudyRun],
    prepared: Prepared,
    job: Job,
    points: Sequence[Point],
    gpus: float,
    console: Console,
) -> Outcome:
    name, config = prepared.request.name, prepared.request.config
    trials = Trials(optuna_file(name), name, prepared.space, config)
    trials.enqueue(points)
    console.print(cost(prepared, job, trials, gpus), style="dim", highlight=False, soft_wrap=True)
    console.print(bound(config, len(job.folds)), style="dim", highlight=False, soft_wrap=True)
    console.print(watch(*runs, config, prepared.space), style="dim", highlight=False, soft_wrap=True)
    seen = Spending(trials, config.budget), console
    run_trials(config, trials, job, runs, seen)
    if config.replicates:
        again = Trials(optuna_file(name), again_name(name), prepared.space, config)
        add_replicates(trials, again, config)
        total = again.count() + again.waiting()
        if again.waiting():
            console.print("repeats of the best trials, with other seeds", style="dim", highlight=False)
        plain = config.model_copy(update={"trials": total, "asha": None, "race": None})
        run_trials(plain, again, job, runs, seen)
    return conclude(*runs, prepared, trials, seen[0].exhausted())
