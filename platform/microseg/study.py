"""One study from data set to candidate: composes the search, the report and the model that is served."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from rich.console import Console

from microseg import folds as folding
from microseg import report, runtime
from microseg.checks import check_space
from microseg.config import Precision, SearchConfig, Strict, did_you_mean, parse
from microseg.data.audit import Finding, audit
from microseg.data.files import replacing
from microseg.data.manifest import Manifest
from microseg.data.open import DataOptions, open_dataset
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.search.job import Job
from microseg.search.runner import run_trials
from microseg.search.searcher import StudySearcher
from microseg.search.trials import TrialRecord, Trials
from microseg.serving.card import ModelCard
from microseg.serving.packaging import log_candidate
from microseg.space import Space
from microseg.storage import cache, home
from microseg.tracking import provenance, store, tree, views
from microseg.tracking.recorder import log_metrics
from microseg.tracking.tree import StudyRun


class Request(Strict):
    """What a study was asked for; kept with it, so that it can be resumed by its name alone."""

    name: str
    data: Path
    options: DataOptions = DataOptions()
    config: SearchConfig
    model: str = ""
    splits: Path | None = None


class StudyState(Strict):
    """What resuming a study needs: the request, the data it saw and its run in MLflow."""

    request: Request
    digest: str
    run_id: str


@dataclass(frozen=True)
class Prepared:
    """A checked request: nothing has been written yet but caches."""

    request: Request
    space: Space
    manifest: Manifest
    development: Manifest
    folds: Sequence[Fold]
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Outcome:
    """What a finished study leaves."""

    view: report.StudyView
    best: TrialRecord
    best_yaml: Path
    model: str
    version: int
    link: str


def folder(name: str) -> Path:
    """Return a study's folder.

    Raises
    ------
    MicrosegError
        If the name cannot be a folder's.
    """
    if not name or name.startswith(".") or any(letter in name for letter in "/\\'`\"\n"):
        raise MicrosegError(f"study name {name!r}: use letters, digits, '-' and '_', such as nuclei-2026")
    return home() / "studies" / name


def splits_file(manifest: Manifest) -> Path:
    """Return the file that keeps the hold-out of a data set, which all its studies share."""
    place = hashlib.sha256(manifest.source.encode()).hexdigest()[:8]
    return home() / "splits" / f"{manifest.name}-{place}.yaml"


def prepare(request: Request) -> Prepared:
    """Check the space and the data set completely, and divide the data.

    Raises
    ------
    MicrosegError
        For the first thing that would go wrong later.
    """
    space = check_space(request.config, f"study {request.name}")
    manifest = open_dataset(request.data, request.options, cache())
    splits = request.splits or splits_file(manifest)
    development, _ = folding.split_holdout(manifest, request.config.holdout, request.config.seed, splits)
    if request.config.folds == "given":
        folds = folding.given_fold(development)
    else:
        folds = folding.make_folds(development, request.config.folds, request.config.seed)
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
    run = tree.open_study(client, request.name)
    state = StudyState(request=request, digest=prepared.manifest.digest, run_id=run.run_id)
    _describe(client, run, prepared)
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
    run = tree.open_study(client, name, former=state.run_id)
    return _run(client, run, prepared, console)


def state_file(name: str) -> Path:
    """Return the file that says what a study was asked for."""
    return folder(name) / "study.json"


def read_state(name: str) -> StudyState:
    """Read what a study was asked for.

    Raises
    ------
    MicrosegError
        If there is no such study here.
    """
    file = state_file(name)
    if not file.is_file():
        here = [path.parent.name for path in file.parent.parent.glob("*/study.json")]
        hint = did_you_mean(name, here) if here else "there are none yet"
        raise MicrosegError(f"there is no study '{name}' in {home()}; {hint}")
    return StudyState.model_validate_json(file.read_text(encoding="utf-8"))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def _describe(client: MlflowClient, run: StudyRun, prepared: Prepared) -> None:
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
        workdir=folder(request.name),
        cache=cache(),
        threads=1,
    )
    try:
        searcher = StudySearcher(trials, request.config.trials, client, run)
        run_trials(request.config, prepared.space, searcher, job, console)
        outcome = _conclude(client, run, prepared, trials)
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        tree.interrupt(client, run)
        tree.end(client, run.run_id, state, str(error)[:500] or state)
        raise
    tree.end(client, run.run_id, "completed", f"{trials.count()} trials")
    return outcome


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
    version = _package(run, prepared, best, model)
    client.set_tag(run.run_id, "mlflow.note.content", _note(view, model, version))
    log_metrics(client, run.run_id, {f"best/{view.metric.removeprefix('val/')}_mean": best.score or 0.0})
    link = views.share_view(client, run, f"cv/{view.metric.removeprefix('val/')}", view.varied)
    return Outcome(view, best, best_yaml, model, version, link)


def _package(run: StudyRun, prepared: Prepared, best: TrialRecord, model: str) -> int:
    """Register the fold ensemble of the best trial as a version with the alias candidate."""
    manifest, config = prepared.manifest, best.config
    card = ModelCard(
        name=model,
        study=run.name,
        trial=tree.trial_name(best.number),
        config=config,
        channels=manifest.channels,
        classes=manifest.classes,
        axes=manifest.axes,
        pixel_size_um=manifest.pixel_size_um,
        precision=_precision(config.precision),
        data_digest=manifest.digest,
        scores={prepared.request.config.metric: best.score or 0.0},
    )
    workdir = folder(run.name) / card.trial
    members = [workdir / f"fold-{fold.index}" / "model.keras" for fold in prepared.folds]
    return log_candidate(card, members, run.run_id).version


def _note(view: report.StudyView, model: str, version: int) -> str:
    """Say what came of a study, as the description that MLflow shows with its run."""
    best = view.rows[0]
    return (
        f"Best: **{best.name}**, {view.metric} {report.score(best)} over {view.folds} folds. "
        f"{report.comparison(view)} It is version {version} of model *{model}*, alias *candidate*. These are "
        "selection scores; only the untouched hold-out is unbiased. See `report.html` among the artifacts."
    )


def _precision(asked: Precision) -> Precision:
    """Return the precision that a stated or automatic choice means on this machine."""
    policy = runtime.precision_policy(asked)
    known: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    return next(name for name in known if runtime.POLICIES[name] == policy)


def single(values: dict[str, Any], source: str) -> SearchConfig:
    """Return the search that trains all folds of one configuration.

    Raises
    ------
    MicrosegError
        If the values do not describe a search.
    """
    return parse(SearchConfig, {"space": values, "trials": 1, "asha": None}, source)
