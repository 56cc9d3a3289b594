"""What a study has cost so far, what it will cost, and when its budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune import Callback

from microseg.config import Budget
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


def projection(
    concurrency: int,
    size: tuple[int, int],
    to_go: tuple[int, int],
    earlier: Sequence[TrialRecord],
    gpus: float,
) -> str:
    """Say what a search costs at most, before it starts or goes on.

    Parameters
    ----------
    concurrency : int
        How many trials at once.
    size : int, int
        Folds of a trial, and the most epochs of a fold.
    to_go : int, int
        How many trials, and how many repeats, are to go.
    earlier : sequence of TrialRecord
        Trials on the same data set, of this study or others, whose folds were timed.
    gpus : float
        GPUs that a trial asks for.
    """
    folds, epochs = size
    trials, repeats = to_go
    if trials + repeats == 0:
        return "all trials are done"
    trainings = (trials + repeats) * folds
    counted = f"{trials} trials" + (f" and {repeats} repeats" if repeats else "")
    text = f"at most {trainings} fold trainings of {epochs} epochs ({counted}, {folds} folds)"
    epochs_timed = sum(sum(record.epochs) for record in earlier)
    if not epochs_timed:
        return f"{text}; how long they take is known after the first epochs"
    each = sum(sum(record.seconds) for record in earlier) / epochs_timed
    seconds = trainings * epochs * each
    hours = duration(seconds / concurrency)
    cost = f" and {seconds / 3600 * gpus:.2g} GPU-hours" if gpus else ""
    return (
        f"{text}: {hours}{cost} without early stopping, at the {each:.2g} s an epoch of earlier trials "
        "on these images"
    )


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    )
