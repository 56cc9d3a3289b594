"""The candidate of a study: the fold ensemble of its best trial, as a version of a registered model."""

from __future__ import annotations

from mlflow import MlflowClient

from microseg import report, runtime
from microseg.config import Precision
from microseg.search.records import TrialRecord
from microseg.serving.card import ModelCard
from microseg.serving.packaging import log_candidate
from microseg.study.objects import search_objects
from microseg.study.request import Prepared, folder
from microseg.tracking.recorder import log_metrics
from microseg.tracking.tree import StudyRun
from microseg.training.results import MODEL, fold_folder


def package(client: MlflowClient, run: StudyRun, prepared: Prepared, best: TrialRecord, model: str) -> int:
    """Register the fold ensemble of the best trial as a version with the alias candidate.

    Where the masks tell objects apart, the card says how the ensemble does, and the study's run has the AP
    at IoU 0.5 that this reached out of fold: a selection score, the parameters were chosen by it.
    """
    manifest, config = prepared.manifest, best.config
    workdir = folder(run.name) / best.name
    members = [fold_folder(workdir, fold) / MODEL for fold in prepared.folds]
    instances, ap50 = search_objects(prepared, config, members)
    if instances is not None:
        log_metrics(client, run.run_id, {"best/ap50": ap50})
    card = ModelCard(
        name=model,
        study=run.name,
        trial=best.name,
        config=config,
        channels=manifest.channels,
        classes=manifest.classes,
        axes=manifest.axes,
        pixel_size_um=manifest.pixel_size_um,
        precision=_precision(config.precision),
        data_digest=manifest.digest,
        scores={prepared.request.config.metric: best.score or 0.0},
        instances=instances,
    )
    return log_candidate(card, members, run.run_id).version


def note(view: report.StudyView, model: str, version: int) -> str:
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
