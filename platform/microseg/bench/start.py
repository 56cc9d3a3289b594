"""One search in a process of its own, and when its phases began: what starts before a network is trained."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from microseg.config import Strict
from microseg.errors import MicrosegError

OURS = ("MLFLOW_", "RAY_", "MICROSEG_")  # settings of the caller that would change what is measured
TINY: dict[str, Any] = {
    "trials": 1,
    "folds": 1,
    "asha": None,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "augment": {"name": "none"},
        "tile": 64,
        "epochs": 2,
    },
}


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
        """Seconds of the whole process."""
        return self.end - self.start

    @property
    def startup(self) -> float:
        """Seconds until the training part begins."""
        return self.training - self.start

    @property
    def trained(self) -> float:
        """Seconds of the training part."""
        return self.saved - self.training

    @property
    def after_startup(self) -> float:
        """Seconds of all that is not start-up."""
        return self.end - self.training

    @property
    def first_epoch(self) -> float:
        """Seconds of the first epoch, with all that comes before it in the training part."""
        return self.epochs[0] - self.training

    @property
    def epoch(self) -> float:
        """Seconds of the median epoch, without the first, which traces the network."""
        ends = zip(self.epochs, self.epochs[1:], strict=False)
        return statistics.median([later - earlier for earlier, later in ends] or [self.first_epoch])


class Search(NamedTuple):
    """A search of one trial with one fold; ``opened``: its run in MLflow, ``proposed``: its trial's."""

    measured: Measured
    opened: float
    proposed: float
    dice: float

    @property
    def phases(self) -> dict[str, float]:
        """Return the seconds from one phase to the next."""
        times = self.measured
        marks = {
            "command to checked data set and open run": self.opened,
            "to the first trial proposed (Ray started)": self.proposed,
            "to its training begun (worker and TensorFlow loaded)": times.training,
            "to the end of its first epoch (network traced)": times.epochs[0],
            "to its fold trained and saved": times.saved,
            "to the end of the command (candidate registered)": times.end,
        }
        starts = [times.start, *marks.values()]
        return {label: mark - before for (label, mark), before in zip(marks.items(), starts, strict=False)}


def environment(workdir: Path) -> dict[str, str]:
    """Return what a measured process sees: a store and a cache of its own, no setting of the caller."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {
        "MICROSEG_HOME": str(workdir / "home"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{workdir}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "RAY_worker_niceness": "0",  # else workers give way to all else: to what they are compared with, too
    }


def run_python(
    arguments: Sequence[str], workdir: Path, settings: Mapping[str, str] | None = None
) -> tuple[float, float]:
    """Run Python in a process of its own; return when it started and ended, in seconds since 1970.

    Raises
    ------
    MicrosegError
        If it fails; the last of what it said is told.
    """
    with tempfile.TemporaryFile("w+") as said:  # a pipe would wait for Ray's processes too
        start = time.time()
        process = subprocess.run(
            [sys.executable, *arguments],
            cwd=workdir,
            env=environment(workdir) | dict(settings or {}),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        end = time.time()
        said.seek(0)
        if process.returncode:
            last = " ".join(said.read().split())[-1000:]
            command = " ".join(arguments)
            raise MicrosegError(f"what is measured failed: {command} ended with {process.returncode}: {last}")
    return start, end


def search_once(data: Path, space: Path, study: str, workdir: Path) -> Search:
    """Run ``microseg search`` and read from its files and from MLflow when its phases began.

    Raises
    ------
    MicrosegError
        If it fails.
    """
    options = ["--data", str(data), "--space", str(space), "--study", study]
    start, end = run_python(["-m", "microseg", "search", *options], workdir)
    return _read(study, workdir, start, end)


def _read(study: str, workdir: Path, start: float, end: float) -> Search:
    from microseg import runtime

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


def start_once(workdir: Path, name: str = "start") -> Search:
    """Run a tiny search on synthetic cells in a folder, with a store of its own, and return its phases.

    Raises
    ------
    MicrosegError
        If it fails.
    """
    from microseg.data.synthetic import write_demo

    space, data = workdir / "space.yaml", workdir / "data"
    space.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    if not data.exists():
        write_demo(data, images=24, sessions=8)
    return search_once(data, space, name, workdir)
