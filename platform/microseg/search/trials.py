"""The truth about a study's trials, kept in Optuna's storage: proposed, measured, told how they ended."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from microseg.config import Strict, TrialConfig
from microseg.space import Number, Scalar, Space

State = Literal["running", "completed", "pruned", "diverged", "collapsed", "failed", "interrupted"]
TOLD = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


class TrialRecord(Strict):
    """What is known of one trial.

    ``scores`` are the fold scores in fold order, ``score`` is their mean once all folds are done.
    """

    number: int
    state: State
    reason: str = ""
    config: TrialConfig
    run_id: str = ""
    scores: tuple[float, ...] = ()
    score: float | None = None


class OptunaSuggest:
    """Draws the values of a sample from an Optuna trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def number(self, name: str, distribution: Number) -> float | int:
        """Return a number within the distribution."""
        if distribution.kind == "int_uniform":
            return self._trial.suggest_int(name, int(distribution.low), int(distribution.high))
        log = distribution.kind == "log_uniform"
        return self._trial.suggest_float(name, distribution.low, distribution.high, log=log)

    def choice(self, name: str, labels: Sequence[Scalar]) -> Scalar:
        """Return one of the labels."""
        chosen: Scalar = self._trial.suggest_categorical(name, list(labels))
        return chosen


class Trials:
    """A study's trials in Optuna's storage.

    Parameters
    ----------
    path : Path
        The sqlite file; created when missing.
    study : str
        The study's name.
    space : Space
        What is sampled.
    seed : int
        Study seed; trial n is sampled with a generator seeded by (seed, n), so that a resumed study
        proposes what the uninterrupted one would have (TPE's own generator starts anew otherwise).
    mode : {"max", "min"}
        Whether a larger score is better.
    """

    def __init__(self, path: Path, study: str, space: Space, seed: int, mode: Literal["max", "min"]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        direction: Literal["maximize", "minimize"] = "maximize" if mode == "max" else "minimize"
        self._study = optuna.create_study(
            storage=f"sqlite:///{path.resolve()}", study_name=study, direction=direction, load_if_exists=True
        )
        self._space = space
        self._seed = seed
        self.mode = mode

    def propose(self) -> tuple[int, TrialConfig]:
        """Sample the next trial and record its configuration."""
        self._study.sampler = self._sampler(self.count())
        trial = self._study.ask()
        return trial.number, self._sample(trial)

    def _sample(self, trial: optuna.Trial) -> TrialConfig:
        config = TrialConfig.model_validate(self._space.sample(OptunaSuggest(trial)))
        trial.set_user_attr("state", "running")
        trial.set_user_attr("config", config.model_dump(mode="json"))
        return config

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():  # multivariate and group are marked experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=8
            )

    def epoch(self, number: int, step: int, value: float) -> None:
        """Record an intermediate value; a value that is no number is left out, `tell` could not take it."""
        if np.isfinite(value):
            self._live(number).report(value, step)

    def fold(self, number: int, scores: Sequence[float]) -> None:
        """Record the scores of the folds that are done."""
        self._live(number).set_user_attr("scores", [float(score) for score in scores])

    def started(self, number: int, run_id: str) -> None:
        """Record the trial's run in MLflow."""
        self._live(number).set_user_attr("run_id", run_id)

    def finish(self, number: int, state: State, reason: str, score: float | None = None) -> None:
        """Tell how a trial ended.

        Pruned is told as PRUNED with its intermediate values, never as COMPLETE with the score of a
        short run; diverged, collapsed and failed are told as FAIL.
        """
        trial = self._live(number)
        trial.set_user_attr("state", state)
        trial.set_user_attr("reason", reason)
        told = TOLD.get(state, TrialState.FAIL)
        self._study.tell(number, score if told == TrialState.COMPLETE else None, state=told)

    def explain(self, number: int, reason: str) -> None:
        """Replace the reason why a trial ended; Optuna lets nothing be added to a trial that was told."""
        self._study.set_user_attr(f"reason/{number}", reason)

    def unfinished(self) -> list[tuple[int, TrialConfig]]:
        """Return the trials that were in flight when the study was last stopped.

        One that was stopped while it was being proposed is sampled to the end: Optuna answers the
        values it has drawn already from its storage.
        """
        running = self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return [(trial.number, self._config(trial)) for trial in running]

    def _config(self, trial: FrozenTrial) -> TrialConfig:
        if "config" in trial.user_attrs:
            return TrialConfig.model_validate(trial.user_attrs["config"])
        self._study.sampler = self._sampler(trial.number)
        return self._sample(self._live(trial.number))

    def count(self) -> int:
        """Return how many trials have been proposed."""
        return len(self._study.get_trials(deepcopy=False))

    def records(self) -> list[TrialRecord]:
        """Return all trials in the order they were proposed."""
        explained = self._study.user_attrs
        found = self._study.get_trials(deepcopy=False)
        return [_record(trial, explained) for trial in found if "config" in trial.user_attrs]

    def ranked(self) -> list[TrialRecord]:
        """Return all trials, the best with all folds first, then those without in order of proposal."""
        records = self.records()
        complete = [record for record in records if record.state == "completed"]
        sign = -1.0 if self.mode == "max" else 1.0
        complete.sort(key=lambda record: (sign * (record.score or 0.0), record.number))
        return complete + [record for record in records if record.state != "completed"]

    def _live(self, number: int) -> optuna.Trial:
        frozen = self._study.get_trials(deepcopy=False)[number]
        return optuna.Trial(self._study, frozen._trial_id)


def _record(trial: FrozenTrial, explained: dict[str, Any]) -> TrialRecord:
    attrs: dict[str, Any] = trial.user_attrs
    state = attrs["state"]
    return TrialRecord(
        number=trial.number,
        state="interrupted" if state == "running" and trial.state != TrialState.RUNNING else state,
        reason=explained.get(f"reason/{trial.number}", attrs.get("reason", "")),
        config=TrialConfig.model_validate(attrs["config"]),
        run_id=attrs.get("run_id", ""),
        scores=tuple(attrs.get("scores", ())),
        score=trial.value if trial.state == TrialState.COMPLETE else None,
    )
