"""A study without Ray and without training: the real searcher, race and tracker, driven in one process.

A simulated training tells its curve through the same listener as a real one; who reports next is drawn from
a seed, as several workers would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from microseg.config import SearchConfig, TrialConfig
from microseg.data.manifest import Item, Manifest
from microseg.folds import Fold
from microseg.search.job import Job
from microseg.search.resources import Node, Packing
from microseg.search.scheduler import FoldRace, rungs
from microseg.search.searcher import StudySearcher, reconcile
from microseg.search.trials import Trials
from microseg.search.worker import Reporter, listener
from microseg.tracking.recorder import Recorder
from microseg.tracking.tree import TrialRun
from microseg.training.results import FoldResult, Progress

MACHINE = (Node(cpus=64.0, gpus=0.0, memory=2.0**40),)

Objective = Callable[[TrialConfig, int, int], float]  # configuration, fold, epoch -> val/dice


def manifest(images: int = 10) -> Manifest:
    """Return a data set whose images nobody opens."""
    items = [
        Item(
            name=f"i{n}", images=(Path(f"i{n}.png"),), mask=Path(f"m{n}.png"), group=f"g{n}", height=64, width=64,
            hashes=(f"{n:064d}",) * 2,
        )
        for n in range(images)
    ]  # fmt: skip
    return Manifest(name="simulated", source="nowhere", channels=1, mask_kind="binary", items=tuple(items))


def job(config: SearchConfig, epochs: int, workdir: Path, folds: int = 5) -> Job:
    """Return what the trials of a simulated study have in common."""
    parts = tuple(Fold(index=n, train=("i0",), valid=("i1",)) for n in range(folds))
    return Job(
        manifest=manifest(), folds=parts, metric=config.metric, mode=config.mode, epochs=epochs,
        rungs=rungs(config, epochs), workdir=workdir, cache=workdir / "cache", against=config.against,
        curves=config.curves,
    )  # fmt: skip


class Workers:
    """Stand-ins for Ray's workers: each trial in flight is a generator of what it reports."""

    def __init__(self, job: Job, objective: Objective, seed: int = 0) -> None:
        self.job, self.objective = job, objective
        self.trained: dict[int, int] = {}  # fold trainings begun, by trial
        self.epochs = 0
        self._rng = np.random.default_rng(seed)

    def train(self, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Report what a worker would, fold after fold, epoch after epoch."""
        config, trial = (
            TrialConfig.model_validate(settings["config"]),
            TrialRun.model_validate(settings["trial"]),
        )
        outbox: deque[dict[str, Any]] = deque()
        recorder = Recorder(trial, config, self.job.folds, self.job.curves, self.job.metric)
        hear = listener(recorder, Reporter(self.job, trial, config.accumulation, outbox.append), self.job)
        for fold in self.job.folds:
            self.trained[trial.number] = self.trained.get(trial.number, 0) + 1
            for progress in self._fold(config, fold):
                hear(progress)
                while outbox:
                    yield outbox.popleft()

    def _fold(self, config: TrialConfig, fold: Fold) -> Iterator[Progress]:
        history: list[dict[str, float]] = []
        for epoch in range(1, config.epochs + 1):
            self.epochs += 1
            value = self.objective(config, fold.index, epoch)
            history.append({"val/loss": 1.0 - value, "val/dice": value})
            yield Progress(fold.index, epoch, history[-1])
        best = max(range(len(history)), key=lambda epoch: history[epoch]["val/dice"])
        result = FoldResult(
            fold=fold.index, state="completed", best_epoch=best + 1, epochs=len(history), metrics=history[best],
            per_image={}, seconds=1.0, parameters=1000, peak_memory_mib=800.0, gpu_memory_mib=0.0,
            model=self.job.workdir / "model.keras", history=history, fingerprint="",
        )  # fmt: skip
        yield Progress(fold.index, best + 1, result.metrics, (), result)


def run(
    config: SearchConfig, trials: Trials, workers: Workers, runs: Any, stop_after: int | None = None
) -> FoldRace:
    """Run a study as `microseg.search.runner` does; ``stop_after`` so many reports, as if killed."""
    reconcile(*runs, trials.records())
    race = FoldRace(config, workers.job.epochs, len(workers.job.folds))
    searcher = StudySearcher(trials, config.trials, runs, race, Packing(config, MACHINE), workers.job)
    live: dict[str, Iterator[dict[str, Any]]] = {}
    names = iter(range(10**9))
    heard, asking = 0, True
    while True:
        while asking and len(live) < config.concurrency:
            name = str(next(names))
            settings = searcher.suggest(name)
            if isinstance(settings, str):
                asking = False  # Ray does not ask again either
            else:
                live[name] = workers.train(settings)
        if not live:
            return race
        name = list(live)[int(workers._rng.integers(len(live)))]
        result = next(live[name])
        heard += 1
        if stop_after is not None and heard > stop_after:
            return race
        _hear(race, searcher, live, name, result)


def _hear(
    race: FoldRace, searcher: StudySearcher, live: dict[str, Iterator[Any]], name: str, result: dict[str, Any]
) -> None:
    """Do what Ray's controller does with a report."""
    trial = SimpleNamespace(trial_id=name)
    if race.on_trial_result(None, trial, result) == "STOP":
        live.pop(name).close()  # type: ignore[attr-defined] # a generator
        searcher.on_trial_complete(name, result)
        return
    searcher.on_trial_result(name, result)
    if "state" in result:
        del live[name]
        searcher.on_trial_complete(name, result)
