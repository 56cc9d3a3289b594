"""A trial's process is begun before the trial is proposed, serves it alone, and has looked for no GPU."""

import argparse
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import trials as benchmark  # tests/benchmarks/trials.py
from ray import cloudpickle
from ray.tune.execution import class_cache

from microseg.data.synthetic import write_demo
from microseg.search import standby
from microseg.search.session import ray_session

LOADED = """
import sys
from microseg.search import standby

standby.load()
assert {"tensorflow", "mlflow", "microseg.training", "microseg.tracking.recorder"} <= set(sys.modules)
assert not {"sklearn", "matplotlib", "optuna"} & set(sys.modules)
from tensorflow.python.eager import context

found = context.context()
assert found._physical_devices is None and found._context_handle is None, "a GPU was looked for"
"""


def test_what_is_loaded_before_looks_for_no_gpu():
    """Ray says which one is a process's own only when it gives it an actor; what was found first stays."""
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_cannot_be_loaded_is_left_to_the_trial(monkeypatch, caplog):
    def import_tensorflow():
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(standby.runtime, "import_tensorflow", import_tensorflow)
    with caplog.at_level(logging.ERROR):
        standby.load()
    assert "libcudart.so.12" in caplog.text


def test_nothing_is_loaded_where_that_looks_for_a_gpu(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(standby.runtime, "import_tensorflow", lambda: pytest.fail("loaded"))
    standby.load()


class Trial:
    """Stands for a trial's actor: its environment is one that only such actors have."""

    def prepare(self):
        standby.prepare_successor()

    def prepare_in_vain(self):
        nodes = [node | {"NodeManagerPort": 1} for node in ray.nodes()]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(standby.ray, "nodes", lambda: nodes)
            patch.setattr(standby, "ANSWER_S", 1.0)
            standby.prepare_successor()

    def process(self):
        return os.getpid()


MARK = {"MICROSEG_TEST": "standby"}


def waiting() -> set[int]:
    """Return the processes with the actors' environment that have no actor yet."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    rows = [line.split(maxsplit=1) for line in listed.splitlines()]
    found = {int(pid) for pid, name in rows if name.startswith("ray::IDLE")}
    entry = "=".join(*MARK.items()).encode()
    return {pid for pid in found if entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}


def prepared() -> set[int]:
    """Return what waits, once something does."""
    end = time.monotonic() + 60
    while not (found := waiting()):
        assert time.monotonic() < end, "no process stands by"
        time.sleep(0.1)
    return found


def test_a_trial_gets_the_process_that_stands_by_and_no_other_trial_does(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(class_cache, "DEFAULT_ENV_VARS", MARK)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_session():
        trial = class_cache._ActorClassCache().get(Trial)  # as Tune makes it
        standby.prepare_first(1)
        there = prepared()
        first = trial.options(num_cpus=1).remote()
        assert {ray.get(first.process.remote())} == there and not waiting()

        ray.get(first.prepare_in_vain.remote())  # no fault of the trial
        ray.get(first.prepare.remote())
        next_one = prepared()
        ray.kill(first)
        others = [trial.options(num_cpus=1).remote() for _ in range(2)]
        taken = set(ray.get([other.process.remote() for other in others]))
        assert len(next_one) == 1 and next_one < taken and not taken & there and len(taken) == 2


@pytest.mark.slow
def test_each_trial_of_a_study_has_a_process_of_its_own_that_stood_by(tmp_path):
    write_demo(tmp_path / "data", images=12, sessions=4)
    trials = benchmark.studied(argparse.Namespace(trials=3, epochs=6), 1, tmp_path / "study")
    assert all(benchmark.stood_by(trial) for trial in trials)
    assert len({trial["process"][0] for trial in trials}) == 3
