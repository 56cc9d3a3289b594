"""What the benchmarks share: one search in a process of its own, when its phases began, and the output."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from microseg import runtime
from microseg.config import Strict, TrialConfig
from microseg.data.manifest import Manifest
from microseg.folds import Fold

PROJECT = Path(__file__).resolve().parents[2]
OURS = ("MLFLOW_", "RAY_", "MICROSEG_")  # settings of the caller that would change what is measured


class Recipe(Strict):
    """One fold's training, complete enough for a script that knows neither Ray nor MLflow."""

    config: TrialConfig
    manifest: Manifest
    fold: Fold
    cache: Path
    threads: int


class Measured(Strict):
    """When one training process did what, in seconds since 1970, and its peak memory.

    The training part is the same in every process: from before the fold's images are loaded, over
    building the network and all epochs, until the model is saved. All before it is start-up.
    """

    start: float
    training: float
    epochs: tuple[float, ...]
    saved: float
    end: float
    peak_memory_mib: float

    @property
    def wall(self) -> float:
        return self.end - self.start

    @property
    def startup(self) -> float:
        return self.training - self.start

    @property
    def trained(self) -> float:
        return self.saved - self.training

    @property
    def after_startup(self) -> float:
        return self.end - self.training

    @property
    def first_epoch(self) -> float:
        return self.epochs[0] - self.training

    @property
    def epoch(self) -> float:
        """The median epoch, without the first, which traces the network."""
        ends = zip(self.epochs, self.epochs[1:], strict=False)
        return statistics.median([later - earlier for earlier, later in ends] or [self.first_epoch])


class Search(NamedTuple):
    """A search of one trial with one fold; ``opened``: its run in MLflow, ``proposed``: its trial's."""

    measured: Measured
    opened: float
    proposed: float
    dice: float


def environment(workdir: Path) -> dict[str, str]:
    """Return what a measured process sees: a store and a cache of its own, no setting of the caller."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {
        "MICROSEG_HOME": str(workdir / "home"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{workdir}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "RAY_worker_niceness": "0",  # else workers give way to all else: to what they are compared with, too
        "PYTHONPATH": str(PROJECT / "platform"),
    }


def timed(arguments: Sequence[str], workdir: Path) -> tuple[float, float]:
    """Run Python in a process of its own; return when it started and ended, or end with what it said."""
    with tempfile.TemporaryFile("w+") as said:  # a pipe would wait for Ray's processes too
        start = time.time()
        process = subprocess.run(
            [sys.executable, *arguments],
            cwd=workdir,
            env=environment(workdir),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        end = time.time()
        said.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(arguments)}\n{said.read()}")
    return start, end


def search_once(data: Path, space: Path, study: str, workdir: Path) -> Search:
    """Run ``microseg search`` and read from its files and from MLflow when its phases began."""
    options = ["--data", str(data), "--space", str(space), "--study", study]
    start, end = timed(["-m", "microseg", "search", *options], workdir)

    runtime.load_tensorflow()  # only now: what the command needs is measured, not what reads it
    from microseg import report
    from microseg.tracking import store, tree
    from microseg.training.results import FoldResult

    client = store.connect(environment(workdir)["MLFLOW_TRACKING_URI"])
    run = report.find_study(client, study)
    trial = next(tree.children(client, run.info.experiment_id, run.info.run_id))
    fold = next(tree.children(client, run.info.experiment_id, trial.info.run_id))
    history = client.get_metric_history(fold.info.run_id, "val/dice")
    file = workdir / "home" / "studies" / study / "trial-000" / "fold-0" / "result.json"
    result, saved = FoldResult.model_validate_json(file.read_bytes()), file.stat().st_mtime
    measured = Measured(
        start=start,
        training=saved - result.seconds,
        epochs=tuple(sorted(metric.timestamp / 1000 for metric in history)),
        saved=saved,
        end=end,
        peak_memory_mib=result.peak_memory_mib,
    )
    return Search(
        measured, run.info.start_time / 1000, trial.info.start_time / 1000, result.metrics["val/dice"]
    )


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return median and range."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def terminal() -> Console:
    """Return where tables are printed; a log file has no width to wrap at."""
    return Console() if sys.stdout.isatty() else Console(width=140)


def write_json(path: Path | None, record: Any) -> None:
    """Write a record where one was asked for."""
    if path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
