"""How many fold trainings a search needs: the platform, random search, and TPE with all folds of every trial.

Each method searches the same simulated data set (see `responses`, where the true score of a configuration is
known) with the same budget of fold trainings, one trial at a time. A method's answer at any time is the trial
with the best mean over all folds so far; what counts is that trial's true score. A fold that was cut short
counts by its share of epochs; ``begun`` counts it whole.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from measure import PROJECT, spread, terminal, write_json
from responses import Simulated, true_score
from rich.table import Table
from simulation import job

from microseg.config import SearchConfig, TrialConfig, parse, read_yaml
from microseg.search.records import TrialRecord
from microseg.search.scheduler import FoldRace
from microseg.search.trials import Trials
from microseg.search.worker import Reporter
from microseg.space import parse_space
from microseg.tracking.tree import TrialRun

SPACE = PROJECT / "search_spaces" / "unet_family.yaml"
FOLDS = 5
PLATFORM = "platform: TPE, ASHA, race"
FULL = "TPE, all folds"
WHOLE: dict[str, Any] = {"asha": None, "race": None}
METHODS: dict[str, dict[str, Any]] = {
    PLATFORM: {},
    FULL: WHOLE,
    "random, all folds": WHOLE | {"sampler": "random"},
    "TPE, race": {"asha": None},
    "TPE, ASHA": {"race": None},
    "random, ASHA, race": {"sampler": "random"},
}


class Answer(NamedTuple):
    """What a method would answer once so many fold trainings were used: the answer's true score."""

    used: float
    truth: float


class Played(NamedTuple):
    """One study: its answers as they improved or changed, and what it trained."""

    answers: list[Answer]
    trials: int
    used: float
    begun: int

    def at(self, used: float) -> float:
        """Return the true score of the answer at that time; 0 before there is one."""
        return next((answer.truth for answer in reversed(self.answers) if answer.used <= used), 0.0)

    def until(self, truth: float) -> float:
        """Return the fold trainings until the answer was first so good; infinite if never."""
        return next((answer.used for answer in self.answers if answer.truth >= truth), float("inf"))


class StoppedError(Exception):
    """The scheduler ends the trial, as Ray does: out of the report."""


