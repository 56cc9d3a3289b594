"""Judge an imported network on the folds of a data set, and write what came out as a study does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient

from microseg import report
from microseg.components import bind
from microseg.data.pairs import load_pairs
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.importing.network import Network
from microseg.losses import LOSSES
from microseg.report.leaderboard import ORIGIN
from microseg.runtime import peak_memory_mib
from microseg.storage import cache
from microseg.study import Prepared, folder
from microseg.study.examples import draw_examples
from microseg.study.provenance import Provenance
from microseg.tracking import tree
from microseg.tracking.recorder import Recorder, flatten, summary
from microseg.tracking.tree import StudyRun
from microseg.training import FoldResult, Progress, Sample, TrainingData, predict_image
from microseg.training.measurement import measure
from microseg.training.network import weights_hash
from microseg.training.results import MODEL, fingerprint, fold_folder
from microseg.training.validation import evaluate_images, shown

OPTIMISTIC = "the network may have been trained on these very images, so its scores may be optimistic"


class Judged(NamedTuple):
    """What a network reached on a fold's validation images, and some of them to look at."""

    result: FoldResult
    samples: tuple[Sample, ...]


def judge(network: Network, prepared: Prepared, fold: Fold) -> Judged:
    """Evaluate a network on a fold's validation images, as a trained one is.

    Raises
    ------
    MicrosegError
        If it sees one class everywhere.
    """
    start = time.monotonic()
    model, config, manifest = network.model, network.config, prepared.development
    data = TrainingData(manifest, cache())
    pairs = load_pairs(fold.valid, manifest, data.cache, config.preprocess)
    evaluation = evaluate_images(model, pairs, config, bind(config.loss, LOSSES, "loss"))
    if evaluation.collapsed:
        raise MicrosegError(
            f"{config.model.params['file']}: it sees one class everywhere in fold {fold.index + 1}; give the "
            f"--preprocess it was trained with (now '{config.preprocess.name}'), or another "
            "--probability-threshold"
        )
    samples = tuple(
        Sample(pair.name, pair.whole, pair.mask, predict_image(model, pair.image, config))
        for pair in shown(pairs)
    )
    further = measure(model, pairs, config, data)
    result = FoldResult(
        fold=fold.index,
        state="completed",
        best_epoch=0,
        epochs=0,
        metrics=evaluation.metrics | further.metrics,
        per_image=evaluation.per_image,
        seconds=time.monotonic() - start,
        parameters=model.count_params(),
        peak_memory_mib=peak_memory_mib(),
        calibration=further.calibration,
        # Where a trained fold would keep it: the registered version holds the one network of all folds.
        model=fold_folder(folder(prepared.request.name) / tree.trial_name(0), fold) / MODEL,
        history=[],
        fingerprint=fingerprint(config, data, fold),
        weights=weights_hash(model),
    )
    return Judged(result, samples)


def record(
    client: MlflowClient, run: StudyRun, network: Network, origin: Provenance, judged: Sequence[Judged]
) -> dict[str, float]:
    """Write the runs of the trial and of its folds, and return their scores as `summary` names them.

    What is unknown of the training is no parameter.
    """
    config = network.config
    known = config.model_dump(mode="json", include={"model", "preprocess", "tile", "overlap", "threshold"})
    trial = tree.open_trial(client, run, tree.trial_name(0), flatten(known), 0)
    recorder = Recorder(trial, config, origin.folds, origin=origin.model_dump(mode="json"))
    for result, samples in judged:
        recorder(Progress(result.fold, 0, result.metrics, samples, result))
    tree.end(client, trial.run_id, "completed", f"imported: {OPTIMISTIC}")
    return summary([result for result, _ in judged])


def tell(
    client: MlflowClient,
    run: StudyRun,
    network: Network,
    file: Path,
    prepared: Prepared,
    judged: Sequence[Judged],
) -> None:
    """Draw example images by the network in a file, and write what MLflow's tables and the report show."""
    results = [one.result.model_copy(update={"model": file}) for one in judged]
    data = TrainingData(prepared.development, cache())
    draw_examples(client, run.run_id, results, network.config, data)
    tree.set_tags(client, run.run_id, {ORIGIN: "network"})
    view = report.view(client, client.get_run(run.run_id))
    report.mark(client, view)
    report.log_page(client, view)
