"""A tracking store for all tests of this folder, and a training to be recorded in it or in another one."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from microseg.config import Component, TrialConfig
from microseg.folds import Fold
from microseg.tracking import store, tree
from microseg.tracking.recorder import Recorder
from microseg.tracking.tree import StudyRun
from microseg.training import FoldResult, Progress, Sample


@pytest.fixture(scope="session")
def client(tmp_path_factory) -> MlflowClient:
    """Return a client of one store for all tests: making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = store.connect(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment(store.EXPERIMENT, artifact_location=str(folder / "artifacts"))
    return client


@pytest.fixture(autouse=True)
def _no_run_given(monkeypatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def told(tmp_path) -> Callable[[int], list[Progress]]:
    """Return what a training of some folds tells: three epochs each, pictures of the first one and of the end."""
    image = np.zeros((16, 16, 1), np.float32)
    sample = Sample("cell/1", image, np.zeros((16, 16), np.uint8), image)
    model = tmp_path / "model.keras"
    model.write_text("weights")

    def fold(index: int) -> Iterator[Progress]:
        history = [{"train/loss": 1 / e, "val/loss": 2 / e, "val/dice": (e + index) / 9} for e in (1, 2, 3)]
        for epoch, metrics in enumerate(history, 1):
            yield Progress(index, epoch, metrics, (sample,) * (epoch == 1))
        result = FoldResult(
            fold=index, state="completed", best_epoch=3, epochs=3, metrics=history[-1], per_image={"b": 0.5},
            seconds=1.0, parameters=7, peak_memory_mib=5.0, model=model, history=history, fingerprint="f",
        )  # fmt: skip
        yield Progress(index, 3, history[-1], (sample,), result)

    return lambda folds: [event for index in range(folds) for event in fold(index)]


@pytest.fixture
def train() -> Callable[[MlflowClient, StudyRun, Iterable[Progress]], None]:
    """Return a function that does what driver and worker do with a trial."""

    def train(client: MlflowClient, study: StudyRun, events: Iterable[Progress]) -> None:
        trial = tree.open_trial(client, study, "trial-000", {"tile": "64", "model/name": "unet"}, 0)
        folds = [Fold(index=index, train=("a",), valid=("b",)) for index in range(9)]
        record = Recorder(trial, TrialConfig(model=Component(name="unet")), folds)
        for event in events:
            record(event)
        tree.end_children(client, trial.experiment_id, trial.run_id, "completed", "all folds")
        tree.end(client, trial.run_id, "completed", "all folds")

    return train


@pytest.fixture
def contents() -> Callable[[MlflowClient, StudyRun], list[object]]:
    """Return a function that lists all below a study, ids and times apart; what is there twice counts twice."""
    apart = (tree.KEY, tree.PARENT, tree.STUDY)

    def contents(client: MlflowClient, study: StudyRun) -> list[object]:
        runs = []
        for trial in tree.children(client, study.experiment_id, study.run_id):
            runs += [trial, *tree.children(client, study.experiment_id, trial.info.run_id)]
        return [
            (
                run.info.run_name,
                run.info.status,
                {name: value for name, value in run.data.tags.items() if name not in apart},
                run.data.params,
                _points(client, run),
                Counter(_files(client, run)),
            )
            for run in runs
        ]

    return contents


def _points(client: MlflowClient, run: Run) -> Counter:
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return Counter((name, point.step, point.value) for name in histories for point in histories[name])


def _files(client: MlflowClient, run: Run, folder: str = "") -> Iterator[tuple[str, int]]:
    """Yield files by name and size; time and number in a picture's name are its run's."""
    for file in client.list_artifacts(run.info.run_id, folder or None):
        if file.is_dir:
            yield from _files(client, run, file.path)
        else:
            yield re.sub(r"timestamp\+\d+\+[0-9a-f-]{36}", "", file.path), file.file_size