class Study:
    """A study without Ray, MLflow and training: what the searcher does with a report, for one trial at a time."""

    def __init__(self, config: SearchConfig, objective: Simulated, folder: Path) -> None:
        self._trials = Trials(folder / "optuna.db", "study", parse_space(config.space), config)
        self._race = FoldRace(config, objective.epochs, objective.folds)
        self._job = job(config, objective.epochs, folder, objective.folds)
        self._objective = objective
        self._epochs = self._begun = self._ran = 0

    def play(self, budget: float) -> Played:
        """Run trials until so many fold trainings are used."""
        answers, best = [], 0.0
        while self._used() < budget:
            record = self._trials.propose()
            self._ran += 1
            score = self._run(record)
            if score is not None and score > best:
                best = score
                answers.append(Answer(self._used(), true_score(record.config, self._objective.epochs)))
        return Played(answers, self._ran, self._used(), self._begun)

    def _used(self) -> float:
        return self._epochs / self._objective.epochs

    def _run(self, record: TrialRecord) -> float | None:
        """Train a trial; returns its score if it got all folds."""
        run = TrialRun(
            tracking_uri="",
            experiment_id="",
            study="study",
            number=record.number,
            name=record.name,
            run_id="",
        )
        scores: list[float] = []
        try:
            self._train(
                record.config, Reporter(self._job, run, send=lambda result: self._hear(result, scores))
            )
        except StoppedError:
            stopped = self._race.stopped[record.number]
            self._trials.finish(record.number, *stopped)
            return None
        score = statistics.fmean(scores)
        self._trials.finish(record.number, "completed", "all folds", score)
        return score

    def _train(self, config: TrialConfig, reporter: Reporter) -> None:
        for fold in range(self._objective.folds):
            self._begun += 1
            values = []
            for epoch in range(1, self._objective.epochs + 1):
                self._epochs += 1
                values.append(self._objective(config, fold, epoch))
                reporter.epoch(fold, epoch, values[-1])
            known = {"epochs": len(values), "seconds": 0.0, "peak_memory_mib": 0.0, "gpu_memory_mib": 0.0}
            reporter.fold(SimpleNamespace(fold=fold, metrics={"val/dice": max(values)}, **known))

    def _hear(self, result: dict[str, Any], scores: list[float]) -> None:
        stop = self._race.on_trial_result(None, None, result) == "STOP"
        if result["fold"] == 0 or len(result["scores"]) > len(scores):
            self._trials.epoch(result["number"], result["step"], result["objective"])
        if len(result["scores"]) > len(scores):
            scores[:] = result["scores"]
            self._trials.fold(result["number"], scores)
        if stop:
            raise StoppedError


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", type=int, default=100, help="fold trainings")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60, help="of a fold")
    parser.add_argument("--methods", type=int, default=len(METHODS), help="of the table, from the top")
    parser.add_argument("--grace", type=int, default=3)
    parser.add_argument("--reduction", type=int, default=3)
    parser.add_argument("--margin", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def played(given: argparse.Namespace, method: str, seed: int) -> Played:
    values = read_yaml(SPACE)
    values["space"] |= {"epochs": given.epochs}
    ours = {"asha": {"grace": given.grace, "reduction": given.reduction}, "race": {"margin": given.margin}}
    config = parse(SearchConfig, values | ours | {"seed": seed} | METHODS[method], str(SPACE))
    with tempfile.TemporaryDirectory() as folder:
        return Study(config, Simulated(seed, given.epochs, FOLDS), Path(folder)).play(given.budget)


def measure(given: argparse.Namespace) -> dict[str, list[Played]]:
    """Play every method with every seed."""
    methods = list(METHODS)[: given.methods]
    jobs = [(method, seed) for method in methods for seed in range(given.seeds)]
    with ProcessPoolExecutor(given.processes) as pool:
        plays = list(pool.map(played, [given] * len(jobs), *zip(*jobs, strict=True)))
    return {
        method: [play for (name, _), play in zip(jobs, plays, strict=True) if name == method]
        for method in methods
    }


def curves(found: dict[str, list[Played]], budget: int) -> Table:
    """Return the true score of the answer against the fold trainings used."""
    table = Table(title="true score of the answer, median over seeds, by fold trainings used")
    table.add_column("fold trainings", justify="right")
    for method in found:
        table.add_column(method, justify="right")
    for tenth in range(1, 11):
        used = budget * tenth / 10
        scores = (statistics.median(play.at(used) for play in plays) for plays in found.values())
        table.add_row(f"{used:g}", *(f"{score:.4f}" if score else "none yet" for score in scores))
    return table


def summary(found: dict[str, list[Played]], budget: int) -> Table:
    """Return what each method took and found; ratios are by seed."""
    goal = statistics.median(play.at(budget / 2) for play in found[PLATFORM])
    table = Table(title=f"{budget} fold trainings; median over seeds (range)")
    columns = (
        "trials",
        "folds begun",
        "true score",
        f"until {goal:.4f}",
        "seeds that reach it",
        "platform better",
    )
    for name in ("method", *columns):
        table.add_column(name, justify="left" if name == "method" else "right")
    for method, plays in found.items():
        until = [play.until(goal) for play in plays]
        wins = sum(a.at(budget) > b.at(budget) for a, b in zip(found[PLATFORM], plays, strict=True))
        table.add_row(
            method,
            spread([play.trials for play in plays], 0),
            spread([play.begun for play in plays], 0),
            spread([play.at(budget) for play in plays], 4),
            f"{statistics.median(until):.0f}",
            f"{sum(play <= budget for play in until)} of {len(until)}",
            "" if method == PLATFORM else f"{wins} of {len(plays)}",
        )
    return table


def half(found: dict[str, list[Played]], budget: int) -> str:
    """Say whether half of the fold trainings give the score that TPE with all folds has with all of them."""
    ours = [play.at(budget / 2) for play in found[PLATFORM]]
    full = [play.at(budget) for play in found[FULL]]
    needed = [play.until(goal) / budget for play, goal in zip(found[PLATFORM], full, strict=True)]
    return (
        f"platform with {budget / 2:g} fold trainings: {statistics.median(ours):.4f}, {FULL} with {budget}: "
        f"{statistics.median(full):.4f}; better or equal in {sum(np.greater_equal(ours, full))} of {len(ours)} "
        f"seeds. Of the fold trainings the platform needs {spread(needed, 2)} to reach it, by seed"
    )


def main() -> None:
    given, console = arguments(), terminal()
    found = measure(given)
    console.print(curves(found, given.budget))
    console.print(summary(found, given.budget))
    console.print(half(found, given.budget), highlight=False, soft_wrap=True)
    write_json(given.json, {method: [play._asdict() for play in plays] for method, plays in found.items()})


if __name__ == "__main__":
    main()
