"""A tracking server that is killed and away for a minute while a trial is recorded: all of it arrives, once."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from microseg.tracking import store, tree
from microseg.training import Progress

AWAY = 60.0  # seconds

pytestmark = pytest.mark.slow


class Server:
    """An MLflow server over sqlite, and what may happen to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | quiet,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.5)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # its workers are processes of its group
        self.process.wait(30)

    def outage(self) -> None:
        self.kill()
        time.sleep(AWAY)
        self.start()


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    for name in store.SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    server = Server(tmp_path)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def during(events: list[Progress], number: int, thread: threading.Thread) -> Iterator[Progress]:
    """Yield events; with one of them something else begins, and goes on while the rest are told."""
    for index, event in enumerate(events):
        if index == number:
            thread.start()
        yield event


def test_a_server_that_is_away_for_a_minute_gets_everything_once(server, told, train, contents):
    client, events = store.connect(server.address), told(4)
    whole = tree.open_study(client, "whole")
    train(client, whole, events)
    outage = threading.Thread(target=server.outage)
    study = tree.open_study(client, "outage")
    train(client, study, during(events, 6, outage))
    outage.join()
    assert contents(client, study) == contents(client, whole)
    assert len(client.search_runs([study.experiment_id], f"tags.`{tree.STUDY}` = 'outage'")) == 1 + 1 + 4


def test_a_request_that_the_server_did_and_never_answered_is_done_once(
    server, monkeypatch, told, train, contents
):
    """Every first answer is lost on its way, as that of a server which dies before it answers."""
    client, events = store.connect(server.address), told(2)
    whole, study = tree.open_study(client, "whole"), tree.open_study(client, "unanswered")
    train(client, whole, events)
    original, dropped = HTTPConnectionPool._make_request, set()

    def _make_request(self, connection, method, url, *args, **kwargs):
        response = original(self, connection, method, url, *args, **kwargs)
        if method != "GET" and (url, kwargs.get("body")) not in dropped:
            dropped.add((url, kwargs.get("body")))
            raise ConnectionResetError("the server died before it answered")
        return response

    monkeypatch.setattr(HTTPConnectionPool, "_make_request", _make_request)
    train(client, study, events)
    monkeypatch.undo()
    assert len(dropped) > 20
    assert contents(client, study) == contents(client, whole)
