"""The truth about a study's trials, kept in Optuna's storage: proposed, measured, told how they ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from microseg.config import SearchConfig, TrialConfig
from microseg.errors import MicrosegError
from microseg.search import database
from microseg.search.database import patient
from microseg.search.one_writer import OneWriter
from microseg.search.records import INFEASIBLE, State, TrialRecord, outcome_of, recorded
from microseg.search.samplers import learns_constraints, sampler
from microseg.search.suggest import OptunaSuggest
from microseg.space import Scalar, Space

Direction = Literal["minimize", "maximize"]
MOST_REFUSED = 1000  # proposals in a row that constraints may refuse before the space counts as empty


class Trials:
    """A study's trials in Optuna's storage.

    A proposal depends on the seed, the number of the trial and the storage alone, so that a study that
    was killed and resumed proposes what the uninterrupted one would have. Where the storage is a server's,
    each method waits for it while it is away, and may be repeated.

    Parameters
    ----------
    path : Path
        The sqlite file; created when missing. Where ``MICROSEG_OPTUNA_URL`` names a database, the trials are
        there, and only a key beside the file, see `microseg.search.database`.
    study : str
        The study's name.
    space : Space
        What is sampled.
    config : SearchConfig
        Seed, mode, sampler, and the cost that is searched to be low beside the metric.
    """

    def __init__(self, path: Path, study: str, space: Space, config: SearchConfig) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        directions: list[Direction] = ["maximize" if config.mode == "max" else "minimize"]
        self._costs = int(config.against is not None)
        cheap: list[Direction] = ["minimize"] * self._costs
        storage, own_name = database.opened(path, study)
        self._storage = OneWriter(storage)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=own_name,
            sampler=sampler(config, 0, self._costs),  # also what is told before anything is asked reaches it
            directions=directions + cheap,
            load_if_exists=True,
        )
        database.remember(path, own_name)
        self._ids: dict[int, int] = {}
        self._space = space
        self._config = config
        self._learns = learns_constraints(config)
        self.mode: Literal["max", "min"] = config.mode
        self._in_flight = {trial.number for trial in self._all(TrialState.RUNNING)}

    @patient
    def enqueue(self, points: Sequence[Mapping[str, Scalar]]) -> None:
        """Put known-good parameters, by path, before everything else; those that are there stay once."""
        for point in points:
            self._study.enqueue_trial(dict(point), skip_if_exists=True)

    @patient
    def add(self, config: TrialConfig, name: str, replicate_of: int) -> None:
        """Put a repetition of a trial into the queue, once."""
        names = {trial.user_attrs.get("name") for trial in self._all()}
        if name not in names:
            attrs = {"name": name, "replicate_of": replicate_of, "config": config.model_dump(mode="json")}
            self._study.enqueue_trial({}, user_attrs=attrs)

    @patient
    def propose(self) -> TrialRecord:
        """Sample the next trial that the constraints allow, and record its configuration.

        Raises
        ------
        MicrosegError
            If the constraints refuse every proposal.
        """
        for _ in range(MOST_REFUSED):
            trial = self._ask()
            reason = self._sample(trial)
            if reason is None:
                self._in_flight.add(trial.number)
                return recorded(self._storage.get_trial(trial._trial_id), {})
            self.finish(trial.number, "refused", reason)
        raise MicrosegError(
            f"the constraints refused {MOST_REFUSED} proposals in a row, the last one because: {reason}; "
            "widen the space, or take a constraint out"
        )

    def _ask(self) -> optuna.Trial:
        """Return a new trial, or the one that was asked for when the server went away."""
        for begun in self._all(TrialState.RUNNING):
            if begun.number not in self._in_flight:
                self._study.sampler = sampler(self._config, begun.number, self._costs)
                return optuna.Trial(self._study, begun._trial_id)
        self._study.sampler = sampler(self._config, self._asked(), self._costs)
        return self._study.ask()

    def _sample(self, trial: optuna.Trial) -> str | None:
        """Record the configuration of a trial; returns why it must not be trained, None if it may."""
        if "config" not in trial.user_attrs:
            try:
                values = self._space.sample(OptunaSuggest(trial))
            except ValueError as error:  # Optuna: the choices of a parameter are fixed by its first trial
                raise MicrosegError(
                    f"the study holds trials of a space with other choices ({error}); start a new --study, "
                    "with warm_start to use what this one found"
                ) from error
            config = TrialConfig.model_validate(values)
            self._write(trial.number, config=config.model_dump(mode="json"))
        else:
            values = trial.user_attrs["config"]
        return self._space.violated(values)

    @patient
    def _write(self, number: int, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(self._id(number), name, value)

    def _id(self, number: int) -> int:
        if number not in self._ids:
            study = self._study._study_id
            self._ids[number] = self._storage.get_trial_id_from_study_id_trial_number(study, number)
        return self._ids[number]

    @patient
    def epoch(self, number: int, step: int, value: float) -> None:
        """Record an intermediate value; one that is no number is left out, `tell` could not take it.

        With two objectives Optuna has no intermediate values.
        """
        if np.isfinite(value) and not self._costs:
            self._storage.set_trial_intermediate_value(self._id(number), step, value)

    def fold(self, number: int, scores: Sequence[float], **known: Any) -> None:
        """Record the scores of the folds that are done, and what else is known of them, see `TrialRecord`."""
        # One attribute, so that it is written at once: each costs a transaction on disk.
        self._write(number, measured={"scores": [float(score) for score in scores]} | known)

    def started(self, number: int, run_id: str) -> None:
        """Record the trial's run in MLflow."""
        self._write(number, run_id=run_id, outcome=None)

    def reconfigured(self, number: int, config: TrialConfig) -> None:
        """Record that a trial goes on with its batches in more parts."""
        self._write(number, config=config.model_dump(mode="json"))

    @patient
    def finish(
        self, number: int, state: State, reason: str, score: float | None = None, cost: float | None = None
    ) -> None:
        """Tell how a trial ended.

        A trial that was stopped is told as PRUNED with its intermediate values, never as COMPLETE with the
        score of a short run. One that cannot be trained is told as infeasible where the sampler learns
        from that (a constraint of Optuna's), else as FAIL, and so is one that failed. An interrupted one
        stays in flight, for the study to resume.
        """
        outcome = {"state": state, "reason": reason, "score": score, "cost": cost}
        try:
            self._write(number, infeasible=float(state in INFEASIBLE), outcome=outcome)
            if state != "interrupted":
                self._tell(number, outcome)
        except UpdateFinishedTrialError:  # the server went away when it had heard all
            if outcome_of(self._storage.get_trial(self._id(number))) != outcome:
                raise

    def _tell(self, number: int, outcome: Mapping[str, Any]) -> None:
        state, values = outcome["state"], [outcome["score"], outcome["cost"]][: 1 + self._costs]
        if state == "completed":
            self._study.tell(number, values)
        elif state in ("pruned", "raced_out") or (state in INFEASIBLE and self._learns):
            self._study.tell(number, state=TrialState.PRUNED)
        else:
            self._study.tell(number, state=TrialState.FAIL)

    @patient
    def explain(self, number: int, reason: str) -> None:
        """Replace the reason why a trial ended; Optuna lets nothing be added to a trial that was told."""
        self._study.set_user_attr(f"reason/{number}", reason)

    @patient
    def unfinished(self) -> list[TrialRecord]:
        """Return the trials that were in flight when the study was last stopped.

        One that was stopped while it was being proposed is sampled to the end: Optuna answers the values it
        has drawn already from its storage. One whose end was recorded but not told is told.
        """
        found = []
        for frozen in self._all(TrialState.RUNNING):
            outcome = frozen.user_attrs.get("outcome")
            if outcome and outcome["state"] != "interrupted":
                self._tell(frozen.number, outcome)
                continue
            self._study.sampler = sampler(self._config, frozen.number, self._costs)
            reason = self._sample(optuna.Trial(self._study, frozen._trial_id))
            if reason is None:
                found.append(recorded(self._storage.get_trial(frozen._trial_id), {}))
            else:
                self.finish(frozen.number, "refused", reason)
        return found

    @patient
    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)

    def _asked(self) -> int:
        return sum(trial.state != TrialState.WAITING for trial in self._all())

    def count(self) -> int:
        """Return how many trials have been proposed, without those that the constraints refused."""
        asked = (trial for trial in self._all() if trial.state != TrialState.WAITING)
        return sum(outcome_of(trial).get("state") != "refused" for trial in asked)

    def waiting(self) -> int:
        """Return how many trials are queued."""
        return len(self._all(TrialState.WAITING))

    @patient
    def records(self) -> list[TrialRecord]:
        """Return all trials in the order they were proposed, without those that are queued."""
        explained = self._study.user_attrs
        asked = (trial for trial in self._all() if trial.state != TrialState.WAITING)
        return [recorded(trial, explained) for trial in asked if "config" in trial.user_attrs]

    def ranked(self) -> list[TrialRecord]:
        """Return all trials, the best with all folds first, then those without in order of proposal."""
        records = [record for record in self.records() if record.state != "refused"]
        complete = [record for record in records if record.state == "completed"]
        sign = -1.0 if self.mode == "max" else 1.0
        complete.sort(key=lambda record: (sign * (record.score or 0.0), record.number))
        return complete + [record for record in records if record.state != "completed"]

    @patient
    def spent(self) -> dict[str, float]:
        """Return the hours and GPU-hours that all runs of the study took together."""
        spent: dict[str, float] = self._study.user_attrs.get("spent", {})
        return {"hours": 0.0, "gpu_hours": 0.0} | spent

    @patient
    def spend(self, spent: Mapping[str, float]) -> None:
        """Record the hours and GPU-hours that all runs of the study took together."""
        self._study.set_user_attr("spent", dict(spent))


def read_records(path: Path, study: str) -> list[TrialRecord]:
    """Return the trials of a study by its file, as they were proposed; none where it has not begun.

    Raises
    ------
    MicrosegError
        If they are in a database that cannot be used.
    """
    if not path.is_file() and not path.with_name(database.KEY).is_file():
        return []
    storage, own_name = database.opened(path, study)
    if own_name not in optuna.get_all_study_names(storage):  # killed between making the file and the study
        return []
    found = optuna.load_study(study_name=own_name, storage=storage)
    trials = found.get_trials(deepcopy=False)
    return [recorded(trial, found.user_attrs) for trial in trials if "config" in trial.user_attrs]
