"""A study on a Ray cluster is that of one machine: on two that share a folder, and on machines that share nothing.

Of those, one dies in the middle. Each is a Ray node in namespaces of its own: it has another name and address,
its processes die with it, and where the driver and the other machines keep files it sees an empty folder.
"""

import os
import signal
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from services import TOKEN, Machine, may_live_apart

from microseg.report import find_study
from microseg.tracking import tree

pytestmark = pytest.mark.slow

SPACE = {
    "concurrency": 2,
    "model": {"name": "unet", "params": {"depth": 2, "filters": {"choice": [4, 6]}}},
    "augment": {"name": "flips"},
    "preprocess": {"name": "percentile", "params": {"clahe": 4.0}},
    "tile": 64,
    "epochs": 4,
}
ON = "search", "--space", "space.yaml", "--study"


@contextmanager
def running(machines):
    """Start machines in their order, each with the folders that it shall not see; end them, the last one first."""
    started = []
    try:
        for machine, hidden in machines:
            started.append(machine)
            machine.start(*hidden)
        yield
    finally:
        for machine in reversed(started):
            machine.stop()


@contextmanager
def short_folder():
    """Yield a folder for a cluster's sockets, whose paths may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield Path(folder)


def joining(head, number):
    """Return the words with which a machine of one core joins a cluster on this host."""
    return f"--address={head.address}", f"--node-ip-address=127.0.0.{number}", "--num-cpus=1"


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in):
    """The study on this machine."""
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    desk.run(*desk.begin("here", **SPACE))
    desk.decoded = arrays(desk.folder)
    return desk


@pytest.fixture(scope="module")
def cluster(desk, tmp_path_factory):
    """The study on two machines of one core each, which see the same folders; and what a stranger is told."""
    homes, before = tmp_path_factory.mktemp("cluster"), dict(desk.env)
    with short_folder() as folder:
        head = Machine.head("head", homes / "head", desk.env, folder, cores=1)
        other = Machine("other", homes / "other", desk.env, *joining(head, 2))
        with running([(head, ()), (other, ())]):
            desk.env["RAY_ADDRESS"] = head.address
            refusal = desk.run(*ON, "refused", "--data", "cells", code=2)
            desk.env |= TOKEN
            desk.run(*ON, "there", "--data", "cells")
    desk.env = before
    return SimpleNamespace(refusal=refusal, decoded=arrays(desk.folder), elsewhere=[*homes.rglob("*.npy")])


def arrays(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / ".microseg").rglob("*.npy")}


def trials(client: MlflowClient, name: str) -> list:
    study = find_study(client, name)
    found = tree.children(client, study.info.experiment_id, study.info.run_id)
    return sorted(found, key=lambda run: run.info.run_name)


def assert_same(client: MlflowClient, here: str, there: list) -> None:
    """Compare the trials of a study with those of the study of this machine."""
    for one, other in zip(trials(client, here), there, strict=True):
        assert one.data.params == other.data.params
        assert one.data.tags[tree.STATE] == other.data.tags[tree.STATE] == "completed"
        assert other.info.status == "FINISHED"
        assert other.data.metrics["cv/dice_mean"] == pytest.approx(one.data.metrics["cv/dice_mean"], abs=1e-6)


def test_trials_run_on_both_machines_at_once(desk, cluster):
    """Each machine has one core and each trial takes one: those that overlap are on two machines."""
    first, second = trials(desk.client, "there")
    assert first.data.tags["microseg.worker"] != second.data.tags["microseg.worker"]
    assert max(first.info.start_time, second.info.start_time) < min(first.info.end_time, second.info.end_time)


def test_the_result_is_that_of_one_machine(desk, cluster):
    assert_same(desk.client, "here", trials(desk.client, "there"))


def test_images_that_were_decoded_once_are_not_decoded_again(desk, cluster):
    assert desk.decoded and cluster.decoded == desk.decoded and not cluster.elsewhere


def test_a_driver_without_the_token_is_told_what_to_do(cluster):
    assert "no Ray cluster answers there" in cluster.refusal and "RAY_AUTH_MODE=token" in cluster.refusal


def texts(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder in which others work."""
    found = {}
    for file in folder.rglob("*"):
        with suppress(OSError):
            if file.is_file():
                found[str(file)] = file.read_bytes()
    return found


