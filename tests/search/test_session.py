"""The Ray of a study: what its machines have, what its workers inherit, and what it refuses at once."""

import os
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ray

from microseg import cluster
from microseg.cluster import carried_environment
from microseg.config import Component, SearchConfig
from microseg.errors import MicrosegError
from microseg.search import session
from microseg.search.resources import Node, Packing
from microseg.search.session import ray_session, ready, smallest_gpu


@pytest.mark.parametrize(
    ("script", "size"),
    [
        ("printf '81920\\n24576\\n'", 24576.0),
        ("printf '[N/A]\\n'", None),
        ("printf ''", None),
        ("exit 9", None),
        (None, None),
    ],
)
def test_the_smallest_gpu_is_asked_of_nvidia_smi(tmp_path, monkeypatch, script, size):
    if script:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smallest_gpu() == size


def test_dead_machines_do_not_count(monkeypatch):
    rows = [
        {"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0, "memory": 8.0, "node:1": 1.0}},
        {"NodeID": "b", "Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"NodeID": "c", "Alive": True, "Resources": {"memory": 8.0}},  # a head that has no trials
    ]
    monkeypatch.setattr(session.ray, "nodes", lambda: rows)
    monkeypatch.setattr(session.ray, "get", lambda references: references)
    assert session.machines() == (Node(4.0, 0.0, 8.0), Node(0.0, 0.0, 8.0))


def silent_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "nonsense", "a:b"])
def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch, form):
    """Ray would try for two minutes, and write to the terminal about it."""
    address = form.format(silent_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    expected = f"RAY_ADDRESS is {address}, but no Ray cluster answers there .*; give host:port"
    with pytest.raises(MicrosegError, match=expected) as caught, ray_session():
        pass
    assert "\n" not in str(caught.value)


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    def late(**options):
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session.ray, "init", late)
    with (
        pytest.raises(MicrosegError, match=r"^Ray did not start \(The current node timed out during"),
        ray_session(),
    ):
        pass


def test_a_ray_that_starts_late_is_started_once_more(monkeypatch):
    attempts = []

    def late(**options):
        attempts.append(options)
        if len(attempts) == 1:
            raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session.ray, "init", late)
    with cluster.joined():
        pass
    assert len(attempts) == 2 and attempts[0] == attempts[1]


