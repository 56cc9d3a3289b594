"""Writes what training reports into the runs of a trial."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mlflow import MlflowClient

from microseg.config import TrialConfig
from microseg.folds import Fold
from microseg.tracking import tree
from microseg.tracking.environment import environment
from microseg.tracking.figures import panels
from microseg.tracking.fold import FoldRun, as_metrics, known_steps
from microseg.tracking.tree import TrialRun
from microseg.training import FoldResult, Progress

WORKER = "microseg.worker"
BRIEF = ("train/loss", "val/loss", "train/dice", "val/dice")


class Recorder:
    """Writes every epoch of every fold of one trial, by explicit run ids, in batches.

    What the runs have already is not written again, so that all events of a trial may be told anew after
    an interruption at any moment: the runs become what they would have been without it.

    Parameters
    ----------
    trial : TrialRun
        Where to write.
    config : TrialConfig
        The configuration that is trained.
    folds : sequence of Fold
        Which items train and validate.
    curves : {"all", "brief"}
        Which metrics are written by epoch: all, or losses, Dice and ``metric``. The rest is in the
        history of ``result.json``.
    metric : str
        What the study compares.
    origin : mapping, optional
        Where the study comes from (see `microseg.study.provenance`), kept with each fold's run so that it
        can be repeated from that alone.
    """

    def __init__(
        self,
        trial: TrialRun,
        config: TrialConfig,
        folds: Sequence[Fold],
        curves: Literal["all", "brief"] = "all",
        metric: str = "val/dice",
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = MlflowClient(trial.tracking_uri)
        self._trial = trial
        self._config = config
        self._folds = {fold.index: fold for fold in folds}
        self._origin = origin or {}
        self._brief = {*BRIEF, metric} if curves == "brief" else None
        self._former = tree.fold_runs(self._client, trial)
        self._summarised = self._summaries() if self._former else set()
        self._runs: dict[int, FoldRun] = {}
        self._results: list[FoldResult] = []

    def _summaries(self) -> set[int]:
        return known_steps(self._client, self._client.get_run(self._trial.run_id))

    def note_worker(self, name: str) -> None:
        """Write where the trial is trained to its run."""
        self._client.set_tag(self._trial.run_id, WORKER, name)

    def __call__(self, progress: Progress) -> None:
        """Take one report of the training."""
        run = self._run(progress.fold)
        if not run.closed:
            self._write(run, progress)
        if progress.result is not None:
            self._summarise(progress.result)

    def flush(self) -> None:
        """Write what is kept for the next batch: for whoever stops the training between two reports."""
        for run in self._runs.values():
            run.flush()

    def _run(self, fold: int) -> FoldRun:
        if fold not in self._runs:
            run = tree.open_fold(self._client, self._trial, fold, self._former)
            self._runs[fold] = FoldRun(self._client, run)
        return self._runs[fold]

    def _write(self, run: FoldRun, progress: Progress) -> None:
        result = progress.result
        if result is None:
            run.log(self._shown(progress.metrics), progress.epoch)
        else:
            run.log(final_metrics(result), 0)  # epochs count from 1
        if progress.samples:
            run.show(self._pictures(progress), progress.epoch)
        elif run.due():
            run.flush()
        if result is not None:
            run.close(result, self._provenance(result))

    def _provenance(self, result: FoldResult) -> dict[str, Any]:
        """Return where a fold's network comes from: that of its study, and what is its own."""
        seed = self._config.seed
        own = {
            "trial": self._trial.name,
            "config": self._config.model_dump(),
            "fold": self._folds[result.fold].model_dump(),
            "seeds": {**self._origin.get("seeds", {}), "trial": seed, "training": seed + result.fold},
            "environment": environment(self._config.precision).model_dump(),
            "weights": result.weights,
            "fingerprint": result.fingerprint,
        }
        return {**self._origin, **own}

    def _shown(self, metrics: Mapping[str, float]) -> dict[str, float]:
        return {name: metrics[name] for name in metrics if self._brief is None or name in self._brief}

    def _pictures(self, progress: Progress) -> dict[str, Any]:
        part = "validation" if progress.result is None else "final"
        threshold = self._config.threshold
        return {f"{part}/{_plain(sample.name)}": panels(sample, threshold) for sample in progress.samples}

    def _summarise(self, result: FoldResult) -> None:
        """Write the trial's metrics at the number of folds that are done as their step."""
        self._results.append(result)
        step = len(self._results)
        if step not in self._summarised:
            self._summarised.add(step)
            log_metrics(self._client, self._trial.run_id, summary(self._results), step)


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
        on_gpu = max(r.gpu_memory_mib for r in done)
        cost |= {"gpu_memory_mib": on_gpu} if on_gpu else {}
    worked = sum(result.cpu_seconds for result in results)
    cost |= {"cpu_seconds": worked} if worked else {}
    return means | spread | cost


def validation(result: FoldResult) -> dict[str, float]:
    """Return a fold's validation metrics by their bare names: ``dice``, ``iou``, ..."""
    return {
        name.removeprefix("val/"): value for name, value in result.metrics.items() if name.startswith("val/")
    }


def log_metrics(client: MlflowClient, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
    """Log metrics in one batch; an infinite value is logged as NaN."""
    client.log_batch(run_id, metrics=as_metrics(metrics, step))


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
