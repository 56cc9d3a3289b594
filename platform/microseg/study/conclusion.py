"""The end of a study: rank the trials, package the best, write what a reader takes along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from mlflow import MlflowClient

from microseg import report
from microseg.errors import MicrosegError
from microseg.search.importance import importances
from microseg.search.records import TrialRecord
from microseg.search.state import fetch, forget, patiently, study_store
from microseg.search.trials import Trials
from microseg.study.candidate import note, package
from microseg.study.examples import log_examples
from microseg.study.keeping import GOES_ON, restore, tidy
from microseg.study.request import Prepared, folder, write_text
from microseg.study.watching import share
from microseg.tracking import store, tree
from microseg.tracking.recorder import log_metrics
from microseg.tracking.tree import StudyRun


@dataclass(frozen=True)
class Outcome:
    """What a finished study leaves; ``unfinished`` says why it has not all its trials.

    ``kept`` says what it keeps of networks and pictures, and how large that is.
    """

    view: report.StudyView
    best: TrialRecord
    best_yaml: Path
    model: str
    version: int
    ui: str
    link: str
    kept: str
    unfinished: str | None


def conclude(
    client: MlflowClient, run: StudyRun, prepared: Prepared, trials: Trials, unfinished: str | None
) -> Outcome:
    """Rank the trials, package the best one's folds as the candidate, and write what a reader takes along.

    Raises
    ------
    MicrosegError
        If no trial has all folds.
    """
    config, workdir = prepared.request.config, folder(run.name)
    best = _best(run, trials, unfinished)
    tree.once(client, tree.children(client, run.experiment_id, run.run_id))
    view = report.view(client, client.get_run(run.run_id))
    report.mark(client, view)
    best_yaml = _write_tables(client, run, view, best)
    state = study_store(run.name, run.run_id)
    if state:
        patiently(lambda: fetch(f"{state}/{best.name}", workdir / best.name))
    restore(client, run, best, prepared.folds, workdir / best.name)
    log_examples(client, run, prepared, best)
    report.log_page(client, view, importances(*view.observations))
    model = prepared.request.model or prepared.manifest.name
    version = package(client, run, prepared, best, model)
    link = share(client, run, config, view.varied, view.shared)
    trials_page = f"[Its trials, ranked]({link[link.index('#') :]})"
    text = f"{note(view, model, version, config.candidate)} {trials_page}"
    client.set_tag(run.run_id, "mlflow.note.content", text)
    log_metrics(client, run.run_id, {f"best/{view.metric.removeprefix('val/')}_mean": best.score or 0.0})
    kept = tidy(client, view, config, workdir)
    if state:
        forget(state, {row.name for row in (*view.rows, *view.replicates) if row.state in GOES_ON})
    return Outcome(view, best, best_yaml, model, version, store.ui_command(client), link, kept, unfinished)


def _write_tables(client: MlflowClient, run: StudyRun, view: report.StudyView, best: TrialRecord) -> Path:
    """Write the leaderboard, and the best configuration, here too; return where that is."""
    text = yaml.safe_dump(best.config.model_dump(mode="json"), sort_keys=False)
    best_yaml = folder(run.name) / "best.yaml"
    write_text(best_yaml, text)
    client.log_text(run.run_id, text, "best.yaml")
    client.log_text(run.run_id, report.frame(view).to_csv(index=False), "leaderboard.csv")
    if view.replicates:
        client.log_text(run.run_id, report.repeats_frame(view).to_csv(index=False), "repeats.csv")
    return best_yaml


def _best(run: StudyRun, trials: Trials, unfinished: str | None) -> TrialRecord:
    ranked = trials.ranked()
    if ranked and ranked[0].state == "completed":
        return ranked[0]
    reasons = "; ".join(sorted({f"{record.state}: {record.reason}" for record in ranked}))
    text = f"no trial of study '{run.name}' has all folds, so there is no best one ({reasons or unfinished})"
    if unfinished:
        text += f"; go on with more: microseg search --study {run.name} --resume --hours H"
    raise MicrosegError(text)