def test_workers_elsewhere_get_what_they_need_and_no_more(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {"MLFLOW_TRACKING_URI": "https://lab", "TF_X": "1", "MICROSEG_HOME": "/shared"}
    own = {"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "7", "HOME": "/home/me"}
    for name, value in (given | own).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["platform", "", "/elsewhere"]))  # as MLproject has it
    carried = carried_environment()
    assert given.items() <= carried.items() and not own.keys() & carried.keys()
    assert carried["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "platform"), "/elsewhere"]
    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in carried_environment()


def test_what_ray_logs_and_writes_on_command_lines_has_no_credentials(monkeypatch):
    secret = {
        "AWS_SECRET_ACCESS_KEY": "planted", "AWS_SESSION_TOKEN": "planted", "MLFLOW_TRACKING_PASSWORD": "planted",
        "MLFLOW_TRACKING_TOKEN": "planted", "MLFLOW_FLASK_SERVER_SECRET_KEY": "planted",
        "MLFLOW_TRACKING_URI": "https://me:planted@lab", "MLFLOW_S3_ENDPOINT_URL": "http://planted@store",
    }  # fmt: skip
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    assert "planted" not in str(carried_environment())
    assert secret.items() <= cluster.credentials().items()


def test_with_a_store_each_machine_has_its_own_folder_and_optuna_is_the_drivers_alone(monkeypatch):
    for name in ("MICROSEG_HOME", "MICROSEG_OPTUNA_URL"):
        monkeypatch.setenv(name, "driver")
    monkeypatch.delenv("MICROSEG_STORE", raising=False)
    assert carried_environment().keys() & {"MICROSEG_HOME", "MICROSEG_OPTUNA_URL"} == {"MICROSEG_HOME"}
    monkeypatch.setenv("MICROSEG_STORE", "s3://lab/state")
    assert not carried_environment().keys() & {"MICROSEG_HOME", "MICROSEG_OPTUNA_URL"}


def test_the_environment_is_set_before_ray_is_imported(project):
    """Ray reads its environment once; under `uv run` it would build a new one for its workers."""
    code = "import os, sys; sys.modules['ray'] = None; import microseg.search; print(*os.environ)"
    env = {"PYTHONPATH": str(project / "platform"), "PATH": os.environ["PATH"]}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    names = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_CHDIR_TO_TRIAL_DIR", "TUNE_DISABLE_SIGINT_HANDLER"}
    assert names <= set(out.stdout.split())


def processor_time() -> Counter[str]:
    """Return the ticks that each thread of this process has had."""
    tasks = Path("/proc/self/task").iterdir()
    fields = {task.name: (task / "stat").read_text().rpartition(")")[2].split() for task in tasks}
    return Counter({name: int(stat[11]) + int(stat[12]) for name, stat in fields.items()})


def work(share: int) -> dict[str, object]:
    """Do in a worker of Ray what a trial does: draw, augment, train."""
    from microseg import runtime

    runtime.load_tensorflow()
    runtime.threads(share)
    import keras
    import tensorflow as tf

    from microseg.augment import augmenter
    from microseg.data.pairs import Pair
    from microseg.data.pipeline import Sampling, training_batches

    pair = Pair("a", np.zeros((256, 256, 1), np.float32), np.zeros((256, 256), np.uint8))
    elastic = augmenter(Component(name="elastic"))
    batches = training_batches([pair], Sampling(128, 4, 40, 0), elastic, 1, range(1))
    network = keras.Sequential([keras.layers.Conv2D(32, 3, padding="same"), keras.layers.Conv2D(1, 1)])
    network.compile("adam", "mse")
    before = processor_time()
    network.fit(batches, verbose=0)
    took = processor_time() - before
    config = tf.config.threading
    return {
        "pools": {config.get_intra_op_parallelism_threads(), config.get_inter_op_parallelism_threads()},
        "openmp": os.environ["OMP_NUM_THREADS"],
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "busy": sum(ticks > took.total() / 20 for ticks in took.values()),
    }


@pytest.mark.slow
def test_a_worker_uses_the_cores_it_was_given_and_no_gpu(monkeypatch, project):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # beside other tests a worker would wait for minutes
    monkeypatch.setenv("PYTHONPATH", str(project / "platform"))
    with ray_session() as nodes:
        config = SearchConfig(space={}, concurrency=min(2, int(nodes[0].cpus)))
        share = Packing(config, nodes).share()
        asked = {"num_cpus": share.cpus, "num_gpus": 0, "memory": share.memory}
        seen = ray.get(ray.remote(**asked)(work).remote(int(share.cpus)))
    assert seen["pools"] == {int(share.cpus)} and seen["openmp"] == str(int(share.cpus))
    assert seen["gpus"] == ""  # Ray leaves all GPUs visible to whoever asked for none
    assert seen["busy"] <= share.cpus + 2, seen  # those that compute, one that leads, one that draws


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"concurrency": 3}, "concurrency is 3"),
        ({"gpus_per_trial": 0.5}, "gpus_per_trial is 0.5, but there is no GPU"),
        ({"budget": {"gpu_hours": 8}}, "budget.gpu_hours is 8, but no trial here gets a GPU"),
    ],
)
def test_a_search_that_does_not_fit_is_refused_and_its_ray_ended(monkeypatch, asked, refusal):
    """Before anything is written of it; a trial that asks for too much would wait for ever."""
    running = []
    monkeypatch.setattr(cluster, "_start", lambda: running.append(True))
    monkeypatch.setattr(session, "machines", lambda: (Node(2.0, 0.0, 8.0),))
    monkeypatch.setattr(session.ray, "is_initialized", lambda: bool(running))
    monkeypatch.setattr(session.ray, "shutdown", running.clear)
    config = SearchConfig.model_validate({"space": {}} | asked)
    with pytest.raises(MicrosegError, match=refusal), ready(config):
        pytest.fail("it was let through")
    assert not running


def test_a_session_within_a_session_is_the_same_and_ends_with_the_outer_one(monkeypatch):
    seen = []
    monkeypatch.setattr(cluster, "_start", lambda: seen.append(("started", os.environ.get("MLFLOW_RUN_ID"))))
    monkeypatch.setattr(session, "machines", lambda: (Node(2.0, 0.0, 8.0),))
    monkeypatch.setattr(session.ray, "is_initialized", lambda: bool(seen))
    monkeypatch.setattr(session.ray, "shutdown", lambda: seen.append("ended"))
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")  # of `mlflow run`: workers would inherit it
    with ready(SearchConfig(space={}, concurrency=2)) as share:
        assert share.cpus == 1.0
        with ray_session() as nodes:
            assert len(nodes) == 1
        assert seen == [("started", None)] and os.environ["MLFLOW_RUN_ID"] == "0123"
    assert seen == [("started", None), "ended"]
