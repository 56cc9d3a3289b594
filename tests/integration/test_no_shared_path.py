"""Machines that share nothing but services: a study on them, one of which dies, is that of one machine.

Each machine is a Ray node in namespaces of its own: it has another name and address, its processes die with
it, and where the driver and the other machines keep files it sees an empty folder.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from services import free_ports

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
        "tile": 64,
        "epochs": 4,
        "steps_per_epoch": 4,
    },
}
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
APART = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


class Machine:
    """A Ray node; one that is ``apart`` sees none of the ``hidden`` folders and ends with all its processes."""

    def __init__(self, name: str, home: Path, env: dict[str, str], options: list[str]) -> None:
        self.name, self.home, self.log = name, home, home / "log"
        home.mkdir()
        self.command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            *("--num-gpus=0", f"--object-store-memory={100 * 2**20}", "--min-worker-port=0"),
            *("--max-worker-port=0", f"--dashboard-agent-listen-port={free_ports(1)[0]}", *options),
        ]
        kept = {name: env[name] for name in ("PATH", "HOME", "RAY_worker_niceness")}
        self.env = kept | TOKEN | {"MICROSEG_HOME": str(home / "microseg")}

    def start(self, *hidden: Path) -> None:
        command = self.command
        if hidden:
            mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in hidden)
            command = [*APART, "sh", "-c", f'hostname {self.name} && {mounts} && exec "$@"', "sh", *command]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=self.home, env=self.env, start_new_session=True, stdout=out, stderr=out
            )
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """End all its processes at once, as a machine does that loses power."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def stop(self) -> None:
        """Let Ray end what it started; a machine that is apart has a system of its own for that."""
        if self.process.args[0] == APART[0]:
            self.kill()
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


class Watch(threading.Thread):
    """Looks at the store while a study runs, and kills the machine of the first trial that is in the middle."""

    def __init__(self, server, machines, client) -> None:
        super().__init__(daemon=True)
        self.server, self.machines, self.client = server, {one.name: one for one in machines}, client
        self.seen: set[tuple[str, ...]] = set()
        self.victim, self.trial = "", ""
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            for key in self.server.keys("lab", "state/studies/"):
                parts = tuple(key.split("/")[3:])
                self.seen.add(parts)
                if parts[-1] == "state-2.npz" and not self.victim:
                    self._strike(parts[0])

    def _strike(self, trial: str) -> None:
        study = find_study(self.client, "apart")
        runs = tree.children(self.client, study.info.experiment_id, study.info.run_id)
        run = next(run for run in runs if run.info.run_name == trial)
        self.victim, self.trial = run.data.tags["microseg.worker"].partition(",")[0], trial
        self.machines[self.victim].kill()

    def epochs(self, attempt: str) -> set[int]:
        """Return the epochs of the first fold that an attempt at the trial has kept."""
        states = [parts[-1] for parts in self.seen if parts[:3] == (self.trial, attempt, "fold-0")]
        return {int(name.split("-")[1][:-4]) for name in states if name.startswith("state-")}


