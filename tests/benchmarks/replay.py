"""Published scores as a search: 44 configurations of networks for AFM images, whose 5 folds are told one by one.

The configurations come in many random orders, and so do their folds. A method's answer at any time is the
configuration with the best mean over the folds that it asks for; what counts is that one's mean over all 5
folds, and its distance to the best of the table, the regret in the table's own metric.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from measure import PROJECT, terminal, write_json
from rich.table import Table

from microseg.statistics import decide

COLLAPSED = 0.0  # the Dice of a network that finds only background; its trial ends, whatever the race says
FOLDS = 5
METHODS = {  # folds of a configuration, the race's factor, trials at once
    "platform's race": (FOLDS, 1.0, 1),
    "platform's race, 4 at once": (FOLDS, 1.0, 4),
    "random, all folds": (FOLDS, math.inf, 1),
    "random, one fold": (1, math.inf, 1),
}
WITHOUT = {
    "TPE, all folds": "cannot be replayed: the table is no space to propose from",
    "ASHA, one fold": "cannot be replayed: the table has no epochs to stop at",
}

Rows = Sequence[tuple[float, ...]]


class Replay(NamedTuple):
    """What a study did: the rows that got all folds, after how many fold trainings each, drops, trainings in all."""

    finished: list[int]
    after: list[int]
    drops: list[bool]
    trainings: int


def results() -> pd.DataFrame:
    """Return the published table."""
    shared = Path(os.environ.get("MICROSEG_SHARED", PROJECT.parent / "shared"))
    return pd.read_csv(shared / "reference" / "afm_cv_results.csv")


def scores_of(table: pd.DataFrame) -> list[tuple[float, ...]]:
    """Return its fold scores, a row for each configuration."""
    return [tuple(row) for row in table[[f"fold{k}" for k in range(1, FOLDS + 1)]].to_numpy().tolist()]


def replay(table: Rows, rng: random.Random, *, concurrency: int = 1, factor: float = 1.0) -> Replay:
    """Run a study whose scores are known: at each step one of the trials in flight finishes a fold."""
    waiting, flying = iter(range(len(table))), []
    done = Replay([], [], [], 0)
    while flying := flying + [(row, []) for row in itertools.islice(waiting, concurrency - len(flying))]:
        row, scores = flying.pop(rng.randrange(len(flying)))
        scores.append(table[row][len(scores)])
        done = done._replace(trainings=done.trainings + 1)
        if scores[-1] == COLLAPSED:
            continue
        if len(scores) == len(table[row]):
            done.finished.append(row)
            done.after.append(done.trainings)
        else:
            verdict = decide(scores, [table[other] for other in done.finished], factor)
            done.drops.extend([verdict.drop] if verdict else [])
            flying += [] if verdict and verdict.drop else [(row, scores)]
    return done


def shuffled(table: Rows, rng: random.Random) -> list[tuple[float, ...]]:
    """Return the table in another order of configurations and of folds."""
    folds = rng.sample(range(len(table[0])), len(table[0]))
    return [tuple(row[fold] for fold in folds) for row in rng.sample(table, len(table))]


def best(table: Rows, among: Sequence[int] | None = None) -> int:
    """Return the row with the best mean."""
    return max(range(len(table)) if among is None else among, key=lambda row: statistics.fmean(table[row]))


class Search(NamedTuple):
    """What a method did with one order: its fold trainings, and its regret after each budget; None: no answer."""

    trainings: int
    regrets: list[float | None]


def search(table: Rows, method: str, seed: int, budgets: Sequence[int]) -> Search:
    rng, (folds, factor, concurrency) = random.Random(seed), METHODS[method]
    mixed = shuffled(table, rng)
    seen = [row[:folds] for row in mixed]
    done = replay(seen, rng, concurrency=concurrency, factor=factor)
    goal, regrets = statistics.fmean(mixed[best(mixed)]), []
    for budget in budgets:
        there = [row for row, after in zip(done.finished, done.after, strict=True) if after <= budget]
        regrets.append(goal - statistics.fmean(mixed[best(seen, there)]) if there else None)
    return Search(done.trainings, regrets)


def row(name: str, searches: list[Search]) -> list[str]:
    last = [search.regrets[-1] or 0.0 for search in searches]
    cells = [name, f"{statistics.fmean(search.trainings for search in searches):.0f}"]
    for regrets in zip(*(search.regrets for search in searches), strict=True):
        known = [regret for regret in regrets if regret is not None]
        cells.append(f"{statistics.fmean(known):.4f}" if len(known) == len(regrets) else "not all have one")
    worst = statistics.quantiles(last, n=20)[-1]
    return [*cells, f"{worst:.4f}", f"{sum(regret < 1e-12 for regret in last) / len(last):.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--orders", type=int, default=2000)
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[22, 44, 88, 132, 220], help="fold trainings"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    given, table = parser.parse_args(), scores_of(results())
    found = {
        method: [search(table, method, seed, given.budgets) for seed in range(given.orders)]
        for method in METHODS
    }
    shown = Table(
        "method", "trainings", title=f"{len(table)} configurations x {FOLDS} folds, {given.orders} orders"
    )
    for name in (
        *(f"regret after {budget}" for budget in given.budgets),
        "95th percentile",
        "best one found",
    ):
        shown.add_column(name, justify="right")
    for method, searches in found.items():
        shown.add_row(*row(method, searches))
    terminal().print(shown)
    for method, why in WITHOUT.items():
        terminal().print(f"{method}: {why}", highlight=False)
    write_json(
        given.json, {name: [search._asdict() for search in searches] for name, searches in found.items()}
    )


if __name__ == "__main__":
    main()
