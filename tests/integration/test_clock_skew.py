"""Machines whose clocks are hours apart, and set back between two runs: times and end of a study are right.

A library that is loaded before all others shifts the time of day of all processes of a machine. The servers'
clock is that of the test.
"""

import json
import struct
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import pytest
from mlflow import MlflowClient
from services import TOKEN, Machine, may_live_apart

from microseg import report
from microseg.tracking import tree

pytestmark = pytest.mark.slow

HOUR = 3600
SPACE = {"concurrency": 2, "epochs": 6}


class Clock:
    """A clock that is wrong by some seconds, for processes with ``variables`` in their environment."""

    VARIABLES = ("LD_PRELOAD", "SKEWED_CLOCK")
    library = Path()
    number = count()

    def __init__(self, seconds: int = 0) -> None:
        self.file = self.library.with_name(f"clock-{next(self.number)}")
        self.file.write_bytes(bytes(8))
        self.set(seconds)
        self.variables = dict(zip(self.VARIABLES, (str(self.library), str(self.file)), strict=True))

    def set(self, seconds: int) -> None:
        with self.file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture(scope="module", autouse=True)
def library(tmp_path_factory):
    """Build the library that shifts clocks."""
    source = Path(__file__).with_name("skewed_clock.c")
    Clock.library = tmp_path_factory.mktemp("clocks") / "skewed_clock.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(Clock.library), str(source), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no C compiler here, for the library that shifts clocks: apt-get install gcc libc6-dev")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def lab(tmp_path_factory, desk_in, s3_server, auth_server, postgres, monkeypatch):
    """A study on a machine an hour behind and one an hour ahead, which dies while it trains.

    After that it goes on with a trial more, on the driver's machine, whose clock was set back two hours. While
    Ray runs, the clock of its head must not be set back: it noticed no dead machine for minutes (2.60).
    """
    if not may_live_apart():
        pytest.skip("no namespaces for this user: a machine's processes could not be ended at once")
    desk, homes = desk_in(tmp_path_factory.mktemp("desk")), tmp_path_factory.mktemp("machines")
    search = desk.begin(**SPACE)
    driver, behind, ahead = Clock(), Clock(-HOUR), Clock(HOUR)
    before = dict(desk.env)
    desk.env |= s3_server.variables | auth_server.variables() | TOKEN | driver.variables
    desk.env["MICROSEG_OPTUNA_URL"] = postgres.database("optuna")
    for name, value in auth_server.variables().items():
        monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # short: it gets sockets
        head = Machine.head("head", homes / "head", before, Path(folder), cores=1)
        other = Machine(
            "another", homes / "another", before,
            f"--address={head.address}", "--node-ip-address=127.0.0.2", "--num-cpus=1",
        )  # fmt: skip
        head.env |= behind.variables
        other.env |= ahead.variables
        desk.env["RAY_ADDRESS"] = head.address
        try:
            head.start()
            other.start(tmp_path_factory.mktemp("hidden"))
            s3_server.bucket("lab")
            desk.env["MICROSEG_STORE"] = "s3://lab/skewed"
            desk.refusal = desk.run(*search[:-1], "refused", code=2)
            del desk.env["MICROSEG_STORE"]
            desk.began = time.time()
            study = desk.start(*search)
            trial = wait_for_trial(desk, MlflowClient(auth_server.address), "another", study)
            while not (trial / "fold-0/checkpoint/checkpoint.json").exists():
                assert study.poll() is None, study.communicate()
                time.sleep(0.1)
            other.kill()
            out, err = study.communicate(timeout=300)
            assert study.returncode == 0, out + err
            desk.incidents = [json.loads(file.read_text()) for file in desk.folder.rglob("incidents.json")]
        finally:
            for machine in (other, head):
                if hasattr(machine, "process"):
                    machine.stop()
    driver.set(-2 * HOUR)
    for name in ("RAY_ADDRESS", *TOKEN):
        del desk.env[name]
    desk.said = out + desk.run("search", "--study", "first", "--resume", "--trials", "3")
    desk.ended = time.time()
    desk.server = MlflowClient(auth_server.address)
    return desk


def wait_for_trial(desk, client: MlflowClient, machine: str, study: subprocess.Popen) -> Path:
    """Return the folder of the first trial that a machine trains."""
    condition = f"tags.`microseg.worker` LIKE '{machine},%'"
    while True:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        for run in client.search_runs(experiments, condition):
            return desk.folder / ".microseg/studies/first" / run.info.run_name
        assert study.poll() is None, study.communicate()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def view(lab):
    return report.view(lab.server, report.find_study(lab.server, "first"))


@pytest.fixture(scope="module")
def runs(lab, view):
    return list(tree.search(lab.server, view.run.info.experiment_id, "tags.`microseg.level` != ''"))


def test_s3_and_a_clock_that_it_refuses_is_told_of_before_anything_starts(lab):
    assert (
        lab.refusal.startswith("microseg: machine another of the Ray cluster cannot keep")
        and lab.refusal.count("\n") == 1
    )
    assert "this machine's clock is over 15 minutes from the server's; set it" in lab.refusal


def test_all_trials_end_and_nothing_is_doubled(lab, view, runs):
    assert [row.state for row in view.rows] == ["completed"] * 3
    expected = [f"trial-00{n}{fold}" for n in range(3) for fold in ("", "/fold-1", "/fold-2")]
    assert sorted(run.info.run_name for run in runs) == sorted(["first", *expected])
    assert {(run.info.status, run.data.tags[tree.STATE]) for run in runs} == {("FINISHED", "completed")}
    for run in runs:
        if "/" in run.info.run_name:
            history = lab.server.get_metric_history(run.info.run_id, "val/dice")
            assert [point.step for point in history] == [*range(1, len(history) + 1)]


def test_the_dead_machine_alone_was_taken_for_dead_and_the_trial_is_blameless(lab):
    assert lab.incidents == [[["machine_lost", "the worker's machine was lost", 1]]]


def test_all_times_are_by_the_clock_of_the_server(lab, runs):
    """Each run ended after it began, within the run above it, and as long ago as it really is."""
    found = {run.info.run_id: run.info for run in runs}
    for run in runs:
        info, above = run.info, found.get(run.data.tags.get(tree.PARENT, ""), run.info)
        assert lab.began - 2 <= info.start_time / 1000 <= info.end_time / 1000 <= lab.ended + 2
        assert above.start_time - 2000 <= info.start_time and info.end_time <= above.end_time + 2000
        for metric in run.data.metrics:
            for point in lab.server.get_metric_history(info.run_id, metric):
                assert info.start_time - 2000 <= point.timestamp <= lab.ended * 1000 + 2000


def test_the_best_trial_and_the_costs_are_right(lab, view, runs):
    means = {run.info.run_name: run.data.metrics.get("cv/dice_mean") for run in runs}
    assert means[view.rows[0].name] == max(means[row.name] for row in view.rows)
    trained = [run.data.metrics["seconds"] for run in runs if "/" in run.info.run_name]
    assert all(0 < seconds < lab.ended - lab.began for seconds in trained)
    assert all(row.seconds >= 0 for row in view.rows) and "-" not in view.run.data.tags["cost"]
    assert "done in -" not in lab.said