def command_lines() -> set[bytes]:
    """Return those of all processes on this host, which everybody on it may read."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.add(file.read_bytes())
    return found


class Watch(threading.Thread):
    """Looks at the store while a study runs, and kills the machine of the first trial that is in the middle.

    It looks at the processes too.
    """

    def __init__(self, server, machines, client) -> None:
        super().__init__(daemon=True)
        self.server, self.machines, self.client = server, {one.name: one for one in machines}, client
        self.seen: set[tuple[str, ...]] = set()
        self.commands: set[bytes] = set()
        self.victim, self.trial = "", ""
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            self.commands |= command_lines()
            for key in self.server.keys("lab", "state/studies/"):
                parts = tuple(key.split("/")[3:])
                self.seen.add(parts)
                if parts[-1:] == ("state-2.npz",) and not self.victim:  # a folder may be listed, for a moment
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


@pytest.fixture(scope="module")
def lab(desk, tmp_path_factory, s3_server, auth_server):
    """The study on machines that share no folder, one of which is killed."""
    if not may_live_apart():
        pytest.skip("no namespaces for this user: the machines would see each other's files")
    s3_server.bucket("lab")
    for file in (desk.folder / "cells").rglob("*.*"):
        name = file.relative_to(desk.folder).as_posix()
        s3_server.client().upload_file(str(file), "lab", f"sets/{name}")
    homes, before = tmp_path_factory.mktemp("machines"), dict(desk.env)
    desk.env |= s3_server.variables | auth_server.variables() | TOKEN
    with pytest.MonkeyPatch.context() as patch, short_folder() as folder:
        for name, value in auth_server.variables().items():
            patch.setenv(name, value)
        desk.server = MlflowClient(auth_server.address)
        head = Machine.head("desk-machine", homes / "head", desk.env, folder, cores=0)
        desk.env["RAY_ADDRESS"] = head.address
        desk.machines = [
            Machine(f"machine-{number}", homes / str(number), desk.env, *joining(head, number))
            for number in (2, 3)
        ]
        desk.watch = Watch(s3_server, desk.machines, desk.server)
        with running([(head, ()), *((machine, (desk.folder, folder)) for machine in desk.machines)]):
            desk.refusal = desk.run(*ON, "refused", "--data", "s3://lab/sets/cells", code=2)
            desk.env["MICROSEG_STORE"] = "s3://lab/state"
            desk.watch.start()
            try:
                desk.run(*ON, "apart", "--data", "s3://lab/sets/cells")
            finally:
                desk.watch.done.set()
                desk.watch.join(30)
            desk.public = texts(folder) | texts(homes)  # Ray's logs, and the machines'
        desk.secrets = [
            desk.env[name] for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", *TOKEN)
        ]
        desk.env = before | s3_server.variables | {"MICROSEG_STORE": "s3://lab/state"}
        yield desk


def test_credentials_are_on_no_command_line_and_in_no_log(lab):
    """They reach the workers from memory to memory: the machines were started without them."""
    assert any(b"ray::" in line for line in lab.watch.commands) and len(lab.public) > 10
    told = {str(line): line for line in lab.watch.commands} | lab.public
    secrets = [secret.encode() for secret in lab.secrets if secret != "token"]  # the mode, not the token
    assert len(secrets) == 3
    assert {place for place, text in told.items() for secret in secrets if secret in text} == set()


def test_a_machine_that_sees_nothing_is_told_of_before_anything_starts(lab):
    assert lab.refusal.startswith("microseg: machine machine-") and lab.refusal.count("\n") == 1
    assert "does not see" in lab.refusal and "or set MICROSEG_STORE=s3://BUCKET/PREFIX" in lab.refusal
    assert not (lab.folder / ".microseg" / "studies" / "refused").exists()


def test_the_result_is_that_of_one_machine_although_one_died(lab):
    assert lab.watch.victim
    assert_same(lab.client, "here", trials(lab.server, "apart"))


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
    folds = {
        fold.info.run_id
        for trial in trials(lab.server, "apart")
        for fold in tree.children(lab.server, trial.info.experiment_id, trial.info.run_id)
    }
    stored = [key.split("/")[-4] for key in s3_server.keys("mlflow") if key.endswith("model/model.keras")]
    assert sorted(run for run in stored if run in folds) == sorted(folds) and len(folds) == 4
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
