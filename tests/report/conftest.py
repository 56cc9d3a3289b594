"""A study in MLflow as the tracker leaves it: trials in every state, a cost, and repeats of the finalists."""

import os
import re
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

from microseg.report import Row, StudyView
from microseg.report.fold_sizes import SizeRatio
from microseg.tracking import store

STATUS = {"completed": "FINISHED", "pruned": "KILLED", "raced_out": "KILLED", "interrupted": "KILLED"}

# name, state, reason, fold scores, parameters of the network; the best trial is not the first, nor the cheapest
TRIALS = [
    ("trial-000", "completed", "all folds", (0.840, 0.850, 0.830), 120_000),
    ("trial-001", "pruned", "ASHA at epoch 2", (), 30_000),
    ("trial-002", "failed", "the worker failed in epoch 4", (0.80,), 50_000),
    ("trial-003", "completed", "all folds", (0.871, 0.880, 0.865), 480_000),
    ("trial-004", "raced_out", "fold 1: 0.014 below trial-003 on average, margin 0.011", (0.857,), 60_000),
    ("trial-005", "pruned", "ASHA at epoch 27", (), 31_000),
    ("trial-006", "out_of_memory", "fold 1 out of memory, also with half of the batch", (), 9_000_000),
    ("trial-007", "completed", "all folds", (0.868, 0.879, 0.863), 1_900_000),
    ("trial-008", "raced_out", "fold 2: 0.021 below trial-003 on average, margin 0.008", (0.850, 0.859), 70_000),
    ("trial-009", "diverged", "fold 2 diverged", (0.790,), 80_000),
    ("trial-010", "collapsed", "fold 1 collapsed", (), 20_000),
    ("trial-011", "interrupted", "the study stopped", (0.861,), 90_000),
    ("trial-012", "running", "", (), 40_000),
    ("trial-013", "completed", "all folds", (0.869, 0.872, 0.861), 240_000),
]  # fmt: skip
REPEATS = [
    ("trial-003-seed-1", "trial-003", "completed", "all folds", (0.866, 0.872, 0.862)),
    ("trial-003-seed-2", "trial-003", "completed", "all folds", (0.862, 0.874, 0.858)),
    ("trial-007-seed-1", "trial-007", "completed", "all folds", (0.867, 0.880, 0.864)),
    ("trial-007-seed-2", "trial-007", "diverged", "fold 3 diverged", (0.865, 0.871)),
]
TAGS = {
    "microseg.metric": "val/dice",
    "microseg.mode": "max",
    "microseg.folds": "3",
    "microseg.data": "cells",
    "microseg.digest": "0123456789abcdef0123",
    "microseg.seed": "7",
    "microseg.hardware": "a processor, 2 cores, 8 GiB, no GPU, float32",
}


def tagged(level: str, study: str, parent: str | None = None, **more: str) -> dict[str, str]:
    """The tags that every run of a study has."""
    tags = {"microseg.level": level, "microseg.study": study} | {
        f"microseg.{name}": text for name, text in more.items()
    }
    return tags | ({"mlflow.parentRunId": parent} if parent else {})


