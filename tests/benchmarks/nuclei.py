"""A real study: the U-Net family on nuclei of the 2018 Data Science Bowl, 8 trials of 3 folds of 15 epochs."""

from __future__ import annotations

import argparse
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from measure import PROJECT, environment, terminal, write_json

SPACE = PROJECT / "search_spaces" / "unet_family.yaml"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/, masks/, manifest.csv")
    parser.add_argument(
        "--workdir", type=Path, required=True, help="folder for caches, studies and the store"
    )
    parser.add_argument("--study", default="", help="name of the study; by default nuclei and the time")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="steps per epoch, 8 tiles each")
    parser.add_argument(
        "--concurrency", type=int, default=2, help="trials at once, each on its share of cores"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def cut(given: argparse.Namespace) -> dict[str, Any]:
    """Return the search of the published space, cut to what 2 cores train in half an hour."""
    from microseg.config import read_yaml

    search: dict[str, Any] = read_yaml(SPACE)
    space = search["space"]
    space["model"]["params"] |= {"depth": {"int_uniform": [2, 4]}, "filters": {"choice": [8, 16]}}
    space |= {"tile": 256, "epochs": given.epochs, "steps_per_epoch": given.steps, "precision": "auto"}
    return search | {"trials": given.trials, "folds": given.folds, "concurrency": given.concurrency}


def figures(outcome: Any, seconds: float) -> dict[str, Any]:
    """Return what the study found and cost."""
    from microseg import report, runtime
    from microseg.tracking import store

    client, rows = store.connect(), outcome.view.rows
    memory = [client.get_run(row.run_id).data.metrics.get("peak_memory_mib", 0.0) for row in rows]
    hardware = runtime.hardware()
    return {
        "wall_seconds": seconds,
        "best_trial": rows[0].name,
        "best_mean_val_dice": rows[0].mean,
        "best_fold_val_dice": rows[0].scores,
        "states": [row.state for row in rows],
        "folds_trained": sum(len(row.scores) for row in rows),
        "training_seconds": sum(row.seconds for row in rows),
        "worker_peak_memory_mib": max(memory),
        "cpu": f"{hardware['cpu']}, {hardware['cores']} cores",
        "gpus": hardware["gpus"],
        "precision": hardware["precision"],
        "leaderboard": report.frame(outcome.view).to_dict(orient="records"),
    }


def main() -> None:
    given, console = arguments(), terminal()
    data, workdir = given.data.resolve(), given.workdir.resolve()
    output = given.json.resolve() if given.json else None
    workdir.mkdir(parents=True, exist_ok=True)
    os.chdir(workdir)  # MLflow's artifacts go beside its store
    os.environ.update(environment(workdir))  # before TensorFlow, Ray and MLflow read it
    start = time.monotonic()

    from microseg import runtime

    runtime.load_tensorflow()
    from microseg import report, study
    from microseg.config import SearchConfig, parse
    from microseg.data.options import DataOptions

    request = study.Request(
        name=given.study or f"nuclei-{datetime.now():%Y%m%d-%H%M%S}",
        data=data,
        options=DataOptions(stratum_column="kind"),  # without a group column, each image is its own
        config=parse(SearchConfig, cut(given), str(SPACE)),
    )
    outcome = study.search(request, console)
    found = figures(outcome, time.monotonic() - start)
    console.print(report.terminal_table(outcome.view))
    for label, value in found.items():
        if label != "leaderboard":
            console.print(f"{label:<24} {value}", highlight=False, markup=False, soft_wrap=True)
    write_json(output, found)


if __name__ == "__main__":
    main()
