"""What a study has cost so far, what it will cost, and when its budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ray.tune import Callback

from microseg.config import Budget
from microseg.errors import counted
from microseg.search.records import TrialRecord
from microseg.search.trials import Trials

WRITE = 30.0  # seconds between two notes in the storage


class Spending(Callback):
    """Counts hours and GPU-hours over all runs of a study, and says when the budget is spent.

    Parameters
    ----------
    trials : Trials
        Where they are kept.
    budget : Budget or None
        Where the study ends.
    clock : callable
        Seconds that only go up.
    """

    def __init__(
        self, trials: Trials, budget: Budget | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trials = trials
        self._budget = budget or Budget()
        self._clock = clock
        self._spent = trials.spent()
        self._shares: dict[str, float] = {}
        self._last = self._written = clock()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count the GPUs of a trial from now on."""
        self.note()
        self._shares[trial.trial_id] = trial.config["share"]["gpu"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count the GPUs of a trial no longer."""
        self.note()
        self._shares.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """As for one that completed."""
        self.on_trial_complete(iteration, trials, trial)

    def note(self) -> dict[str, float]:
        """Bring the counts up to now and return them."""
        now = self._clock()
        hours = (now - self._last) / 3600
        self._last = now
        self._spent["hours"] += hours
        self._spent["gpu_hours"] += hours * sum(self._shares.values())
        if now - self._written >= WRITE:
            self.write()
        return dict(self._spent)

    def write(self) -> None:
        """Write the counts to the storage; a driver that is killed loses those since the last time."""
        self._written = self._clock()
        self._trials.spend(self._spent)

    def exhausted(self) -> str | None:
        """Return why the budget ends the study, or None."""
        spent = self.note()
        for name, allowed in (("hours", self._budget.hours), ("gpu_hours", self._budget.gpu_hours)):
            if allowed is not None and spent[name] >= allowed:
                return f"the budget of {allowed:g} {name.replace('_h', '-h').replace('gpu', 'GPU')} is spent"
        return None


class ToGo(NamedTuple):
    """What a search has yet to train: trials, repeats of the best ones, and networks on all images."""

    trials: int
    repeats: int = 0
    retrainings: int = 0


def projection(
    concurrency: int, size: tuple[int, int], to_go: ToGo, earlier: Sequence[TrialRecord], gpus: float
) -> str:
    """Say what a search costs at most, before it starts or goes on.

    Parameters
    ----------
    concurrency : int
        How many trials at once.
    size : int, int
        Folds of a trial, and the most epochs of a fold.
    to_go : ToGo
        What is to be trained.
    earlier : sequence of TrialRecord
        Trials on the same data set, of this study or others, whose folds were timed.
    gpus : float
        GPUs that a trial asks for.
    """
    if not any(to_go):
        return "all trials are done"
    folds, epochs = size
    text = _counted(to_go, folds, epochs)
    epochs_timed = sum(sum(record.epochs) for record in earlier)
    if not epochs_timed:
        return f"{text}; how long they take is known after the first epochs"
    each = sum(sum(record.seconds) for record in earlier) / epochs_timed
    trials = (to_go.trials + to_go.repeats) * folds * epochs * each
    # Alone at the end, on the images that its fold keeps from each network as well.
    retraining = to_go.retrainings * epochs * each * folds / max(folds - 1, 1)
    hours = duration(trials / concurrency + retraining)
    cost = f" and {(trials + retraining) / 3600 * gpus:.2g} GPU-hours" if gpus else ""
    return (
        f"{text}: {hours}{cost} without early stopping, at the {each:.2g} s an epoch of earlier trials "
        "on these images"
    )


def _counted(to_go: ToGo, folds: int, epochs: int) -> str:
    """Count the trainings, such as ``at most 50 fold trainings of 60 epochs (10 trials, 5 folds)``."""
    trainings = (to_go.trials + to_go.repeats) * folds
    trials = counted(to_go.trials, "trial") + (
        f" and {counted(to_go.repeats, 'repeat')}" if to_go.repeats else ""
    )
    size = f"({trials}, {counted(folds, 'fold')})"
    said = f"{counted(trainings, 'fold training')} of {counted(epochs, 'epoch')} {size}"
    parts = [said] if trainings else []
    parts += [f"one training on all images for {counted(epochs, 'epoch')}"] if to_go.retrainings else []
    return f"at most {' and '.join(parts)}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    )
