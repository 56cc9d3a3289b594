"""What a study leaves behind, and what a worker takes: rows and bytes per trial, fold and epoch; memory.

Real searches of a small network differ in one number at a time (trials, folds, epochs). The rows of MLflow's
and Optuna's databases, their bytes, and the bytes of artifacts and of the study's own folder are a sum of so
much per study, trial, fold and epoch: as many unknowns as searches, so that the solution is exact, and
whether the sum holds is seen on one more search that it did not see. Networks come on top: their bytes are
told by parameter. Memory is the peak of one-trial searches of larger networks, by tile and batch.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from measure import environment, terminal, timed, write_json
from mlflow import MlflowClient
from rich.table import Table

from microseg.data.synthetic import write_demo


class Size(NamedTuple):
    """How many trials, folds of each and epochs of each a search has."""

    trials: int
    folds: int
    epochs: int

    @property
    def units(self) -> list[int]:
        """How many studies, trials, folds and epochs there are in all."""
        folds = self.trials * self.folds
        return [1, self.trials, folds, folds * self.epochs]


SOLVED = (Size(1, 2, 2), Size(3, 2, 2), Size(1, 4, 2), Size(1, 2, 6))
CHECKED = Size(2, 3, 4)
UNITS = ("study", "trial", "fold", "epoch")
NETWORKS = (  # depth, filters, tile, batch
    (3, 16, 128, 8), (4, 32, 128, 8), (4, 32, 256, 8), (4, 32, 256, 16), (5, 32, 256, 8), (4, 64, 256, 8)
)  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--without-memory", action="store_true", help="only rows and bytes")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def searched(size: Size, network: tuple[int, int, int, int], workdir: Path) -> Path:
    """Run a search in a folder of its own, with a store of its own, and return the folder."""
    depth, filters, tile, batch = network
    folder = workdir / "-".join(map(str, (*size, *network)))
    folder.mkdir()
    # as many images per fold in each, as the pictures of a validation are artifacts
    write_demo(folder / "cells", images=8 * size.folds, size=max(128, tile), sessions=4 * size.folds)
    trial = {
        "model": {"name": "unet", "params": {"depth": depth, "filters": filters}},
        "tile": tile, "batch_size": batch, "epochs": size.epochs, "patience": size.epochs, "steps_per_epoch": 3,
        # what tells trials apart, and changes nothing of what they leave
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-3]}}},
    }  # fmt: skip
    space = {"space": trial, "trials": size.trials, "folds": size.folds, "asha": None, "race": None}
    (folder / "space.yaml").write_text(yaml.safe_dump(space), encoding="utf-8")
    timed(["-m", "microseg", "search", "--data", "cells", "--space", "space.yaml", "--study", "s"], folder)
    return folder


def left(folder: Path) -> dict[str, float]:
    """Return what a search has left: rows, and bytes without networks."""
    home, artifacts = folder / "home", folder / "mlruns"
    optuna = next(home.rglob("optuna.db"))
    files = [path for path in artifacts.rglob("*") if path.is_file()]
    states = [path for path in (home / "studies").rglob("*") if path.is_file() and path != optuna]
    mlflow = folder / "mlflow.db"
    return {
        "rows in MLflow's database": rows(mlflow),
        "rows in Optuna's database": rows(optuna),
        "bytes of MLflow's database": used(mlflow),
        "bytes of Optuna's database": used(optuna),
        "artifacts": len(files),
        "bytes of artifacts without networks": total(files),
        "bytes of the study's folder without networks": total(states),
    }


def rows(database: Path) -> int:
    with sqlite3.connect(database) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return sum(connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables)


def used(database: Path) -> int:
    """Return the bytes of the pages that hold anything."""
    with sqlite3.connect(database) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def total(files: list[Path]) -> int:
    return sum(path.stat().st_size for path in files if path.suffix not in (".keras", ".h5"))


def networks(folder: Path) -> list[int]:
    """Return the bytes of the networks among the artifacts."""
    return [path.stat().st_size for path in (folder / "mlruns").rglob("*.keras")]


def solve(found: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return what each unit adds to each quantity, and how far the sum is from a search it did not see."""
    units = np.array([size.units for size in SOLVED], float)
    solved = []
    for quantity in found[0]:
        *seen, unseen = (one[quantity] for one in found)
        each = np.linalg.solve(units, np.array(seen, float))
        error = float(each @ CHECKED.units) / unseen - 1
        solved.append({"quantity": quantity, **dict(zip(UNITS, each, strict=True)), "error": error})
    return solved


def memory(network: tuple[int, int, int, int], workdir: Path) -> dict[str, Any]:
    """Return parameters, bytes of a network's file and the peak memory of the process that trained it."""
    folder = searched(Size(1, 2, 2), network, workdir)
    client = MlflowClient(environment(folder)["MLFLOW_TRACKING_URI"])
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (trial,) = client.search_runs(experiments, "tags.`microseg.level` = 'trial'")
    names = dict(zip(("depth", "filters", "tile", "batch"), network, strict=True))
    return names | {
        "parameters": trial.data.metrics["parameters"],
        "file_bytes": max(networks(folder)),
        "peak_mib": trial.data.metrics["peak_memory_mib"],
    }


def tables(solved: list[dict[str, Any]], peaks: list[dict[str, Any]]) -> list[Table]:
    costs = Table("quantity", title="what each adds", title_justify="left")
    for column in (*UNITS, "sum beside a further search"):
        costs.add_column(column, justify="right")
    for row in solved:
        costs.add_row(row["quantity"], *(f"{row[unit]:,.0f}" for unit in UNITS), f"{row['error']:+.1%}")
    worker = Table(*peaks[0], title="a worker", title_justify="left") if peaks else None
    for peak in peaks:
        worker.add_row(*(f"{value:,.0f}" for value in peak.values()))
    return [costs, worker] if worker else [costs]


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="sizing-") as workdir:
        found = [left(searched(size, (2, 4, 64, 4), Path(workdir))) for size in (*SOLVED, CHECKED)]
        peaks = [] if given.without_memory else [memory(network, Path(workdir)) for network in NETWORKS]
    solved = solve(found)
    for shown in tables(solved, peaks):
        terminal().print(shown)
    write_json(given.json, {"costs": solved, "workers": peaks})


if __name__ == "__main__":
    main()
