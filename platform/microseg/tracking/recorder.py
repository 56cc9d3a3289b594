"""Writes what training reports into the runs of a trial."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from microseg.config import TrialConfig
from microseg.folds import Fold
from microseg.tracking import tree
from microseg.tracking.figures import panels
from microseg.tracking.tree import TrialRun
from microseg.training import FoldResult, Progress

MODEL = "model/model.keras"
WORKER = "microseg.worker"


class Recorder:
    """Logs every epoch of every fold of one trial, by explicit run ids.

    Parameters
    ----------
    trial : TrialRun
        Where to write.
    config : TrialConfig
        The configuration that is trained.
    folds : sequence of Fold
        Which items train and validate, kept with each fold's run so that it can be repeated.
    """

    def __init__(self, trial: TrialRun, config: TrialConfig, folds: Sequence[Fold]) -> None:
        self._client = MlflowClient(trial.tracking_uri)
        self._trial = trial
        self._config = config
        self._folds = {fold.index: fold for fold in folds}
        self._runs: dict[int, str] = {}
        self._results: list[FoldResult] = []

    def note_worker(self, name: str) -> None:
        """Write where the trial is trained to its run."""
        self._client.set_tag(self._trial.run_id, WORKER, name)

    def __call__(self, progress: Progress) -> None:
        """Log one report of the training."""
        run_id = self._run(progress.fold)
        part = "validation" if progress.result is None else "final"
        for sample in progress.samples:
            picture = panels(sample, self._config.threshold)
            key = f"{part}/{_plain(sample.name)}"
            self._client.log_image(run_id, picture, key=key, step=progress.epoch)
        if progress.result is None:
            log_metrics(self._client, run_id, progress.metrics, progress.epoch)
        else:
            self._close(run_id, progress.result)

    def _run(self, fold: int) -> str:
        if fold not in self._runs:
            run = tree.open_fold(self._client, self._trial, fold)
            self._runs[fold] = run.info.run_id
        return self._runs[fold]

    def _close(self, run_id: str, result: FoldResult) -> None:
        self._results.append(result)
        log_metrics(self._client, self._trial.run_id, summary(self._results))
        log_metrics(self._client, run_id, final_metrics(result))
        fold = self._folds[result.fold]
        with tempfile.TemporaryDirectory() as scratch:
            recipe = Path(scratch, "fold.json")
            recipe.write_text(
                json.dumps({"config": self._config.model_dump(), "fold": fold.model_dump()}, indent=1)
            )
            self._client.log_artifact(run_id, str(recipe))
        self._client.log_text(run_id, result.model_dump_json(indent=1, exclude={"model"}), "result.json")
        if result.model is not None and result.model.is_file():
            self._client.log_artifact(run_id, str(result.model), str(Path(MODEL).parent))
        tree.end(self._client, run_id, result.state, f"{result.state} after {result.epochs} epochs")


def final_metrics(result: FoldResult) -> dict[str, float]:
    """Return the metrics of a fold's saved model: ``final/dice`` ... and what it cost."""
    finals = {f"final/{name}": value for name, value in validation(result).items()}
    return finals | {"best_epoch": float(result.best_epoch), "seconds": result.seconds}


def summary(results: Sequence[FoldResult]) -> dict[str, float]:
    """Return a trial's metrics: mean and standard deviation over its folds, and its cost.

    The standard deviation is the sample's (n - 1), and absent with fewer than two folds. Only
    completed folds enter: one that diverged or collapsed is a state, not a number in a mean.
    """
    done = [result for result in results if result.state == "completed"]
    finals = [validation(result) for result in done]
    names = finals[0] if finals else {}
    table = {name: [final[name] for final in finals] for name in names}
    means = {f"cv/{name}_mean": statistics.fmean(values) for name, values in table.items()}
    spread = {f"cv/{name}_std": statistics.stdev(values) for name, values in table.items() if len(values) > 1}
    cost = {"folds_done": float(len(done)), "seconds": sum(result.seconds for result in results)}
    if done:
        cost |= {
            "parameters": float(done[0].parameters),
            "peak_memory_mib": max(r.peak_memory_mib for r in done),
        }
    return means | spread | cost


def validation(result: FoldResult) -> dict[str, float]:
    """Return a fold's validation metrics by their bare names: ``dice``, ``iou``, ..."""
    return {
        name.removeprefix("val/"): value for name, value in result.metrics.items() if name.startswith("val/")
    }


def log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics in one batch; an infinite value would be stored as 1.8e308, so it is logged as NaN."""
    now = int(time.time() * 1000)
    finite = {name: value if math.isfinite(value) else math.nan for name, value in metrics.items()}
    client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in finite.items()])


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Name nested values by path: ``{"model": {"name": "unet"}}`` is ``{"model/name": "unet"}``."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _plain(name: str) -> str:
    """Keep only what MLflow allows in an image's key."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in name)
