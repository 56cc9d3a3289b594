"""Fixtures that every test may use: quiet libraries, and the real labelled images where they are."""

import gc
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

# Before any library is imported: no version checks over the network, no telemetry, no start-up chatter.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MICROSEG_SHARED", PROJECT.parent / "shared"))


LONG = ("integration", "deploy", "serving")  # folders whose files take minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: one that begins last keeps one process alone at the end."""
    items.sort(key=lambda item: item.path.relative_to(PROJECT / "tests").parts[0] not in LONG)


def pytest_collection_finish() -> None:
    """Keep what has been imported out of the garbage collector: Keras runs it whenever a training begins or ends."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout."""
    return PROJECT


@pytest.fixture
def real_data():
    """Return a function from a set's name to its folder; the test is skipped where the set is absent."""

    def find(name: str) -> Path:
        folder = SHARED / "data" / name
        if not folder.is_dir():
            pytest.skip(f"the labelled images '{name}' are not beside this checkout (MICROSEG_SHARED)")
        return folder

    return find


@pytest.fixture
def called(monkeypatch, capsys):
    """Call the command line in this process; return exit code, output and error text."""
    from microseg import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["microseg", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


class Server:
    """A real MLflow server over sqlite, and what may happen to it."""

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
        time.sleep(60)
        self.start()


@pytest.fixture
def tracking_server() -> Callable[[Path], Server]:
    """Return a function that starts an MLflow server in a folder; whoever calls it ends it."""

    def start(folder: Path) -> Server:
        server = Server(folder)
        server.start()
        server.wait()
        return server

    return start


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """Return an S3 server, see `services.ObjectStore`, which all tests of a session share."""
    from services import ObjectStore

    server = ObjectStore(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()
