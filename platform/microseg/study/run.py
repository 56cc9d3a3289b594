"""Run a study: check, divide, search, rank, register."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from mlflow import MlflowClient
from rich.console import Console

from microseg import folds as folding
from microseg import report
from microseg.checks import check_data, check_space
from microseg.config import TrialConfig
from microseg.data.audit import audit
from microseg.data.open import open_dataset
from microseg.errors import MicrosegError
from microseg.search.job import Job
from microseg.search.runner import run_trials
from microseg.search.searcher import StudySearcher
from microseg.search.trials import TrialRecord, Trials
from microseg.space import Space
from microseg.storage import cache
from microseg.study.candidate import note, package
from microseg.study.request import (
    Prepared,
    Request,
    StudyState,
    folder,
    read_state,
    splits_file,
    state_file,
    write_text,
)
from microseg.tracking import provenance, store, tree, views
from microseg.tracking.recorder import log_metrics
from microseg.tracking.tree import StudyRun


@dataclass(frozen=True)
class Outcome:
    """What a finished study leaves."""

    view: report.StudyView
    best: TrialRecord
    best_yaml: Path
    model: str
    version: int
    ui: str
    link: str


def prepare(request: Request) -> Prepared:
    """Check the space and the data set completely, and divide the data.

    Raises
    ------
    MicrosegError
        For the first thing that would go wrong later.
    """
    return divide(request, check_space(request.config, f"study {request.name}"))


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
    refused = [finding.text for finding in findings if finding.level == "refuse"]
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
    for finding in prepared.findings:
        if finding.level == "warn":
            console.print(f"audit: {finding.text}", soft_wrap=True, highlight=False, markup=False)
    client = store.connect()
    with study_run(client, request.name) as run:
        describe(client, run, prepared)
        state = StudyState(request=request, digest=prepared.manifest.digest, run_id=run.run_id)
        write_text(state_file(request.name), state.model_dump_json(indent=1))
        return _run(client, run, prepared, console)


def resume(name: str, trials: int, console: Console) -> Outcome:
    """Go on with a study where it stopped: finished folds are not trained again.

    Parameters
    ----------
    name : str
        The study.
    trials : int
        The new total of trials; 0 leaves it as it was.
    console : Console
        Where progress is shown.

    Raises
    ------
    MicrosegError
        If there is no such study, or its data set has changed since.
    """
    state = read_state(name)
    config = state.request.config
    total = config.model_copy(update={"trials": trials or config.trials})
    prepared = prepare(state.request.model_copy(update={"config": total}))
    if prepared.manifest.digest != state.digest:
        raise MicrosegError(
            f"the data set of study '{name}' has changed since it began (digest {state.digest[:12]}, now "
            f"{prepared.manifest.digest[:12]}); restore the files, or start a new --study"
        )
    client = store.connect()
    with study_run(client, name, state.run_id) as run:
        return _run(client, run, prepared, console)


@contextmanager
def study_run(client: MlflowClient, name: str, former: str | None = None) -> Iterator[StudyRun]:
    """Open the study's run in MLflow; whatever happens, it ends with what became of the study."""
    run = tree.open_study(client, name, former)
    try:
        yield run
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        tree.interrupt(client, run)
        tree.end(client, run.run_id, state, str(error)[:500])
        raise
    tree.end(client, run.run_id, "completed")


def describe(client: MlflowClient, run: StudyRun, prepared: Prepared) -> None:
    """Write to the study's run all that a reader needs to judge and repeat it."""
    request, config = prepared.request, prepared.request.config
    tags = {
        "microseg.metric": config.metric,
        "microseg.mode": config.mode,
        "microseg.folds": str(len(prepared.folds)),
        "microseg.trials": str(config.trials),
    }
    tree.set_tags(client, run.run_id, tags)
    provenance.record(client, run.run_id, prepared.manifest, provenance.environment(), config.seed)
    client.log_text(run.run_id, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), "space.yaml")
    client.log_text(run.run_id, request.model_dump_json(indent=1), "request.json")
    client.log_text(run.run_id, prepared.manifest.model_dump_json(indent=1), "manifest.json")
    client.log_dict(run.run_id, {"folds": [fold.model_dump() for fold in prepared.folds]}, "folds.json")
    client.log_dict(
        run.run_id, {"findings": [finding.model_dump() for finding in prepared.findings]}, "audit.json"
    )


def _run(client: MlflowClient, run: StudyRun, prepared: Prepared, console: Console) -> Outcome:
    request = prepared.request
    trials = Trials(
        folder(request.name) / "optuna.db",
        request.name,
        prepared.space,
        request.config.seed,
        request.config.mode,
    )
    job = Job(
        manifest=prepared.development,
        folds=tuple(prepared.folds),
        metric=request.config.metric,
        mode=request.config.mode,
        epochs=max(prepared.space.part("epochs"), default=TrialConfig.model_fields["epochs"].default),
        workdir=folder(request.name),
        cache=cache(),
        threads=1,
    )
    searcher = StudySearcher(trials, request.config.trials, client, run)
    run_trials(request.config, searcher, job, console)
    return _conclude(client, run, prepared, trials)


def _conclude(client: MlflowClient, run: StudyRun, prepared: Prepared, trials: Trials) -> Outcome:
    """Rank the trials, package the best one's folds as the candidate, and write what a reader takes along."""
    ranked = trials.ranked()
    if ranked[0].state != "completed":
        reasons = "; ".join(sorted({f"{record.state}: {record.reason}" for record in ranked}))
        raise MicrosegError(
            f"no trial of study '{run.name}' has all folds, so there is no best one ({reasons})"
        )
    best = ranked[0]
    for rank, record in enumerate([record for record in ranked if record.state == "completed"], 1):
        client.set_tag(record.run_id, "microseg.rank", str(rank))
    view = report.view(client, client.get_run(run.run_id))
    text = yaml.safe_dump(best.config.model_dump(mode="json"), sort_keys=False)
    best_yaml = folder(run.name) / "best.yaml"
    write_text(best_yaml, text)
    client.log_text(run.run_id, text, "best.yaml")
    client.log_text(run.run_id, report.frame(view).to_csv(index=False), "leaderboard.csv")
    client.log_text(run.run_id, report.page(client, view), "report.html")
    model = prepared.request.model or prepared.manifest.name
    version = package(client, run, prepared, best, model)
    client.set_tag(run.run_id, "mlflow.note.content", note(view, model, version))
    log_metrics(client, run.run_id, {f"best/{view.metric.removeprefix('val/')}_mean": best.score or 0.0})
    link = views.share_view(client, run, f"cv/{view.metric.removeprefix('val/')}", view.varied)
    return Outcome(view, best, best_yaml, model, version, store.ui_command(client), link)
