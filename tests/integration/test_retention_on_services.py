"""Old studies go from real services: runs by the API, rows and objects by who reaches the database."""

import os
import time
import unittest.mock
from pathlib import Path

import mlflow
import optuna
import pytest

from microseg.config import SearchConfig
from microseg.search import database
from microseg.study.request import Request, StudyState, optuna_file, state_file
from microseg.tracking import garbage, tree

pytestmark = pytest.mark.slow
LONG_AGO = int((time.time() - 100 * 24 * 3600) * 1000)


@pytest.fixture
def clean(auth_server, called, tmp_path, monkeypatch):
    """Return a function that calls `microseg clean` as the administrator, or as whom the variables name."""
    for name, value in (auth_server.variables() | {"MICROSEG_HOME": str(tmp_path / "home")}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(auth_server.address)

    def call(*options, code=0, **variables):
        with unittest.mock.patch.dict(os.environ, variables):
            ended, out, err = called("clean", *options)
        assert ended == code, out + err
        return err if code else out

    yield call
    mlflow.set_tracking_uri(None)  # as if it had never been set


@pytest.fixture
def old(clean, postgres, monkeypatch):
    """A study of one trial and one fold with a file on S3 and rows in PostgreSQL, which ended long ago."""
    monkeypatch.setenv(database.URL, postgres.database("trials"))
    client = mlflow.MlflowClient()
    run = tree.open_study(client, "old")
    trial = tree.open_trial(client, run, "trial-000", {"epochs": "3"}, 0)
    fold = tree.open_fold(client, trial, 0).info.run_id
    client.log_text(fold, "x" * 1000, "model/network.keras")
    for run_id in (fold, trial.run_id, run.run_id):
        tree.end(client, run_id, "completed")
        client.set_terminated(run_id, end_time=LONG_AGO)
    state_file("old").parent.mkdir(parents=True)
    request = Request(name="old", data="/data", config=SearchConfig(space={}))
    state_file("old").write_text(StudyState(request=request, digest="0", run_id=run.run_id).model_dump_json())
    storage, name = database.opened(optuna_file("old"), "old")
    optuna.create_study(storage=storage, study_name=name)
    storage.engine.dispose()
    database.remember(optuna_file("old"), name)
    return {fold, trial.run_id, run.run_id}


def trials(postgres):
    with postgres.connect("trials") as server:
        return server.execute("SELECT study_name FROM studies").fetchall()


def test_an_old_study_goes_from_mlflow_s3_postgresql_and_this_machine(
    clean, old, auth_server, postgres, s3_server, tmp_path
):
    client, backend = mlflow.MlflowClient(), auth_server.environment()[garbage.BACKEND]
    analyst = auth_server.user("analyst")
    assert len(trials(postgres)) == 1 and any("network.keras" in key for key in s3_server.keys("mlflow"))
    refused = clean("--yes", code=2, **analyst)
    assert "study old could not be deleted" in refused and refused.count("\n") == 1
    assert "goes    study old, ended " in clean()
    said = clean("--yes")
    assert f"set {garbage.BACKEND} and repeat this" in said
    assert not {run.info.run_id for run in client.search_runs(["0", "1"])} & old
    assert any("network.keras" in key for key in s3_server.keys("mlflow"))  # it can still be restored
    assert trials(postgres) == []
    assert not Path(tmp_path, "home", "studies", "old").exists()
    said += clean("--yes", "--restorable", "0", **{garbage.BACKEND: backend})
    assert "purged  3 deleted runs" in said
    assert not any("network.keras" in key for key in s3_server.keys("mlflow"))
    for run_id in old:
        with pytest.raises(mlflow.MlflowException, match="not found"):
            client.get_run(run_id)
    for secret in (auth_server.password, postgres.password, analyst["MLFLOW_TRACKING_PASSWORD"]):
        assert secret not in said + refused
