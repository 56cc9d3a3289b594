"""Ray Tune's view of a study: proposes from Optuna, tells it the truth, ends the runs in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from ray.tune.search import Searcher

from microseg.config import TrialConfig
from microseg.search.trials import State, Trials
from microseg.tracking import tree
from microseg.tracking.recorder import flatten
from microseg.tracking.tree import StudyRun, TrialRun


class StudySearcher(Searcher):
    """Proposes a study's trials to Ray Tune: first those left in flight, then new ones.

    Ray's own `OptunaSearch` tells Optuna a stopped trial as complete with the score of a short run,
    and lets a trial whose score is NaN stay running; here a trial ends with its state, in Optuna and
    in MLflow.

    Parameters
    ----------
    trials : Trials
        The study in Optuna's storage.
    total : int
        How many trials the study has, those of earlier runs included.
    client : MlflowClient
        The tracking store.
    study : StudyRun
        The study's run in it.
    """

    def __init__(self, trials: Trials, total: int, client: MlflowClient, study: StudyRun) -> None:
        super().__init__(metric="objective", mode=trials.mode)
        self._trials = trials
        self._total = total
        self._client = client
        self._study = study
        self._left = trials.unfinished()
        self._live: dict[str, TrialRun] = {}
        self._last: dict[str, dict[str, Any]] = {}

    def todo(self) -> int:
        """Return how many trials are still to be run, those left in flight included."""
        return max(0, self._total - self._trials.count()) + len(self._left)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override] # FINISHED is text
        """Return the settings of the next trial, or that there is none."""
        if self._left:
            number, config = self._left.pop(0)
        elif self._trials.count() < self._total:
            number, config = self._trials.propose()
        else:
            return str(Searcher.FINISHED)
        run = self._open(number, config)
        self._live[trial_id] = run
        return {"config": config.model_dump(mode="json"), "trial": run.model_dump(mode="json")}

    def _open(self, number: int, config: TrialConfig) -> TrialRun:
        values = config.model_dump(mode="json")
        run = tree.open_trial(self._client, self._study, number, flatten(values))
        self._trials.started(number, run.run_id)
        return run

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a step in Optuna."""
        run = self._live[trial_id]
        last = self._last.get(trial_id, {})
        self._last[trial_id] = result
        if result["step"] > last.get("step", 0):
            self._trials.epoch(run.number, result["step"], result["objective"])
        if len(result["scores"]) > len(last.get("scores", ())):
            self._trials.fold(run.number, result["scores"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how a trial ended; without an outcome of its own, the scheduler stopped it."""
        if result:  # Ray hands the report at which ASHA stopped the trial to this method alone
            self.on_trial_result(trial_id, result)
        run = self._live.pop(trial_id)
        last = self._last.pop(trial_id, {})
        state, reason = _outcome(last, error)
        self._trials.finish(run.number, state, reason, last["objective"] if state == "completed" else None)
        tree.end_children(self._client, run.experiment_id, run.run_id, state, reason)
        tree.end(self._client, run.run_id, state, reason)

    def explain(self, settings: dict[str, Any], text: str) -> None:
        """Add an error's text to the record of a trial that failed."""
        run = TrialRun.model_validate(settings["trial"])
        self._trials.explain(run.number, text)
        self._client.set_tag(run.run_id, tree.REASON, text)

    def save(self, checkpoint_path: str) -> None:
        """Write what Ray keeps of a searcher: nothing but a note, the truth is in Optuna's storage."""
        Path(checkpoint_path).write_text(json.dumps({"trials": self._trials.count()}), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the trials left in flight were read from Optuna's storage."""


def _outcome(last: dict[str, Any], error: bool) -> tuple[State, str]:
    if error:
        return "failed", "the worker failed" + (
            f" in epoch {last['epoch'] + 1}" if last else " before its first epoch"
        )
    if "state" in last:
        return last["state"], last["reason"]
    return "pruned", f"ASHA at epoch {last['step']}" if last else "stopped before its first epoch"
