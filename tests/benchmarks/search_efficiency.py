"""How good an answer a search has after so many fold trainings, GPU-hours and hours, and what it lacks.

Each method searches the same simulated data set (see `responses`, where the true score of a configuration is
known, and that of the best one) with the same budget of fold trainings: one trial at a time, and several at
once. A method's answer at any time is the trial with the best mean over all of its folds so far, which for a
method of one fold is that fold's score; what counts is that trial's true score, and its distance to the best of
the space, the simple regret. A fold that was cut short counts by its share of epochs; ``begun`` counts it whole.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from measure import PROJECT, spread, terminal, write_json
from responses import LAW, Simulated, best_score
from rich.table import Table
from search_study import Played, Study

from microseg.config import SearchConfig, parse, read_yaml

SPACE = PROJECT / "search_spaces" / "unet_family.yaml"
FOLDS = 5
PLATFORM = "platform: TPE, ASHA, race"
FULL = "TPE, all folds"
WHOLE: dict[str, Any] = {"asha": None, "race": None}
METHODS: dict[str, tuple[dict[str, Any], int]] = {  # settings and folds
    PLATFORM: ({}, FOLDS),
    "random, all folds": (WHOLE | {"sampler": "random"}, FOLDS),
    FULL: (WHOLE, FOLDS),
    "random, ASHA, one fold": ({"race": None, "sampler": "random"}, 1),
    "TPE, ASHA, one fold": ({"race": None}, 1),
    "TPE, race": ({"asha": None}, FOLDS),
    "TPE, ASHA": ({"race": None}, FOLDS),
    "random, ASHA, race": ({"sampler": "random"}, FOLDS),
}
AXES = {"used": "fold trainings", "gpu_hours": "GPU-hours", "hours": "hours"}

Found = dict[str, list[Played]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", type=int, default=100, help="fold trainings")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60, help="of a fold")
    parser.add_argument("--methods", type=int, default=5, help=f"of {len(METHODS)}, from the top of the list")
    parser.add_argument("--workers", type=int, default=4, help="trials at once, where there are several")
    parser.add_argument("--grace", type=int, default=3)
    parser.add_argument("--reduction", type=int, default=3)
    parser.add_argument("--margin", type=float, default=1.0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def played(given: argparse.Namespace, method: str, workers: int, seed: int) -> Played:
    values, (changes, folds) = read_yaml(SPACE), METHODS[method]
    values["space"] |= {"epochs": given.epochs}
    ours = {"asha": {"grace": given.grace, "reduction": given.reduction}, "race": {"margin": given.margin}}
    config = parse(SearchConfig, values | ours | {"seed": seed} | changes, str(SPACE))
    with tempfile.TemporaryDirectory() as folder:
        study = Study(config, Simulated(seed, given.epochs, FOLDS), Path(folder), folds, workers)
        return study.play(given.budget)


def measure(given: argparse.Namespace) -> dict[int, Found]:
    """Play every method with every seed; returns what was found by trials at once."""
    methods, seeds = list(METHODS)[: given.methods], range(given.seeds)
    jobs = list(itertools.product(methods, (1, given.workers), seeds))
    with ProcessPoolExecutor(given.processes) as pool:
        plays = dict(zip(jobs, pool.map(played, [given] * len(jobs), *zip(*jobs, strict=True)), strict=True))
    return {
        workers: {method: [plays[method, workers, seed] for seed in seeds] for method in methods}
        for workers in (1, given.workers)
    }


def truths(plays: list[Played], limit: float, axis: str = "used") -> list[float]:
    """Return the true scores of the answers at a time; 0 before there is one."""
    answers = [play.at(limit, axis) for play in plays]
    return [answer.truth if answer else 0.0 for answer in answers]


def course(found: dict[int, Found], given: argparse.Namespace, best: float) -> Table:
    """Return the true score of the answer, and its regret, against what was spent."""
    table = Table(
        title=f"true score of the answer (regret), median over {given.seeds} seeds; the best is {best:.4f}"
    )
    for name in ("at once", "spent", *found[1]):
        table.add_column(name, justify="right")
    for workers, axis in ((1, "used"), (1, "gpu_hours"), (given.workers, "used"), (given.workers, "hours")):
        spent = [
            statistics.median(getattr(play, axis) for play in plays) for plays in found[workers].values()
        ]
        most = given.budget if axis == "used" else min(spent)
        for fifth in range(1, 6):
            limit = most * fifth / 5
            scores = [statistics.median(truths(plays, limit, axis)) for plays in found[workers].values()]
            cells = (f"{score:.4f} ({best - score:.4f})" if score else "none yet" for score in scores)
            table.add_row(str(workers), f"{limit:.3g} {AXES[axis]}", *cells, end_section=fifth == 5)
    return table


def summary(found: dict[int, Found], given: argparse.Namespace, best: float) -> Table:
    """Return what each method took and found; the platform is compared by seed."""
    table = Table(title=f"{given.budget} fold trainings; median over seeds (range)")
    columns = (
        "at once",
        "trials",
        "folds begun",
        "GPU-hours",
        "hours",
        "true score",
        "regret",
        "platform better",
    )
    for name in ("method", *columns):
        table.add_column(name, justify="left" if name == "method" else "right")
    for workers, methods in found.items():
        ours = truths(methods[PLATFORM], given.budget)
        for method, plays in methods.items():
            scores = truths(plays, given.budget)
            wins = sum(a > b for a, b in zip(ours, scores, strict=True))
            table.add_row(
                method,
                str(workers),
                spread([play.trials for play in plays], 0),
                spread([play.begun for play in plays], 0),
                spread([play.gpu_hours for play in plays], 2),
                spread([play.hours for play in plays], 2),
                spread(scores, 4),
                spread([best - score for score in scores], 4),
                "" if method == PLATFORM else f"{wins} of {len(plays)}",
            )
    return table


def half(found: Found, budget: int) -> str:
    """Say whether half of the fold trainings give the score that TPE with all folds has with all of them."""
    ours, full = truths(found[PLATFORM], budget / 2), truths(found[FULL], budget)
    needed = [play.until(goal) / budget for play, goal in zip(found[PLATFORM], full, strict=True)]
    return (
        f"platform with {budget / 2:g} fold trainings: {statistics.median(ours):.4f}, {FULL} with {budget}: "
        f"{statistics.median(full):.4f}; better or equal in {sum(np.greater_equal(ours, full))} of {len(ours)} "
        f"seeds. Of the fold trainings the platform needs {spread(needed, 2)} to reach it, by seed"
    )


def main() -> None:
    given, console = arguments(), terminal()
    found, best = measure(given), best_score(given.epochs)
    console.print(course(found, given, best))
    console.print(summary(found, given, best))
    for line in (half(found[1], given.budget), f"Time: {LAW}"):
        console.print(line, highlight=False, soft_wrap=True)
    record = {
        method: {workers: [play._asdict() for play in found[workers][method]] for workers in found}
        for method in found[1]
    }
    write_json(given.json, {"best": best, "methods": record})


if __name__ == "__main__":
    main()
