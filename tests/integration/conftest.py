"""What the integration tests share: the command line, run as a user does."""

import os
import subprocess
import sys
import tempfile
import unittest.mock
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow import MlflowClient
from services import Postgres, TrackingServer, tiny_space

from microseg.data.synthetic import write_demo


class Desk:
    """A folder in which a user works."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self.env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("MLFLOW_", "RAY_", "MICROSEG_"))
        }
        self.env |= {"PYTHONPATH": str(project / "platform"), "MLFLOW_DISABLE_TELEMETRY": "true"}
        # Ray's workers give way to everything else: beside other tests they would wait for minutes.
        self.env["RAY_worker_niceness"] = "0"

    def begin(self, study: str = "first", **changes: object) -> tuple[str, ...]:
        """Write images and a `tiny_space`; return the words of its search."""
        write_demo(self.folder / "cells", images=12, sessions=8)
        (self.folder / "space.yaml").write_text(yaml.safe_dump(tiny_space(**changes)))
        return "search", "--data", "cells", "--space", "space.yaml", "--study", study

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "microseg", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=480)
        assert process.returncode == code, out + err
        return out if code < 2 else err  # 1 is an answer, such as: the champion stays

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")


@pytest.fixture(scope="session")
def desk_in(project):
    """Return a function from a folder to the desk of a user who works there."""
    return lambda folder: Desk(folder, project)


@pytest.fixture
def told(called, monkeypatch):
    """Return a function that calls a command as somebody at their desk, in this process: output and error text."""

    def call(desk: Desk, *arguments: str, code: int = 0, **variables: str) -> tuple[str, str]:
        with unittest.mock.patch.dict(os.environ, desk.env | variables, clear=True):
            monkeypatch.chdir(desk.folder)
            mlflow.set_tracking_uri(None)
            ended, out, err = called(*arguments)
            mlflow.set_tracking_uri(None)
        assert ended == code, out + err
        return out, err

    return call


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a PostgreSQL server, which all tests of a session share; each makes databases of its own."""
    with tempfile.TemporaryDirectory() as folder:  # not below pytest's, which is closed to other users
        server = Postgres(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def auth_server(tmp_path_factory, postgres, s3_server) -> Iterator[TrackingServer]:
    """Return an MLflow server with users over `postgres` and `s3_server`, one for each file of tests."""
    server = TrackingServer(tmp_path_factory.mktemp("mlflow"), postgres, s3_server)
    server.start()
    yield server
    server.stop()
