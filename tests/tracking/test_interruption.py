"""Killed at any write and told everything anew, a trial's runs are what they would have been without it."""

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from microseg.config import Component, TrialConfig
from microseg.folds import Fold
from microseg.tracking import recorder, tree
from microseg.tracking.recorder import Recorder
from microseg.tracking.tree import StudyRun
from microseg.training import FoldResult, Progress, Sample

WRITES = (
    "create_run",
    "log_batch",
    "log_artifact",
    "log_artifacts",
    "set_tag",
    "update_run",
    "set_terminated",
)
NEVER = 10**9
CONFIG = TrialConfig(model=Component(name="unet"))
FOLDS = [Fold(index=number, train=("a",), valid=("b",)) for number in range(2)]


class KilledError(Exception):
    """The process ended here."""


class Mortal(MlflowClient):
    """A client whose process is killed at a write: before it, in its midst, or before the answer came."""

    left = NEVER
    how = "unwritten"

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        return self._mortally(method) if name in WRITES else method

    def _mortally(self, method):
        def call(run_id, *args, **kwargs):
            Mortal.left -= 1
            if Mortal.left:
                return method(run_id, *args, **kwargs)
            if Mortal.how == "unanswered":
                method(run_id, *args, **kwargs)
            elif Mortal.how == "half" and method.__name__ == "log_batch":
                method(run_id, metrics=kwargs.get("metrics", ()))
            elif Mortal.how == "half" and method.__name__ == "log_artifacts":
                first, *_ = sorted(Path(args[0]).iterdir())
                self.log_artifact(run_id, str(first), *args[1:])
            raise KilledError

        return call


@pytest.fixture
def mortal(client, monkeypatch):
    monkeypatch.setattr(recorder, "MlflowClient", Mortal)
    monkeypatch.setattr(Mortal, "left", NEVER)
    return Mortal(client.tracking_uri)


def events(folder: Path, folds: int) -> list[Progress]:
    """Return what a training tells: folds of three epochs, with a picture of the first and one of the end."""
    image = np.zeros((16, 16, 1), np.float32)
    sample = Sample("cell/1", image, np.zeros((16, 16), np.uint8), image)
    model = folder / "model.keras"
    model.write_text("weights")
    told = []
    for fold in range(folds):
        history = [{"train/loss": 1 / e, "val/loss": 2 / e, "val/dice": (e + fold) / 9} for e in (1, 2, 3)]
        told += [Progress(fold, e, history[e - 1], (sample,) * (e == 1)) for e in (1, 2, 3)]
        result = FoldResult(
            fold=fold, state="completed", best_epoch=3, epochs=3, metrics=history[-1], per_image={"b": 0.5},
            seconds=1.0, parameters=7, peak_memory_mib=5.0, model=model, history=history, fingerprint="f",
        )  # fmt: skip
        told.append(Progress(fold, 3, history[-1], (sample,), result))
    return told


def train(client: MlflowClient, study: StudyRun, told: list[Progress]) -> None:
    """Do what driver and worker do with a trial."""
    trial = tree.open_trial(client, study, "trial-000", {"tile": "64", "model/name": "unet"}, 0)
    record = Recorder(trial, CONFIG, FOLDS)
    for progress in told:
        record(progress)
    tree.end_children(client, trial.experiment_id, trial.run_id, "completed", "all folds")
    tree.end(client, trial.run_id, "completed", "all folds")


def contents(client: MlflowClient, study: StudyRun) -> list[object]:
    """Return all that the store holds below a study, ids and times apart; what is there twice counts twice."""
    runs = []
    for trial in tree.children(client, study.experiment_id, study.run_id):
        runs += [trial, *tree.children(client, study.experiment_id, trial.info.run_id)]
    apart = (tree.KEY, tree.PARENT, tree.STUDY)
    return [
        (
            run.info.run_name,
            run.info.status,
            {name: value for name, value in run.data.tags.items() if name not in apart},
            run.data.params,
            points(client, run),
            files(run),
        )
        for run in runs
    ]


def points(client: MlflowClient, run: Run) -> Counter:
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return Counter((name, point.step, point.value) for name in histories for point in histories[name])


def files(run: Run) -> Counter:
    """Count files by name and size; time and number in a picture's name are its run's."""
    root = Path(run.info.artifact_uri)
    there = [path for path in root.rglob("*") if path.is_file()]
    plain = [re.sub(r"timestamp\+\d+\+[0-9a-f-]{36}", "", str(path.relative_to(root))) for path in there]
    return Counter(zip(plain, (path.stat().st_size for path in there), strict=True))


@pytest.mark.parametrize(
    ("how", "folds"),
    [
        ("half", 1),
        pytest.param("unwritten", 2, marks=pytest.mark.slow),
        pytest.param("half", 2, marks=pytest.mark.slow),
        pytest.param("unanswered", 2, marks=pytest.mark.slow),
    ],
)
def test_a_trial_killed_at_any_write_and_told_anew_is_as_if_it_had_not_been(
    mortal, monkeypatch, tmp_path, how, folds
):
    told = events(tmp_path, folds)
    whole = tree.open_study(mortal, f"whole {how} {folds}")
    train(mortal, whole, told)
    expected = contents(mortal, whole)
    assert [run[0] for run in expected] == ["trial-000", "trial-000/fold-1", "trial-000/fold-2"][: 1 + folds]
    monkeypatch.setattr(Mortal, "how", how)
    for write in itertools.count(1):
        study = tree.open_study(mortal, f"killed {how} {folds} {write}")
        Mortal.left = write
        try:
            train(mortal, study, told)
        except KilledError:
            Mortal.left = NEVER
            train(mortal, study, told)
            assert contents(mortal, study) == expected, f"killed at write {write}"
        else:
            break
        finally:
            Mortal.left = NEVER
    assert write > 6 * folds + 4
