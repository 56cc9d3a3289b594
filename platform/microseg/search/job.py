"""What a worker process is given, and what it does: one trial, from its first fold to its last."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from microseg.config import Strict, TrialConfig
from microseg.data.manifest import Manifest
from microseg.folds import Fold
from microseg.tracking.tree import TrialRun, trial_name


class Job(Strict):
    """All that the trials of a study have in common.

    ``epochs`` is the most that any trial may train a fold, ``workdir`` holds a folder per trial,
    ``threads`` is the number of cores a worker may use.
    """

    manifest: Manifest
    folds: tuple[Fold, ...]
    metric: str
    mode: str
    epochs: int
    workdir: Path
    cache: Path
    threads: int


class Reporter:
    """Turns what training reports into Ray's results: one objective on one axis of steps.

    Steps 1..E are the epochs of the first fold, with the best score so far; a curve that ended
    before the study's longest, E, carries its best on to step E, so that every rung compares equal
    epochs. Step E + j is the mean over the first j folds.
    """

    def __init__(self, job: Job, number: int) -> None:
        self._epochs = job.epochs
        self._sign = 1.0 if job.mode == "max" else -1.0
        self._worst = -1.0 if job.mode == "max" else 1e6  # no score is below -1, no loss that is learnt above
        self._folds = len(job.folds)
        self._number = number
        self._best: float | None = None
        self._scores: list[float] = []
        self._step = 0

    def epoch(self, fold: int, epoch: int, value: float) -> None:
        """Report an epoch: of the first fold as a step of its own, of a later one for the display."""
        if fold == 0 and epoch > self._step:
            if value == value and (self._best is None or self._sign * value > self._sign * self._best):
                self._best = value
            self._step = epoch
        self._report(fold, epoch)

    def fold(self, fold: int, score: float, epoch: int) -> None:
        """Report a finished fold."""
        if fold == 0:
            self._best = score
            for step in range(self._step + 1, self._epochs + 1):
                self._step = step
                self._report(fold, epoch)
        self._scores.append(score)
        self._step = self._epochs + len(self._scores)
        self._report(fold, epoch)

    def stop(self, fold: int, epoch: int, state: str, reason: str) -> None:
        """Report that the trial cannot go on: its state is an outcome, not a score."""
        self._report(fold, epoch, state=state, reason=reason)

    def _report(self, fold: int, epoch: int, **outcome: str) -> None:
        """Report; the objective is never NaN, which ASHA would never stop."""
        best = self._worst if self._best is None else self._best
        mean = sum(self._scores) / len(self._scores) if self._scores else best
        done = {"state": "completed", "reason": "all folds"} if len(self._scores) == self._folds else {}
        tune.report(
            {
                "number": self._number,
                "step": self._step,
                "objective": mean,
                "fold": fold,
                "epoch": epoch,
                "scores": list(self._scores),
                **done,
                **outcome,
            }
        )


def run(settings: Mapping[str, Any], job: Job) -> None:
    """Train one trial in this process (Ray calls this in a worker).

    Parameters
    ----------
    settings : mapping
        ``config``, the trial's configuration, and ``trial``, its run in MLflow.
    job : Job
        What all trials have in common.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from microseg import runtime

    runtime.load_tensorflow()
    from microseg import training
    from microseg.tracking.recorder import Recorder

    runtime.threads(job.threads)
    config = TrialConfig.model_validate(settings["config"])
    trial = TrialRun.model_validate(settings["trial"])
    recorder = Recorder(trial, config, job.folds)
    recorder.note_worker(f"{platform.node()}, process {os.getpid()}")
    reporter = Reporter(job, trial.number)

    def report(progress: training.Progress) -> None:
        recorder(progress)
        result = progress.result
        if result is None:
            reporter.epoch(progress.fold, progress.epoch, progress.metrics.get(job.metric, float("nan")))
        elif result.state == "completed":
            reporter.fold(progress.fold, result.metrics[job.metric], result.epochs)
        else:
            reporter.stop(
                progress.fold, result.epochs, result.state, f"fold {progress.fold + 1} {result.state}"
            )

    data = training.TrainingData(manifest=job.manifest, cache=job.cache)
    training.run_trial(config, data, job.folds, job.workdir / trial_name(trial.number), report)
