"""How many fold trainings a real search needs, on nuclei of the 2018 Data Science Bowl.

Runs ``microseg search`` with small networks: first the platform's own way, then TPE and random search with all
folds of every trial and as many trials as fit into the fold trainings that the platform took. All share seed,
folds and hold-out. Beside the real one there is no true score: what is compared is the mean over the folds,
the score by which each method chose. A fold that was cut short counts by its share of epochs.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from measure import PROJECT, environment, terminal, timed, write_json
from rich.table import Table

SPACE = PROJECT / "search_spaces" / "unet_family.yaml"
PLATFORM = "platform"
WHOLE = {"asha": None, "race": None}
OTHERS = {"tpe-all-folds": WHOLE, "random-all-folds": WHOLE | {"sampler": "random"}}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="by default $MICROSEG_SHARED/data/dsb2018_nuclei")
    parser.add_argument("--workdir", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--trials", type=int, default=16, help="of the platform")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=8, help="steps per epoch, 8 tiles each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """Return the search of the published space, cut to what one core trains in minutes."""
    from microseg.config import read_yaml

    values: dict[str, Any] = read_yaml(SPACE)
    space = values["space"]
    space["model"]["params"] |= {"depth": {"int_uniform": [2, 3]}, "filters": {"choice": [4, 8]}}
    space |= {"tile": 128, "overlap": 0.0, "patience": given.epochs}
    space |= {"epochs": given.epochs, "steps_per_epoch": given.steps}
    # Half of the images are held out: on a processor, most of the time goes into validating whole images.
    return values | {"trials": given.trials, "folds": given.folds, "seed": given.seed, "holdout": 0.5}


def search(given: argparse.Namespace, method: str, values: dict[str, Any]) -> tuple[float, list[Any]]:
    """Run a search in a process of its own; returns its seconds and its trials."""
    file = given.workdir / f"{method}.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    options = ["--data", str(given.data), "--space", str(file), "--study", method, "--stratum-column", "kind"]
    start, end = timed(["-m", "microseg", "search", *options], given.workdir)

    from microseg.search.trials import read_records

    found = read_records(given.workdir / "home" / "studies" / method / "optuna.db", method)
    return end - start, found


def used(record: Any, epochs: int) -> float:
    """Return the fold trainings that a trial took: its finished folds, and the part of one cut short."""
    cut = max(record.steps, default=0) if not record.scores else 0
    return float(sum(record.epochs) + cut) / epochs


def begun(record: Any) -> int:
    return len(record.scores) + (not record.scores)


def answers(records: Sequence[Any], epochs: int) -> list[tuple[float, float]]:
    """Return the best mean over all folds so far, each with the fold trainings used until then."""
    found, total = [], 0.0
    for record in records:
        total += used(record, epochs)
        if record.score is not None and record.score > max((score for _, score in found), default=0.0):
            found.append((total, record.score))
    return found


def figures(records: Sequence[Any], seconds: float, epochs: int) -> dict[str, Any]:
    states = [record.state for record in records]
    return {
        "trials": len(records),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "used": sum(used(record, epochs) for record in records),
        "begun": sum(begun(record) for record in records),
        "minutes": seconds / 60,
        "best": max(record.score for record in records if record.score is not None),
        "median": statistics.median(record.score for record in records if record.score is not None),
        "answers": answers(records, epochs),
        "records": [record.model_dump(mode="json") for record in records],
    }


def until(found: dict[str, Any], score: float) -> str:
    """Return the fold trainings until a score was first reached."""
    return next((f"{total:.1f}" for total, best in found["answers"] if best >= score), "never")


def printed(measured: dict[str, dict[str, Any]]) -> Table:
    """Return the methods beside each other."""
    goal = measured["tpe-all-folds"]["best"]
    table = Table(title="nuclei: mean Dice over folds, by which each method chose")
    for name in ("", "trials", "fold trainings", "folds begun", "minutes", "best", "until TPE's best"):
        table.add_column(name, justify="right" if name else "left")
    for method, found in measured.items():
        cells = (
            f"{found['used']:.1f}",
            str(found["begun"]),
            f"{found['minutes']:.1f}",
            f"{found['best']:.4f}",
        )
        table.add_row(method, str(found["trials"]), *cells, until(found, goal))
    return table


def main() -> None:
    given = arguments()
    shared = Path(os.environ.get("MICROSEG_SHARED", PROJECT.parent / "shared"))
    given.data = (given.data or shared / "data" / "dsb2018_nuclei").resolve()
    given.workdir = given.workdir.resolve()
    given.workdir.mkdir(parents=True, exist_ok=True)
    os.environ.update(environment(given.workdir))
    values = settings(given)
    measured = {}
    seconds, records = search(given, PLATFORM, values)
    measured[PLATFORM] = figures(records, seconds, given.epochs)
    fitting = max(1, round(measured[PLATFORM]["used"] / given.folds))
    for method, changes in OTHERS.items():
        seconds, records = search(given, method, values | changes | {"trials": fitting})
        measured[method] = figures(records, seconds, given.epochs)
        write_json(given.json, measured)
    terminal().print(printed(measured))


if __name__ == "__main__":
    main()
