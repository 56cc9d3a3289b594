"""What one driver bears: processor time and memory at any size of a study, and what 10,000 trials would take.

Each thing that the driver does is timed with so many trials behind it and in flight (see `driver_load`), each
size in a process of its own, on a copy of the same study; one size also with Optuna's own cache of the storage
in place of the platform's. How MLflow's searches grow is its server's, see `scale.py`.

From these follow, by least squares of relative errors, the law of each cost, ``a + b trials + c in flight``, and
by its sum over the trials that of the whole study. Rows, bytes and artifacts follow from `sizing.py`.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from driver_load import DID, EPOCHS, FOLDS, OURS, THEIRS, Size, fill, measured, simulated
from measure import terminal, write_json
from responses import LAW, START
from rich.table import Table

GOAL = Size(10_000, 1_000)
# What a study, a trial, a fold and an epoch of it leave, as `sizing.py` measures it
LEFT = {
    "rows in MLflow's database": (49, 65, 134, 17),
    "bytes of it": (0.95e6, 6e3, 33e3, 5e3),
    "rows in Optuna's database": (5, 10, 0, 0.5),
    "bytes of artifacts without networks": (4.2e6, 0.75e6, 0, 0.08e6),
    "bytes of networks of 1.9 million parameters": (0, 0, 8e6, 0),
}
REPORTS = DID[2:5]
MEASURES = {**dict.fromkeys(DID, "ms"), "start": "s", "mib": "MiB"}


class Done(NamedTuple):
    """What a study did, by trial: epochs of its first fold and of later ones, folds begun and finished."""

    first: float
    later: float
    begun: float
    folds: float
    epoch_seconds: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ended", type=int, nargs="+", default=[100, 1000, 3000, 10000])
    parser.add_argument("--flying", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=20, help="trials of which each thing is timed")
    parser.add_argument(
        "--beside", type=int, default=1000, help="trials that ended where Optuna's cache is timed"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def measure(given: argparse.Namespace, folder: Path) -> tuple[Done, list[dict[str, Any]]]:
    """Return what the study did, and what each thing takes at each size."""
    played, trials = simulated(max(given.ended), folder)
    fill(trials, given.ended, folder)
    count, epochs = len(trials), played.used * EPOCHS
    first = sum(sum(step <= EPOCHS for step in trial.intermediate_values) for trial in trials)
    folds = sum(len(trial.user_attrs.get("measured", {}).get("scores", ())) for trial in trials)
    done = Done(
        first / count,
        (epochs - first) / count,
        played.begun / count,
        folds / count,
        3600 * played.gpu_hours / epochs,
    )
    sizes = [Size(*size) for size in product(given.ended, given.flying)]
    sizes += [Size(given.beside, flying, THEIRS) for flying in given.flying]
    flight, between = trials[: max(given.flying)], round(done.first + done.later)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        asked = [
            pool.submit(measured, size, folder, flight, between, given.rounds if size.cache == OURS else 3)
            for size in sizes
        ]
        return done, [one.result() for one in asked]


def law(found: list[dict[str, Any]], name: str) -> list[float]:
    """Return what a thing takes at least, more for each trial that ended, and for each in flight."""
    ours = [one for one in found if one["cache"] == OURS]
    costs = np.array([one[name] for one in ours])
    at = np.array([(1.0, one["ended"], one["flying"]) for one in ours])
    each, *_ = np.linalg.lstsq(at / costs[:, None], np.ones(len(ours)), rcond=None)
    return [float(part) for part in each]


def counts(done: Done) -> dict[str, dict[str, float]]:
    """Return how often each thing is done in the whole study, by what of it is trained."""
    whole = {"epoch of fold 1": EPOCHS, "epoch of a later fold": EPOCHS * (FOLDS - 1), "fold": FOLDS}
    early = {"epoch of fold 1": done.first, "epoch of a later fold": done.later, "fold": done.folds}
    return {
        kind: {name: GOAL.ended * each.get(name, 1.0) for name in DID}
        for kind, each in (("stopped early", early), ("every fold", whole))
    }


def costs(laws: dict[str, list[float]], done: Done) -> dict[str, dict[str, float]]:
    """Return what the whole study costs, by what of it is trained."""
    begun = {"stopped early": done.begun, "every fold": float(FOLDS)}
    found = {}
    for kind, times in counts(done).items():
        mean = {name: float(np.dot(laws[name], (1, GOAL.ended / 2, GOAL.flying))) for name in DID}
        seconds = {f"driver, {name}: CPU s": times[name] * mean[name] / 1000 for name in DID}
        told, epochs = sum(times[name] for name in REPORTS), times[DID[2]] + times[DID[3]]
        each = (1, GOAL.ended, GOAL.flying)
        found[kind] = seconds | {
            "driver: CPU h": sum(seconds.values()) / 3600,
            "reports": told,
            "reports/s that a core of the driver bears": 1000
            * told
            / sum(times[n] * mean[n] for n in REPORTS),
            "reports/s of the workers": GOAL.flying / done.epoch_seconds,
            "s of a trial, on the GPU of the law": START + epochs / GOAL.ended * done.epoch_seconds,
            "s of a trial below which workers wait for proposals": GOAL.flying
            * sum(seconds.values())
            / GOAL.ended,
            "memory MiB more than at the start": float(np.dot(laws["mib"], each)),
            "s to go on after a kill": float(np.dot(laws["start"], each)),
            **left(GOAL.ended * begun[kind], epochs),
        }
    return found


def left(folds: float, epochs: float) -> dict[str, float]:
    """Return what a study leaves in databases and among artifacts."""
    units = (1, GOAL.ended, folds, epochs)
    return {name: float(np.dot(each, units)) for name, each in LEFT.items()}


def sizes_table(found: list[dict[str, Any]]) -> Table:
    table = Table("trials ended", "in flight", "cache", title="what each thing takes, by size of the study")
    for name, unit in MEASURES.items():
        table.add_column(f"{name} {unit}", justify="right")
    for one in found:
        sizes = (f"{one['ended']}", f"{one['flying']}", one["cache"])
        table.add_row(*sizes, *(f"{one[name]:.1f}" for name in MEASURES))
    return table


def laws_table(laws: dict[str, list[float]], found: list[dict[str, Any]]) -> Table:
    table = Table("", title="the law of each, and how far it is from what was measured")
    for name in ("unit", "at least", "+ 1,000 trials ended", "+ 1,000 in flight", "error"):
        table.add_column(name, justify="right")
    ours = [one for one in found if one["cache"] == OURS]
    for name, each in laws.items():
        errors = [abs(np.dot(each, (1, one["ended"], one["flying"])) / one[name] - 1) for one in ours]
        parts = (each[0], 1000 * each[1], 1000 * each[2])
        table.add_row(name, MEASURES[name], *(f"{part:.2f}" for part in parts), f"{max(errors):.0%}")
    return table


def costs_table(found: dict[str, dict[str, float]]) -> Table:
    title = (
        f"{GOAL.ended:,} trials of {FOLDS} folds and {EPOCHS} epochs, {GOAL.flying:,} workers, by these laws"
    )
    table = Table("", *found, title=title)
    for name in next(iter(found.values())):
        table.add_row(
            name,
            *(f"{part[name]:,.3g}" if part[name] < 100 else f"{part[name]:,.0f}" for part in found.values()),
        )
    return table


def main() -> None:
    given, console = arguments(), terminal()
    with tempfile.TemporaryDirectory(prefix="driver-") as folder:
        done, found = measure(given, Path(folder))
    laws = {name: law(found, name) for name in MEASURES}
    whole = costs(laws, done)
    console.print(sizes_table(found), laws_table(laws, found), costs_table(whole))
    console.print(
        f"By trial the study that was simulated did {done._asdict()}", LAW, highlight=False, soft_wrap=True
    )
    write_json(given.json, {"done": done._asdict(), "sizes": found, "laws": laws, "costs": whole})


if __name__ == "__main__":
    main()
