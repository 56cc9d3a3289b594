"""A study without Ray, MLflow and training, in simulated time: what the searcher does with a report.

Trainings take the time that `responses.seconds` states, on as many workers as there are, each with a GPU of
its own. Who reports next follows from that time.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from optuna.storages import InMemoryStorage
from responses import START, Simulated, seconds, true_score
from simulation import job

from microseg.config import SearchConfig, TrialConfig
from microseg.search import trials as stored
from microseg.search.records import TrialRecord
from microseg.search.scheduler import FoldRace
from microseg.search.trials import Trials
from microseg.search.worker import Reporter
from microseg.space import parse_space
from microseg.tracking.tree import TrialRun


class Answer(NamedTuple):
    """What a method would answer from then on: after so many fold trainings, GPU-hours and hours; its true score."""

    used: float
    gpu_hours: float
    hours: float
    truth: float


class Played(NamedTuple):
    """One study: its answers as they changed, and what it trained in all."""

    answers: list[Answer]
    trials: int
    begun: int
    used: float
    gpu_hours: float
    hours: float

    def at(self, limit: float, axis: str = "used") -> Answer | None:
        """Return the answer at that time on an axis; None before there is one."""
        return next((one for one in reversed(self.answers) if getattr(one, axis) <= limit), None)

    def until(self, truth: float) -> float:
        """Return the fold trainings until the answer was first so good; infinite if never."""
        return next((answer.used for answer in self.answers if answer.truth >= truth), float("inf"))


class StoppedError(Exception):
    """The scheduler ends the trial, as Ray does: out of the report."""


class Study:
    """A study on a simulated data set.

    Its answer is the trial with the best mean over its folds. With one fold, that is the first fold's score.
    """

    def __init__(
        self, config: SearchConfig, objective: Simulated, folder: Path, folds: int, workers: int = 1
    ) -> None:
        with mock.patch.object(stored, "OneWriter", lambda storage: InMemoryStorage()):  # a third of the time
            self.trials = Trials(folder / "optuna.db", "study", parse_space(config.space), config)
        self._race = FoldRace(config, objective.epochs, folds)
        self._job = job(config, objective.epochs, folder, folds)
        self._objective, self._workers = objective, workers
        self._epochs = self._begun = self._ran = 0
        self._now = self._busy = self._best = 0.0  # seconds
        self._answers: list[Answer] = []

    def play(self, budget: float, trials: int = 10**9) -> Played:
        """Begin trials until so many fold trainings are used, or so many trials begun, and end them all."""
        events: list[tuple[float, int, Iterator[float]]] = []
        while True:
            while len(events) < self._workers and self._used() < budget and self._ran < trials:
                record = self.trials.propose()
                self._ran += 1
                heapq.heappush(events, (self._now, record.number, self._run(record)))
            if not events:
                return Played(self._answers, self._ran, self._begun, *self._spent())
            self._now, number, training = heapq.heappop(events)
            lasts = next(training, None)
            if lasts is not None:
                self._busy += lasts
                heapq.heappush(events, (self._now + lasts, number, training))

    def _used(self) -> float:
        return self._epochs / self._objective.epochs

    def _spent(self) -> tuple[float, float, float]:
        return self._used(), self._busy / 3600, self._now / 3600

    def _run(self, record: TrialRecord) -> Iterator[float]:
        """Train a trial and tell how it ended; yields how long what follows lasts."""
        names = dict.fromkeys(("tracking_uri", "experiment_id", "study", "run_id"), "")
        run = TrialRun(number=record.number, name=record.name, **names)
        scores: list[float] = []
        reporter = Reporter(self._job, run, send=lambda result: self._hear(result, scores))
        try:
            yield from self._train(record.config, reporter)
        except StoppedError:
            self.trials.finish(record.number, *self._race.stopped[record.number])
            return
        score = statistics.fmean(scores)
        self.trials.finish(record.number, "completed", "all folds", score)
        if score > self._best:
            self._best = score
            self._answers.append(Answer(*self._spent(), true_score(record.config, self._objective.epochs)))

    def _train(self, config: TrialConfig, reporter: Reporter) -> Iterator[float]:
        each = seconds(config)
        yield START
        for fold in range(len(self._job.folds)):
            self._begun += 1
            values = []
            for epoch in range(1, self._objective.epochs + 1):
                yield each
                self._epochs += 1
                values.append(self._objective(config, fold, epoch))
                reporter.epoch(fold, epoch, values[-1])
            known = {"epochs": len(values), "seconds": 0.0, "peak_memory_mib": 0.0, "gpu_memory_mib": 0.0}
            reporter.fold(SimpleNamespace(fold=fold, metrics={"val/dice": max(values)}, **known))

    def _hear(self, result: dict[str, Any], scores: list[float]) -> None:
        stop = self._race.on_trial_result(None, None, result) == "STOP"
        if result["fold"] == 0 or len(result["scores"]) > len(scores):
            self.trials.epoch(result["number"], result["step"], result["objective"])
        if len(result["scores"]) > len(scores):
            scores[:] = result["scores"]
            self.trials.fold(result["number"], scores)
        if stop:
            raise StoppedError
