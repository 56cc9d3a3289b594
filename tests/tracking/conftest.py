"""One tracking store for all tests of this folder: making its tables takes seconds."""

import pytest
from mlflow import MlflowClient

from microseg.tracking import store


@pytest.fixture(scope="session")
def client(tmp_path_factory) -> MlflowClient:
    folder = tmp_path_factory.mktemp("mlflow")
    client = store.connect(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment(store.EXPERIMENT, artifact_location=str(folder / "artifacts"))
    return client


@pytest.fixture(autouse=True)
def _no_run_given(monkeypatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