def may_live_apart() -> bool:
    return subprocess.run([*APART, "hostname", "apart"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def lab(tmp_path_factory, desk_in, s3_server, auth_server):
    """The same study on this machine, then on machines that share no folder, one of which is killed."""
    if not may_live_apart():
        pytest.skip("no namespaces for this user: the machines would see each other's files")
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    desk.run("demo-data", "cells", "--images", "12", "--sessions", "8")
    (desk.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    search = ("search", "--space", "space.yaml", "--study")
    desk.run(*search, "here", "--data", "cells")
    s3_server.bucket("lab")
    for file in (desk.folder / "cells").rglob("*.*"):
        name = file.relative_to(desk.folder).as_posix()
        s3_server.client().upload_file(str(file), "lab", f"sets/{name}")
    desk.env |= s3_server.variables | auth_server.variables() | TOKEN
    homes = tmp_path_factory.mktemp("machines")
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder,  # short: it gets sockets
    ):
        for name, value in auth_server.variables().items():
            patch.setenv(name, value)
        desk.server = MlflowClient(auth_server.address)
        (port,) = free_ports(1)
        desk.env["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        head = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
        head += [
            "--node-ip-address=127.0.0.1",
            f"--ray-client-server-port={free_ports(1)[0]}",
            "--num-cpus=0",
        ]
        machines = [Machine("desk-machine", homes / "head", desk.env, head)]
        for number in (2, 3):
            where = [f"--address=127.0.0.1:{port}", f"--node-ip-address=127.0.0.{number}", "--num-cpus=1"]
            machines.append(Machine(f"machine-{number}", homes / str(number), desk.env, where))
        started = []
        try:
            for machine in machines:
                started.append(machine)
                machine.start(*([desk.folder, Path(folder)] if machine is not machines[0] else []))
            desk.machines = machines[1:]
            desk.refusal = desk.run(*search, "refused", "--data", "s3://lab/sets/cells", code=2)
            desk.env["MICROSEG_STORE"] = "s3://lab/state"
            desk.watch = Watch(s3_server, desk.machines, desk.server)
            desk.watch.start()
            desk.said = desk.run(*search, "apart", "--data", "s3://lab/sets/cells")
        finally:
            if hasattr(desk, "watch"):
                desk.watch.done.set()
                desk.watch.join(30)
            for machine in reversed(started):
                machine.stop()
        yield desk


def trials(client: MlflowClient, name: str) -> list:
    study = find_study(client, name)
    found = tree.children(client, study.info.experiment_id, study.info.run_id)
    return sorted(found, key=lambda run: run.info.run_name)


def test_a_machine_that_sees_nothing_is_told_of_before_anything_starts(lab):
    assert lab.refusal.startswith("microseg: machine machine-") and lab.refusal.count("\n") == 1
    assert "does not see" in lab.refusal and "or set MICROSEG_STORE=s3://BUCKET/PREFIX" in lab.refusal
    assert not (lab.folder / ".microseg" / "studies" / "refused").exists()


def test_the_result_is_that_of_one_machine_although_one_died(lab):
    assert lab.watch.victim
    for here, there in zip(trials(lab.client, "here"), trials(lab.server, "apart"), strict=True):
        assert here.data.params == there.data.params
        assert there.info.status == "FINISHED" and there.data.tags[tree.STATE] == "completed"
        assert there.data.metrics["cv/dice_mean"] == pytest.approx(
            here.data.metrics["cv/dice_mean"], abs=1e-6
        )


def test_the_trial_went_on_elsewhere_from_its_last_checkpoint(lab):
    (run,) = [run for run in trials(lab.server, "apart") if run.info.run_name == lab.watch.trial]
    other = next(machine.name for machine in lab.machines if machine.name != lab.watch.victim)
    assert run.data.tags["microseg.worker"].startswith(f"{other},")
    assert max(lab.watch.epochs("000001")) <= min(lab.watch.epochs("000002"))


def test_nothing_is_doubled_and_every_fold_ended_once(lab):
    for trial in trials(lab.server, "apart"):
        folds = list(tree.children(lab.server, trial.info.experiment_id, trial.info.run_id))
        assert sorted(fold.info.run_name for fold in folds) == [
            f"{trial.info.run_name}/fold-{number}" for number in (1, 2)
        ]
        for fold in folds:
            assert fold.info.status == "FINISHED"
            steps = [point.step for point in lab.server.get_metric_history(fold.info.run_id, "val/dice")]
            assert steps == [*range(1, len(steps) + 1)]


def test_networks_are_on_s3_and_the_store_is_empty_afterwards(lab, s3_server):
    networks = [key for key in s3_server.keys("mlflow") if key.endswith("model/model.keras")]
    assert len(networks) == 4
    assert s3_server.keys("lab", "state/") == []


def test_each_machine_has_the_images_in_its_own_folder_and_no_state(lab):
    images = sorted(file.name for file in (lab.folder / "cells").rglob("*.tif"))
    for machine in lab.machines:
        own = machine.home / "microseg"
        assert sorted(file.name for file in own.glob("cache/remote/*/cells/**/*.tif")) == images
        left = [path.name for path in (own / "work").iterdir()]
        assert left == ["lock"] or machine.name == lab.watch.victim


def test_a_driver_that_was_killed_goes_on_from_the_store(lab, s3_server):
    """Its worker may live on; the state of the trial is that of one of them, whoever writes when."""
    for name in ("RAY_ADDRESS", *TOKEN, *(name for name in lab.env if name.startswith("MLFLOW_TRACKING"))):
        lab.env.pop(name, None)
    search = ("search", "--study", "killed", "--trials", "1")
    driver = lab.start(*search, "--data", "s3://lab/sets/cells", "--space", "space.yaml")
    while not any(key.endswith("state-2.npz") for key in s3_server.keys("lab", "state/studies/killed")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    lab.run(*search, "--resume")
    (there,) = trials(lab.client, "killed")
    here = next(run for run in trials(lab.client, "here") if run.info.run_name == there.info.run_name)
    assert there.info.status == "FINISHED" and there.data.tags[tree.STATE] == "completed"
    assert there.data.metrics["cv/dice_mean"] == pytest.approx(here.data.metrics["cv/dice_mean"], abs=1e-6)
    for fold in tree.children(lab.client, there.info.experiment_id, there.info.run_id):
        steps = [point.step for point in lab.client.get_metric_history(fold.info.run_id, "val/dice")]
        assert fold.info.status == "FINISHED" and steps == [*range(1, len(steps) + 1)]
    assert s3_server.keys("lab", "state/") == []
