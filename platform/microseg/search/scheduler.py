"""Who may go on: ASHA over the epochs of the first fold, then the paired race over folds, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from microseg import statistics
from microseg.config import SearchConfig
from microseg.search.records import State, TrialRecord
from microseg.tracking.tree import trial_name


class Stopped(NamedTuple):
    """Why a trial was stopped."""

    state: State
    reason: str


class FoldRace(FIFOScheduler):
    """Stops trials that cannot win any more.

    ASHA (Li et al. 2020, arXiv:1810.05934) compares the best score so far at equal epochs of the first
    fold; afterwards `microseg.statistics.race` compares a trial with the incumbent on the same folds. Ray
    forgets a scheduler's state when a search is restored; here all of it is read from the trials in
    Optuna's storage.

    Parameters
    ----------
    config : SearchConfig
        ASHA's and the race's settings; either may be None.
    epochs : int
        The most that a trial trains a fold; step ``epochs + j`` is the mean over j folds.
    folds : int
        How many folds a trial has.
    exhausted : callable, optional
        Returns why the study's budget ends it, or None.
    """

    def __init__(
        self, config: SearchConfig, epochs: int, folds: int, exhausted: Callable[[], str | None] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._config = config
        self._epochs = epochs
        self._folds = folds
        self.exhausted = exhausted or (lambda: None)
        self._asha = _asha(config, epochs)
        self._sign = 1.0 if config.mode == "max" else -1.0
        self._scores: dict[int, tuple[float, ...]] = {}
        self._costs: dict[int, float] = {}
        self.stopped: dict[int, Stopped] = {}

    def replay(self, records: Sequence[TrialRecord]) -> None:
        """Take up the trials of earlier runs of the study.

        The last step of a trial in flight is judged again when it is reported again: the driver may have
        been killed between recording it and acting on it.
        """
        for record in records:
            ended = record.state not in ("running", "interrupted")
            steps = sorted(step for step in record.steps if step <= self._epochs)
            for step in steps if ended else steps[:-1]:
                self._judge_epoch(record.number, step, record.steps[step])
            self._scores[record.number] = record.scores if ended else record.scores[:-1]
            if record.cost is not None:
                self._costs[record.number] = record.cost

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Judge a report; why a trial was stopped is kept in ``stopped``."""
        if "state" in result:  # it has ended by itself
            self._note_fold(result)
            return str(TrialScheduler.CONTINUE)
        number = result["number"]
        stopped = self._spent() or self._epoch(result) or self._fold(result)
        if stopped is None:
            return str(TrialScheduler.CONTINUE)
        self.stopped[number] = stopped
        return str(TrialScheduler.STOP)

    def _spent(self) -> Stopped | None:
        reason = self.exhausted()
        return Stopped("interrupted", reason) if reason else None

    def _epoch(self, result: dict[str, Any]) -> Stopped | None:
        step = result["step"]
        if step > self._epochs or self._judge_epoch(result["number"], step, result["objective"]):
            return None
        return Stopped("pruned", f"ASHA at epoch {step}")

    def _judge_epoch(self, number: int, step: int, objective: float) -> bool:
        """Return whether ASHA lets a trial go on; it knows trials by number, which outlives Ray's name."""
        if self._asha is None:
            return True
        controller: Any = None  # it does not look at it, and at nothing of a trial but its name
        trial: Any = SimpleNamespace(trial_id=str(number))
        self._asha.on_trial_add(controller, trial)
        result = {"step": step, "objective": objective}
        return bool(self._asha.on_trial_result(controller, trial, result) != TrialScheduler.STOP)

    def _note_fold(self, result: dict[str, Any]) -> bool:
        """Keep the scores of a trial; returns whether a fold was finished just now."""
        number, scores = result["number"], tuple(result["scores"])
        new = len(scores) > len(self._scores.get(number, ()))
        if new:
            self._scores[number] = scores
            if result.get("cost") is not None:
                self._costs[number] = result["cost"]
        return new

    def _fold(self, result: dict[str, Any]) -> Stopped | None:
        """Race a trial that finished a fold, unless it was the last."""
        if not self._note_fold(result) or self._config.race is None or len(result["scores"]) >= self._folds:
            return None
        number = result["number"]
        finished = {other: self._signed(other) for other in self._scores if self._complete(other)}
        rivals = [other for other in finished if self._no_dearer(other, number)]
        verdict = statistics.decide(
            self._signed(number),
            list(finished.values()),
            self._config.race.margin,
            rivals=[finished[rival] for rival in rivals],
        )
        if verdict is None or not verdict.drop:
            return None
        incumbent = trial_name(rivals[statistics.incumbent([finished[rival] for rival in rivals]) or 0])
        behind = f"{-verdict.difference:.4g} behind {incumbent} on the same folds"
        return Stopped("raced_out", f"fold {len(result['scores'])}: {behind}, margin {verdict.margin:.4g}")

    def _complete(self, number: int) -> bool:
        return len(self._scores[number]) == self._folds

    def _signed(self, number: int) -> list[float]:
        """Return the fold scores so that larger is better."""
        return [self._sign * score for score in self._scores[number]]

    def _no_dearer(self, rival: int, number: int) -> bool:
        """Say whether a rival may end a trial: with a second objective, not if it costs more."""
        own = self._costs.get(number)
        return own is None or self._costs.get(rival, own) <= own


def rungs(config: SearchConfig, epochs: int) -> tuple[int, ...]:
    """Return the epochs of the first fold at which ASHA compares trials; all lie below its last epoch."""
    if config.asha is None:
        return ()
    found, milestone = [], config.asha.grace
    while milestone < epochs:
        found.append(milestone)
        milestone *= config.asha.reduction
    return tuple(found)


def _asha(config: SearchConfig, epochs: int) -> ASHAScheduler | None:
    """Return ASHA over the epochs of the first fold, or None where it would stop nothing.

    The highest rung lies below the first fold's last epoch, and reaching it stops nothing
    (`stop_last_trials` would mark the winners as stopped): a finished fold is no reason to stop.
    """
    if config.asha is None or not rungs(config, epochs):
        return None
    return ASHAScheduler(
        time_attr="step",
        metric="objective",
        mode=config.mode,
        grace_period=config.asha.grace,
        reduction_factor=config.asha.reduction,
        max_t=epochs - 1,
        stop_last_trials=False,
    )