class Study:
    """A study that is being filled."""

    def __init__(self, client: MlflowClient, name: str, folds: int = 3, **tags: str) -> None:
        self.client, self.name, self.folds = client, name, folds
        self.experiment = "0"
        self.parent = self._run(name, tagged("study", name) | TAGS | {"microseg.folds": str(folds)} | tags)

    def _run(self, name: str, tags: dict[str, str]) -> str:
        return str(self.client.create_run(self.experiment, run_name=name, tags=tags).info.run_id)

    def trial(
        self, name: str, state: str, reason: str, scores: tuple[float, ...], parameters: float, of=""
    ) -> str:
        """Add a trial, or with ``of`` a repeat of one; a trial that stopped leaves its last fold unfinished."""
        level = (
            tagged("replicate", self.name, self.parent, replicate_of=of)
            if of
            else tagged("trial", self.name, self.parent)
        )
        run = self._run(name, level)
        metrics = (
            {
                "parameters": parameters,
                "seconds": 30.0 * len(scores),
                "cpu_seconds": 50.0,
                "peak_memory_mib": 900.0,
            }
            if scores
            else {}
        )
        if scores:
            metrics |= {"cv/dice_mean": fmean(scores), "cv/inference_seconds_mean": 0.002 * parameters**0.3}
        if len(scores) > 1:
            metrics["cv/dice_std"] = float(np.std(scores, ddof=1))
        number = int(re.search(r"trial-(\d+)", name)[1])
        params = {
            "model/name": "unet",
            "model/params/depth": str(2 + number % 4),
            "optimizer/params/learning_rate": str(0.001 * 1.37**number),
        }
        self._write(run, metrics, params)
        for fold, score in enumerate(scores, 1):
            self.fold(run, f"{name}/fold-{fold}", "completed", score)
        # The race stops a trial between two folds; whatever else ends one too early cuts a fold short.
        if state not in ("completed", "raced_out"):
            self.fold(run, f"{name}/fold-{len(scores) + 1}", state, 0.1 if state == "collapsed" else None)
        self._end(run, state, reason)
        return run

    def fold(self, trial: str, name: str, state: str, score: float | None) -> None:
        run = self._run(name, tagged("fold", self.name, trial))
        curve = [Metric("val/dice", (score or 0.5) * (1 - 0.6**epoch), 0, epoch) for epoch in range(1, 9)]
        self.client.log_batch(run, metrics=curve)
        if score is not None:
            self._write(run, {"final/dice": score}, {})
        self._end(run, state, state)

    def _write(self, run: str, metrics: dict[str, float], params: dict[str, str]) -> None:
        self.client.log_batch(
            run,
            metrics=[Metric(k, v, 0, 0) for k, v in metrics.items()],
            params=[Param(k, v) for k, v in params.items()],
        )

    def _end(self, run: str, state: str, reason: str) -> None:
        self.client.log_batch(run, tags=[RunTag("microseg.state", state), RunTag("microseg.reason", reason)])
        if state != "running":
            self.client.set_terminated(run, STATUS.get(state, "FAILED"))

    def read(self) -> Run:
        """The study's own run, as it is now."""
        return self.client.get_run(self.parent)


@pytest.fixture(scope="session")
def client(tmp_path_factory) -> MlflowClient:
    return store.connect(f"sqlite:///{tmp_path_factory.mktemp('report')}/mlflow.db")


@pytest.fixture(scope="session")
def filled(client) -> Study:
    """A study with trials in all states, searched for small networks too, and repeats of two finalists."""
    study = Study(client, "filled", **{"microseg.against": "parameters"})
    for trial in TRIALS:
        study.trial(*trial)
    for name, of, state, reason, scores in REPEATS:
        study.trial(name, state, reason, scores, 480_000, of=of)
    return study


@pytest.fixture(scope="session")
def start(client):
    """Return a function that starts a study without trials."""
    return lambda name, **more: Study(client, name, **more)


@pytest.fixture(scope="session")
def row():
    """Return a function that builds a row from its rank, name and fold scores; the rest has defaults."""

    def build(rank: int | None, name: str, scores: tuple[float, ...] = (), **more) -> Row:
        mean = fmean(scores) if scores else None
        known = {"state": "completed", "reason": "all folds", "mean": mean, "params": {}}
        known |= {
            "std": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
            "seconds": 60.0,
            "run_id": name,
        }
        known |= {"fold_runs": tuple(f"{name}/fold-{fold}" for fold in range(1, len(scores) + 1))}
        return Row(rank=rank, name=name, scores=tuple(scores), **(known | more))

    return build


@pytest.fixture(scope="session")
def board():
    """Return a function that builds a view from rows, without a store."""

    def build(*rows: Row, folds: int = 3, mode: str = "max", **more) -> StudyView:
        info = RunInfo("id", "0", "me", "RUNNING", 0, None, "active", run_name="a study")
        run = Run(info, RunData(tags=[RunTag(name, text) for name, text in TAGS.items()]))
        ratio = SizeRatio(1 / (folds - 1), "folds of equal size") if folds > 1 else None
        known = {"run": run, "metric": "val/dice", "against": "", "ratio": ratio}
        return StudyView(mode=mode, folds=folds, rows=rows, **(known | more))

    return build


@pytest.fixture(scope="session")
def stored(client, start, board):
    """Return a function that builds a view from rows, with a run of its own in the store."""
    return lambda *rows, **more: board(*rows, run=start("stored").read(), **more)


@pytest.fixture(scope="session")
def shared_table(project) -> Path:
    """The published table of AFM networks; whoever has no shared folder beside the checkout says where it is."""
    return (
        Path(os.environ.get("MICROSEG_SHARED", project.parent / "shared"))
        / "reference"
        / "afm_cv_results.csv"
    )
