"""The driver of a study with so many trials behind it and in flight: what each thing it does takes.

Trials that ended are drawn at random and simulated (see `search_study`); those in flight were cut at a random
epoch of a random fold, and between two proposals some of them report. MLflow's store is new.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import optuna
from measure import PROJECT
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import TrialState
from responses import Simulated
from search_study import Played, Study
from simulation import MACHINE, job

from microseg.config import SearchConfig, parse, read_yaml
from microseg.search import trials as stored
from microseg.search.resources import Packing
from microseg.search.scheduler import FoldRace
from microseg.search.searcher import StudySearcher
from microseg.search.trials import Trials
from microseg.space import parse_space
from microseg.tracking import store, tree

SPACE = PROJECT / "search_spaces" / "unet_family.yaml"
EPOCHS, FOLDS = 60, 5
OURS, THEIRS = "platform's", "Optuna's"
CACHES = {OURS: stored.OneWriter, THEIRS: _CachedStorage}
DID = ("proposal", "opening", "epoch of fold 1", "epoch of a later fold", "fold", "end")


class Size(NamedTuple):
    """How many trials a study has behind it and in flight, and which cache it reads them through."""

    ended: int
    flying: int
    cache: str = OURS


def settings(**changes: Any) -> SearchConfig:
    return parse(SearchConfig, read_yaml(SPACE) | {"trials": 10**6} | changes, str(SPACE))


def simulated(count: int, folder: Path) -> tuple[Played, list[optuna.trial.FrozenTrial]]:
    """Search at random for so many trials; returns what they took, and them."""
    study = Study(settings(sampler="random"), Simulated(0, EPOCHS, FOLDS), folder, FOLDS)
    return study.play(float("inf"), count), study.trials._study.get_trials(deepcopy=False)


def begun(trial: optuna.trial.FrozenTrial, rng: np.random.Generator) -> optuna.trial.FrozenTrial:
    """Return a trial in flight, as a longer training of this one's configuration might stand."""
    folds, epoch = divmod(int(rng.integers(FOLDS * EPOCHS)), EPOCHS)
    return optuna.trial.create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions,
        user_attrs={"config": trial.user_attrs["config"], "measured": {"scores": [0.5] * folds}},
        intermediate_values=dict.fromkeys(range(1, (EPOCHS if folds else epoch) + 1), 0.5),
    )  # fmt: skip


def fill(trials: Sequence[optuna.trial.FrozenTrial], sizes: Sequence[int], folder: Path) -> None:
    """Write studies of the first so many trials."""
    study = Trials(folder / "filled.db", "study", parse_space(settings().space), settings())._study
    for number, trial in enumerate(trials, 1):
        study.add_trial(trial)
        if number in sizes:
            shutil.copyfile(folder / "filled.db", folder / f"{number}.db")


class Driver:
    """The driver of a study that goes on, with the seconds of the processor that each thing takes."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        config, self.took = settings(), {name: [] for name in DID}
        trials = Trials(folder / "optuna.db", "study", parse_space(config.space), config)
        client = store.connect(f"sqlite:///{folder}/mlflow.db")
        self.race, work = FoldRace(config, EPOCHS, FOLDS), job(config, EPOCHS, folder, FOLDS)
        runs = client, tree.open_study(client, "study")
        self.searcher = StudySearcher(trials, config.trials, runs, self.race, Packing(config, MACHINE), work)
        trials.propose = partial(self.timed, "proposal", trials.propose)  # type: ignore[method-assign]
        self._rng, self._names = np.random.default_rng(seed), map(str, itertools.count())

    def timed(self, name: str, do: Callable[..., Any], *given: Any) -> Any:
        before = time.process_time()
        result = do(*given)
        self.took[name].append(time.process_time() - before)
        return result

    def take_up(self, count: int) -> list[str]:
        """Take up what was left in flight."""
        names = [next(self._names) for _ in range(count)]
        for name in names:
            self.searcher.suggest(name)
        return names

    def live(self, others: list[str], between: int) -> None:
        """Take a trial from its proposal to its end, after so many reports of others."""
        for name in self._rng.choice(others, between):
            live = self.searcher._live[str(name)]
            self.hear(str(name), min(live.step + 1, EPOCHS), (0.5,) * live.folds)
        name = next(self._names)
        self.timed("opening", self.searcher.suggest, name)
        self.timed("epoch of fold 1", self.hear, name, 1, ())
        self.timed("fold", self.hear, name, EPOCHS + 1, (0.95,))
        self.timed("epoch of a later fold", self.hear, name, EPOCHS + 1, (0.95,))
        self.hear(name, EPOCHS + 4, (0.95,) * 4)
        ended = {"state": "completed", "reason": "all folds"}
        self.timed(
            "end", self.searcher.on_trial_complete, name, self._result(name, EPOCHS + 5, (0.95,) * 5) | ended
        )

    def hear(self, name: str, step: int, scores: tuple[float, ...]) -> None:
        """Hear a report as Ray's controller does."""
        result = self._result(name, step, scores)
        self.race.on_trial_result(None, None, result)
        self.searcher.on_trial_result(name, result)

    def _result(self, name: str, step: int, scores: tuple[float, ...]) -> dict[str, Any]:
        number = self.searcher._live[name].run.number
        costs = {
            "memory_mib": 800.0,
            "gpu_memory_mib": 0.0,
            "accumulation": 1,
            "epoch": 1,
            "fold": len(scores),
        }
        return {"number": number, "step": step, "objective": 0.5, "scores": list(scores)} | costs


def resident() -> float:
    """Return the MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measured(
    size: Size, folder: Path, flight: Sequence[optuna.trial.FrozenTrial], between: int, rounds: int
) -> dict[str, Any]:
    """Return what each thing takes at a size: milliseconds of the processor, median over so many trials."""
    rng, before = np.random.default_rng(0), resident()
    with (
        tempfile.TemporaryDirectory(dir=folder) as own,
        mock.patch.object(stored, "OneWriter", CACHES[size.cache]),
    ):
        shutil.copyfile(folder / f"{size.ended}.db", Path(own, "optuna.db"))
        trials = Trials(Path(own, "optuna.db"), "study", parse_space(settings().space), settings())
        trials._study.add_trials([begun(trial, rng) for trial in flight[: size.flying]])
        cpu = time.process_time()
        driver = Driver(Path(own))
        found: dict[str, Any] = {**size._asdict(), "start": time.process_time() - cpu}
        others = driver.take_up(size.flying)
        driver.took = {name: [] for name in DID}
        for _ in range(rounds):
            driver.live(others, between)
    found |= {name: 1000 * statistics.median(took) for name, took in driver.took.items()}
    found["opening"] -= found["proposal"]  # the one holds the other
    return found | {"mib": resident() - before}
