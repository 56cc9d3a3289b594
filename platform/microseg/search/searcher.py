"""Ray Tune's view of a study: proposes from Optuna, tells it the truth, ends the runs in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from ray.tune.search import Searcher

from microseg.config import TrialConfig
from microseg.search import incidents
from microseg.search.job import Job
from microseg.search.records import State, TrialRecord
from microseg.search.resources import Packing
from microseg.search.scheduler import FoldRace
from microseg.search.state import forget
from microseg.search.trials import Trials
from microseg.tracking import tree
from microseg.tracking.recorder import flatten
from microseg.tracking.tree import StudyRun, TrialRun
from microseg.training import discard_checkpoints

KNOWN = ("seconds", "epochs", "cost", "memory_mib", "gpu_memory_mib")


class Live(NamedTuple):
    """A trial in flight: its run, the last step and fold that are recorded, and what it said last."""

    run: TrialRun
    config: TrialConfig
    step: int
    folds: int
    last: dict[str, Any]


class StudySearcher(Searcher):
    """Proposes a study's trials to Ray Tune: first those left in flight, then new ones.

    Ray's own `OptunaSearch` tells Optuna a stopped trial as complete with the score of a short run,
    and lets a trial whose score is NaN stay running; here a trial ends with its state, in Optuna and
    in MLflow. What is reported twice, by a worker that was started again, is recorded once.

    Parameters
    ----------
    trials : Trials
        The study in Optuna's storage.
    total : int
        How many trials the study has, those of earlier runs included.
    runs : MlflowClient, StudyRun
        The study's run in MLflow.
    race : FoldRace
        The scheduler, which knows why it stopped a trial.
    packing : Packing
        What each trial asks of the machine.
    job : Job
        Where trials keep their state; of one that has ended, what only an attempt needs is deleted.
    """

    def __init__(
        self,
        trials: Trials,
        total: int,
        runs: tuple[MlflowClient, StudyRun],
        race: FoldRace,
        packing: Packing,
        job: Job,
    ) -> None:
        super().__init__(metric="objective", mode=trials.mode)
        self._trials = trials
        self._total = total
        self._client, self._study = runs
        self._race = race
        self._packing = packing
        self._job = job
        self._left = trials.unfinished()
        self._live: dict[str, Live] = {}
        records = trials.records()
        race.replay(records)
        for record in records:
            if record.scores:
                packing.measured(record.memory_mib, record.gpu_memory_mib)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override] # FINISHED is text
        """Return the settings of the next trial, or that there is none."""
        if self._race.exhausted():
            return str(Searcher.FINISHED)
        if self._left:
            record = self._left.pop(0)
        elif self._trials.count() < self._total:
            record = self._trials.propose()
        else:
            return str(Searcher.FINISHED)
        run = self._open(record)
        self._live[trial_id] = Live(run, record.config, max(record.steps, default=0), len(record.scores), {})
        share = self._packing.share()
        return {
            "config": record.config.model_dump(mode="json"),
            "trial": run.model_dump(mode="json"),
            "share": {"cpu": share.cpus, "gpu": share.gpus, "memory": share.memory},
            "threads": max(1, int(share.cpus)),
            "followed": self._to_come() >= self._packing.concurrency,
        }

    def _to_come(self) -> int:
        """Return how many trials are not proposed yet."""
        return len(self._left) + max(0, self._total - self._trials.count())

    def _open(self, record: TrialRecord) -> TrialRun:
        values = flatten(record.config.model_dump(mode="json"))
        run = tree.open_trial(
            self._client, self._study, record.name, values, record.number, record.replicate_of
        )
        self._trials.started(record.number, run.run_id)
        return run

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a step in Optuna, once."""
        live = self._live[trial_id]
        number, step, scores = live.run.number, result["step"], result["scores"]
        if result["accumulation"] != live.config.accumulation:
            live = live._replace(
                config=live.config.model_copy(update={"accumulation": result["accumulation"]})
            )
            self._trials.reconfigured(number, live.config)
            self._client.set_tag(live.run.run_id, "microseg.accumulation", str(live.config.accumulation))
        if step > live.step:
            self._trials.epoch(number, step, result["objective"])
        if len(scores) > live.folds:
            known = {name: result[name] for name in KNOWN if name in result}
            self._trials.fold(number, scores, **known)
            self._packing.measured(result["memory_mib"], result["gpu_memory_mib"])
        self._live[trial_id] = live._replace(
            step=max(step, live.step), folds=max(len(scores), live.folds), last=result
        )

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how a trial ended; without an outcome of its own, the scheduler stopped it."""
        if result:  # Ray hands the report at which the trial was stopped to this method alone
            self.on_trial_result(trial_id, result)
        live = self._live.pop(trial_id)
        state, reason = self._outcome(live, error)
        score = live.last["objective"] if state == "completed" else None
        self._trials.finish(live.run.number, state, reason, score, live.last.get("cost"))
        tree.end_children(self._client, live.run.experiment_id, live.run.run_id, state, reason)
        tree.end(self._client, live.run.run_id, state, reason)
        if state != "interrupted":
            discard_checkpoints(self._job.workdir / live.run.name)
        if self._job.store and state not in ("interrupted", "completed"):
            forget(f"{self._job.store}/{live.run.name}")

    def _outcome(self, live: Live, error: bool) -> tuple[State, str]:
        if "state" in live.last:  # also where the worker failed after it had said all
            return live.last["state"], live.last["reason"]
        known = incidents.read(self._job.workdir / live.run.name) if error else []
        if given_up := incidents.hopeless(known, live.config):
            return given_up.state, given_up.text  # no attempt lived long enough to say so itself
        if error:
            return "failed", "the worker failed" + (
                f" in epoch {live.last['epoch'] + 1}" if live.last else " before its first epoch"
            )
        return self._race.stopped.pop(live.run.number)

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


def reconcile(client: MlflowClient, study: StudyRun, records: list[TrialRecord]) -> None:
    """End runs that MLflow has as running or interrupted although their trial ended.

    The driver was killed, or MLflow was away, between telling Optuna and telling MLflow.
    """
    ended = {record.run_id: record for record in records if record.state not in ("running", "interrupted")}
    for run in list(tree.children(client, study.experiment_id, study.run_id)):
        record = ended.get(run.info.run_id)
        if record and tree.unfinished(run):
            tree.end_children(client, study.experiment_id, run.info.run_id, record.state, record.reason)
            tree.end(client, run.info.run_id, record.state, record.reason)
