"""What a worker process does: one trial, from its first fold to its last."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import tune

from microseg import runtime
from microseg.cluster import take_credentials
from microseg.config import TrialConfig
from microseg.search import incidents, standby
from microseg.search.incidents import TrialMemoryError
from microseg.search.job import Job
from microseg.search.state import Attempt

if TYPE_CHECKING:
    from microseg.tracking.tree import TrialRun

LOSSES = ("train/loss", "val/loss")
Send = Callable[[dict[str, Any]], None]


class Reporter:
    """Turns what training reports into Ray's results: one objective on one axis of steps.

    Steps 1..E are the epochs of the first fold, with the best score so far; a curve that ended
    before the study's longest, E, carries its best on to step E, so that every rung compares equal
    epochs. Step E + j is the mean over the first j folds.
    """

    def __init__(self, job: Job, trial: TrialRun, accumulation: int = 1, send: Send = tune.report) -> None:
        self._job = job
        self._send = send
        self._sign = 1.0 if job.mode == "max" else -1.0
        self._worst = -1.0 if job.mode == "max" else 1e6  # no score is below -1, no loss that is learnt above
        self._told = {"number": trial.number, "name": trial.name, "accumulation": accumulation}
        self._best: float | None = None
        self._scores: list[float] = []
        self._seconds: list[float] = []
        self._epochs: list[int] = []
        self._known: dict[str, float] = {}
        self._step = 0
        self._replayed = False

    def epoch(self, fold: int, epoch: int, value: float, replayed: bool = False) -> None:
        """Report an epoch: of the first fold as a step of its own, of a later one for the display."""
        self._replayed = replayed
        if fold == 0 and epoch > self._step:
            if math.isfinite(value) and (self._best is None or self._sign * value > self._sign * self._best):
                self._best = value
            self._step = epoch
        if fold == 0 or not replayed:
            self._report(fold, epoch)

    def fold(self, result: Any, replayed: bool = False) -> None:
        """Report a finished fold, a `microseg.training.FoldResult`."""
        self._replayed = replayed
        if result.fold == 0:
            self._best = result.metrics[self._job.metric]
            for step in range(self._step + 1, self._job.epochs + 1):
                self._step = step
                self._report(result.fold, result.epochs)
        self._scores.append(result.metrics[self._job.metric])
        self._seconds.append(result.seconds)
        self._epochs.append(result.epochs)
        self._measured(result)
        self._step = self._job.epochs + len(self._scores)
        self._report(result.fold, result.epochs)

    def _measured(self, result: Any) -> None:
        """Keep what a fold cost: memory its most, inference its mean over folds."""
        peaks = {"memory_mib": result.peak_memory_mib, "gpu_memory_mib": result.gpu_memory_mib}
        self._known |= {name: max(peak, self._known.get(name, 0.0)) for name, peak in peaks.items()}
        if self._job.against == "parameters":
            self._known["cost"] = float(result.parameters)
        elif self._job.against:
            done = len(self._scores)
            before = self._known.get("cost", 0.0) * (done - 1)
            self._known["cost"] = (before + result.metrics[f"val/{self._job.against}"]) / done

    def stop(self, fold: int, epoch: int, state: str, reason: str) -> None:
        """Report that the trial cannot go on: its state is an outcome, not a score."""
        self._report(fold, epoch, state=state, reason=reason)

    def _report(self, fold: int, epoch: int, **outcome: str) -> None:
        """Report; the objective is a finite number: ASHA never stops a NaN, nor beside infinities."""
        best = self._worst if self._best is None else self._best
        mean = sum(self._scores) / len(self._scores) if self._scores else best
        complete = len(self._scores) == len(self._job.folds)
        done = {"state": "completed", "reason": "all folds"} if complete else {}
        progress = {"step": self._step, "objective": mean, "fold": fold, "epoch": epoch}
        told = self._told | progress | {"replayed": self._replayed}
        lists = {
            "scores": list(self._scores), "seconds": list(self._seconds), "epochs": list(self._epochs)
        }  # fmt: skip
        self._send(told | lists | self._known | done | outcome)


def run(settings: Mapping[str, Any], job: Job) -> None:
    """Train one trial in this process (Ray calls this in a worker).

    What went wrong with it before decides how it is trained now, or that it is not.

    Parameters
    ----------
    settings : mapping
        ``config``, the trial's configuration, ``trial``, its run in MLflow, ``threads``, and ``followed``:
        whether another trial takes its place.
    job : Job
        What all trials have in common.
    """
    take_credentials()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with runtime.uncollected():
        from microseg.tracking.tree import TrialRun
    proposed = TrialConfig.model_validate(settings["config"])
    trial = TrialRun.model_validate(settings["trial"])
    with job.attempt(trial.name) as attempt:
        found = incidents.read(attempt.folder)
        config = incidents.relieved(proposed, found)
        reason = incidents.hopeless(found, proposed)
        if reason:
            Reporter(job, trial, config.accumulation).stop(0, 0, reason.state, reason.text)
            return
        _train(config, trial, job, attempt, settings)


def _train(
    config: TrialConfig, trial: TrialRun, job: Job, attempt: Attempt, settings: Mapping[str, Any]
) -> None:
    with runtime.uncollected():
        runtime.load_tensorflow()
        import tensorflow as tf

        from microseg import training
        from microseg.tracking import clock, store
        from microseg.tracking.recorder import Recorder

        store.patient()
        clock.follow(trial.tracking_uri)
        runtime.threads(settings["threads"])
        recorder = Recorder(trial, config, job.folds, job.curves, job.metric, job.origin)  # loads a client
    recorder.note_worker(f"{platform.node()}, process {os.getpid()}")
    reporter = Reporter(job, trial, config.accumulation)

    data = training.TrainingData(*job.images())
    hear = listener(recorder, reporter, job)

    prepare = functools.cache(standby.prepare_successor)  # once

    def keep(progress: Any) -> None:
        if not progress.replayed:
            attempt.save()
        hear(progress)
        if settings["followed"]:
            prepare()

    try:
        training.run_trial(config, data, job.folds, attempt.folder, keep)
    except tf.errors.ResourceExhaustedError as error:
        part = config.batch_size // config.accumulation
        raise TrialMemoryError(
            f"out of memory with {part} patches at once: {incidents.describe(error)}"
        ) from None
    finally:
        if not attempt.superseded:  # else its successor writes the same
            recorder.flush()


def listener(recorder: Any, reporter: Reporter, job: Job) -> Callable[[Any], None]:
    """Return what hears a `microseg.training.Progress`: first MLflow records it, then Ray is told.

    An epoch whose loss is no number is not told: ASHA could prune what diverged, as the result says next.
    """

    def hear(progress: Any) -> None:
        recorder(progress if _has_pictures(progress.fold, job) else replace(progress, samples=()))
        result = progress.result
        if result is None:
            if not all(math.isfinite(progress.metrics.get(loss, 0.0)) for loss in LOSSES):
                return
            if progress.fold == 0 and progress.epoch in job.rungs:
                recorder.flush()  # a stop leaves no time for it
            value = progress.metrics.get(job.metric, float("nan"))
            reporter.epoch(progress.fold, progress.epoch, value, progress.replayed)
        elif result.state == "completed":
            reporter.fold(result, progress.replayed)
        else:
            reporter.stop(progress.fold, result.epochs, result.state, _why(result))

    return hear


def _has_pictures(fold: int, job: Job) -> bool:
    """Say whether MLflow gets pictures of a fold: they are larger than networks, the first shows enough."""
    return job.keep == "all" or fold == 0


def _why(result: Any) -> str:
    """Say in words why a fold has no score."""
    if result.state == "diverged":
        return f"fold {result.fold + 1}: the loss was no number in epoch {result.epochs}"
    recall = result.metrics.get("val/recall", 0.0)
    return f"fold {result.fold + 1}: all {'foreground' if recall > 0 else 'background'} in the best epoch"
