"""A Ray cluster of two machines, both on this host: its address is all that changes."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from microseg.report import find_study
from microseg.tracking import tree

pytestmark = pytest.mark.slow

SPACE = {
    "trials": 2,
    "folds": 2,
    "asha": None,
    "race": None,
    "concurrency": 2,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": {"choice": [4, 6]}}},
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [5e-3, 2e-2]}}},
        "augment": {"name": "flips"},
        "preprocess": {"name": "percentile", "params": {"clahe": 4.0}},
        "tile": 64,
        "epochs": 3,
        "steps_per_epoch": 6,
    },
}


# A head asks for a token where a local Ray has left one (ray 2.60); whoever joins by an explicit address has
# to be told so.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """Two machines of one core each, as `ray start` makes them: they know nothing of who will use them."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        kept = {name: env[name] for name in ("PATH", "HOME", "RAY_worker_niceness")}
        self._env = kept | TOKEN
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
        self._machines: dict[Path, subprocess.Popen[bytes]] = {}
        self._start("head", *head, f"--ray-client-server-port={free_port()}")
        self._start("other", f"--address={self.address}")

    def _start(self, name: str, *options: str) -> None:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            *("--num-cpus=1", "--num-gpus=0", f"--object-store-memory={100 * 2**20}"),
            *("--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"),
            *options,
        ]
        log = self._folder / f"{name}.log"
        with log.open("wb") as out:
            machine = subprocess.Popen(
                command, cwd="/", env=self._env, start_new_session=True, stdout=out, stderr=out
            )
        self._machines[log] = machine
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert machine.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        for machine in reversed(self._machines.values()):
            machine.send_signal(signal.SIGTERM)  # which ends what it started, and no other Ray
        for machine in self._machines.values():
            try:
                machine.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(machine.pid, signal.SIGKILL)
                machine.wait(30)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in):
    """The same study on this machine, then on the cluster."""
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    desk.run("demo-data", "cells", "--images", "12", "--sessions", "8")
    (desk.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    search = ("search", "--data", "cells", "--space", "space.yaml", "--study")
    desk.run(*search, "here")
    desk.decoded = arrays(desk.folder)
    # Short, because Ray puts sockets in it, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        cluster = Cluster(Path(folder), desk.env)
        try:
            desk.env["RAY_ADDRESS"] = cluster.address
            desk.refusal = desk.run(*search, "refused", code=2)
            desk.env |= TOKEN
            desk.run(*search, "there")
        finally:
            cluster.stop()
    return desk


def arrays(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / ".microseg").rglob("*.npy")}


def trials(desk, name: str) -> list:
    study = find_study(desk.client, name)
    found = tree.children(desk.client, study.info.experiment_id, study.info.run_id)
    return sorted(found, key=lambda run: run.info.run_name)


def test_trials_run_on_both_machines_at_once(desk):
    """Each machine has one core and each trial takes one: those that overlap are on two machines."""
    first, second = trials(desk, "there")
    assert first.data.tags["microseg.worker"] != second.data.tags["microseg.worker"]
    assert max(first.info.start_time, second.info.start_time) < min(first.info.end_time, second.info.end_time)


def test_the_result_is_that_of_one_machine(desk):
    for here, there in zip(trials(desk, "here"), trials(desk, "there"), strict=True):
        assert here.data.params == there.data.params
        assert here.data.tags[tree.STATE] == there.data.tags[tree.STATE] == "completed"
        assert there.data.metrics["cv/dice_mean"] == pytest.approx(
            here.data.metrics["cv/dice_mean"], abs=1e-6
        )


def test_images_that_were_decoded_once_are_not_decoded_again(desk):
    assert desk.decoded and arrays(desk.folder) == desk.decoded


def test_a_driver_without_the_token_is_told_what_to_do(desk):
    assert "no Ray cluster answers there" in desk.refusal and "RAY_AUTH_MODE=token" in desk.refusal
