"""The candidate of a study: what its best trial left, as a version of a registered model."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient

from microseg import report, runtime
from microseg.config import Precision, SearchConfig
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.search.records import TrialRecord
from microseg.serving.card import MEANING, Kind, ModelCard
from microseg.serving.packaging import log_candidate
from microseg.space import Space
from microseg.storage import cache
from microseg.study.measurement import measure_appearance, measure_tiling
from microseg.study.objects import search_objects
from microseg.study.request import Prepared, folder
from microseg.tracking.recorder import log_metrics
from microseg.tracking.tree import StudyRun
from microseg.training import FoldResult, TrainingData, retrain
from microseg.training.results import MODEL, RESULT, fold_folder


def package(client: MlflowClient, run: StudyRun, prepared: Prepared, best: TrialRecord, model: str) -> int:
    """Register what the study asks for of its best trial as a version with the alias candidate.

    Where the masks tell objects apart, the card says how, and the study's run has the AP at IoU 0.5 that the
    networks of the folds reached out of fold: a selection score, the parameters were chosen by it.
    """
    manifest, config = prepared.manifest, best.config
    workdir = folder(run.name) / best.name
    members = [fold_folder(workdir, fold) / MODEL for fold in prepared.folds]
    instances, ap50 = search_objects(prepared, config, members)
    if instances is not None:
        log_metrics(client, run.run_id, {"best/ap50": ap50})
    chosen = _chosen(prepared, best, workdir, members)
    card = ModelCard(
        name=model,
        kind=prepared.request.config.candidate,
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
        tiling=measure_tiling(prepared, config, chosen),
        appearance=measure_appearance(prepared.development),
    )
    return log_candidate(card, chosen, run.run_id).version


def check_candidate(config: SearchConfig, space: Space, source: str) -> None:
    """Refuse before the first epoch what could not be trained again without validation.

    Raises
    ------
    MicrosegError
        If a schedule waits for a validation score that a network trained on all images does not have.
    """
    schedules = {schedule["name"] for schedule in space.part("schedule")}
    if config.candidate == "retrained" and "plateau" in schedules:
        raise MicrosegError(
            f"{source}: the schedule 'plateau' waits for a validation score, and candidate: retrained has "
            "none; take another schedule, or candidate: ensemble"
        )


def _chosen(prepared: Prepared, best: TrialRecord, workdir: Path, members: Sequence[Path]) -> Sequence[Path]:
    """Return the networks that the candidate consists of."""
    search = prepared.request.config
    if search.candidate == "best_fold":
        choose = max if search.mode == "max" else min
        return [members[best.scores.index(choose(best.scores))]]
    if search.candidate == "retrained":
        return [_retrained(prepared, best, workdir)]
    return members


def _retrained(prepared: Prepared, best: TrialRecord, workdir: Path) -> Path:
    data = TrainingData(prepared.development, cache())
    texts = [(fold_folder(workdir, fold) / RESULT).read_bytes() for fold in prepared.folds]
    epochs = round(statistics.median(FoldResult.model_validate_json(text).best_epoch for text in texts))
    names = tuple(sorted(item.name for item in data.manifest.items))
    everything = Fold(index=len(texts), train=names, valid=())
    return retrain(best.config, data, everything, epochs, workdir)


def note(view: report.StudyView, model: str, version: int, kind: Kind) -> str:
    """Say what came of a study, as the description that MLflow shows with its run."""
    best, compared = view.rows[0], report.comparison(view)
    compared += " " if compared else ""
    return (
        f"Best: **{best.name}**, {view.metric} {report.score(best)} over {view.folds} folds. "
        f"{compared}It is version {version} of model *{model}*, alias *candidate*: "
        f"{MEANING[kind]}. These are selection scores; only the untouched hold-out is unbiased. See "
        "`report.html` among the artifacts."
    )


def _precision(asked: Precision) -> Precision:
    """Return the precision that a stated or automatic choice means on this machine."""
    policy = runtime.precision_policy(asked)
    known: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    return next(name for name in known if runtime.POLICIES[name] == policy)
