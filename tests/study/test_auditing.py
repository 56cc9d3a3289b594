"""What a study says of its audit, and what its run in MLflow keeps."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from rich.console import Console

from microseg.data.audit import Finding, Pair
from microseg.data.images import write_image
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.study import auditing
from microseg.study.request import Prepared

FINDINGS = (
    Finding(level="warn", check="near_duplicate", text="a and b", advice="leave one out [x]",
            items=("a", "b"), pairs=(Pair(one="a", other="b", correlation=0.9),)),
    Finding(level="note", check="class_balance", text="foreground is 10%"),
)  # fmt: skip


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A study of two images with two findings; nothing of it is trained."""
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    for name in "ab":
        write_image(tmp_path / f"set/images/{name}.png", np.full((8, 8), ord(name), np.uint8))
        write_image(tmp_path / f"set/masks/{name}.png", np.eye(8, dtype=np.uint8))
    manifest = open_dataset(tmp_path / "set", DataOptions(), tmp_path / "home/cache")
    return Prepared(None, None, manifest, manifest, (), FINDINGS)


@pytest.fixture
def client(tmp_path, monkeypatch) -> MlflowClient:
    """A store in plain files: the tables of a database take seconds to make."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    client.create_experiment("audits")
    return client


def artifact(client, run, path):
    return Path(
        download_artifacts(run_id=run, artifact_path=path, tracking_uri=client.tracking_uri)
    ).read_text()


def test_warnings_are_told_with_what_to_do_and_notes_are_not():
    said = io.StringIO()
    auditing.tell(FINDINGS, Console(file=said, width=20))
    assert said.getvalue() == "audit: a and b; leave one out [x]\n"


def test_the_run_keeps_a_table_and_a_page_and_a_resumed_study_replaces_them(client, prepared):
    """MLflow appends to a table that exists: the findings of a resumed study stood there twice."""
    experiment = client.get_experiment_by_name("audits").experiment_id
    run = client.create_run(experiment).info.run_id
    for _ in range(2):
        auditing.record(client, run, prepared)
        table = json.loads(artifact(client, run, auditing.TABLE))
        assert table["columns"] == ["level", "check", "text", "advice", "items"]
        assert table["data"] == [
            ["warn", "near_duplicate", "a and b", "leave one out [x]", "a, b"],
            ["note", "class_balance", "foreground is 10%", "", ""],
        ]
    tables = json.loads(client.get_run(run).data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": auditing.TABLE, "type": "table"}]
    assert artifact(client, run, auditing.PAGE).count('<img src="data:image/png') == 2
