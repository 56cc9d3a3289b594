"""What each trial asks for: never more than a machine has, and no more at once than its memory holds."""

import math
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
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.config import Component, SearchConfig
from microseg.errors import MicrosegError
from microseg.search import resources
from microseg.search.resources import Node, Packing, carried_environment, ray_session, smallest_gpu

GIB = 2**30


def packing(nodes, concurrency=1, gpus=None):
    return Packing(SearchConfig(space={}, concurrency=concurrency, gpus_per_trial=gpus), nodes)


def node(cpus, gpus=0, gib=64, gpu_gib=None):
    return Node(float(cpus), float(gpus), float(gib * GIB), gpu_gib and gpu_gib * 1024.0)


LAB = [node(16)] * 4
UNEQUAL = [node(0), node(4), node(16, 2), node(32)]


@pytest.mark.parametrize(
    ("nodes", "concurrency", "gpus", "share"),
    [
        ([node(4)], 1, None, (4, 0)),
        ([node(4)], 2, None, (2, 0)),
        ([node(4)], 3, None, (1, 0)),
        ([node(4)], 2, "auto", (2, 0)),
        ([node(4)], 2, 0, (2, 0)),
        (LAB, 3, None, (16, 0)),
        (LAB, 4, None, (16, 0)),
        (LAB, 6, None, (8, 0)),  # 64 // 6 would be 10, of which one machine holds one
        (LAB, 9, None, (5, 0)),
        ([node(4, 1)], 1, None, (4, 1)),
        ([node(4, 1)], 2, None, (2, 0.5)),
        ([node(8, 2)], 3, None, (2, 0.5)),  # 2 / 3 of a GPU would fit twice
        ([node(8, 1), node(8, 1)], 2, None, (8, 1)),
        ([node(8, 4)], 1, 3, (8, 3)),
        ([node(8, 4)], 2, 2, (4, 2)),
        ([node(8, 1)], 2, 0.4, (4, 0.4)),
        (UNEQUAL, 1, 0, (32, 0)),
        (UNEQUAL, 3, 0, (16, 0)),
        (UNEQUAL, 4, None, (4, 0.5)),  # where the GPUs are
    ],
)
def test_so_many_trials_fit_on_the_machines_there_are(nodes, concurrency, gpus, share):
    asked = packing(nodes, concurrency, gpus).share()
    assert (asked.cpus, asked.gpus) == share


@given(
    st.lists(st.builds(node, st.integers(0, 20), st.integers(0, 4)), min_size=1, max_size=4),
    st.integers(1, 24),
    st.sampled_from([None, 0, 0.25, 1, 2]),
)
@settings(max_examples=200, deadline=None)
def test_what_is_asked_for_can_be_placed_or_is_refused(nodes, concurrency, gpus):
    """Place greedily what Ray would place; as many as run at once fit, and nothing is oversubscribed."""
    try:
        asked = packing(nodes, concurrency, gpus).share()
    except MicrosegError as error:
        assert "\n" not in str(error)
        return
    placed = 0
    for machine in nodes:
        cores, cards = machine.cpus, [1.0] * int(machine.gpus)
        while cores >= asked.cpus:
            takes = math.ceil(asked.gpus)
            free = [index for index, left in enumerate(cards) if left >= min(asked.gpus, 1) - 1e-9]
            if len(free) < takes:
                break
            for index in free[:takes]:
                cards[index] -= min(asked.gpus, 1)
            cores, placed = cores - asked.cpus, placed + 1
    assert asked.cpus >= 1 and placed >= concurrency


@pytest.mark.parametrize(
    ("nodes", "concurrency", "gpus", "said"),
    [
        ([node(4)], 8, None, "concurrency is 8, but a trial takes a core at least and there are 4 cores; ask for no more than 4"),
        ([node(0)], 1, None, "there are 0 cores; ask for no more than 0"),
        (LAB, 65, None, r"there are 4 machines \(16 cores; 16 cores; 16 cores; 16 cores\); ask for no more than 64"),
        ([node(4)], 1, 1, "1 trials at once with 1 GPU each were asked for, but 0 fit on 4 cores; lower gpus"),
        ([node(4, 1)], 1, 2, "2 GPU each were asked for, but 0 fit on 4 cores and 1 GPU; lower gpus_per_trial"),
        ([node(4, 1), node(4, 1)], 1, 2, "0 fit on 2 machines"),  # two GPUs, on two machines
        ([node(8, 2)], 3, 0.6, "3 trials at once with 0.6 GPU each were asked for, but 2 fit on 8 cores and 2 GPUs"),
        ([node(8, 4)], 1, 1.5, "gpus_per_trial is 1.5; allowed are fractions up to 1 and whole numbers above"),
        ([node(2, 1), node(32)], 4, None, "2 trials with a share of a GPU fit on .* or set gpus_per_trial to 0"),
        ([node(2, 1), node(32)], 4, "auto", "concurrency is 4, but 2 trials with a share of a GPU fit"),
    ],
)  # fmt: skip
def test_what_can_never_be_met_is_refused_in_one_line(nodes, concurrency, gpus, said):
    """A Ray trial that asks for a missing GPU stays pending for ever without a word."""
    with pytest.raises(MicrosegError, match=said) as caught:
        packing(nodes, concurrency, gpus)
    assert "\n" not in str(caught.value)


def test_a_trial_asks_for_the_memory_that_the_largest_one_took():
    trials = packing([node(8, gib=16)], 8)
    assert trials.share().memory == int(1.2 * GIB)  # before any was measured
    trials.measured(3000.0, 0.0)
    trials.measured(2000.0, 0.0)
    assert trials.share().memory == 3600 * 2**20
    trials.measured(20_000.0, 0.0)
    assert trials.share().memory == 16 * GIB  # alone it may fit; asking for more it would wait for ever


def test_memory_is_capped_by_the_machines_that_can_have_the_trial():
    trials = packing([node(4, gib=64), node(16, 2, gib=8)], 1, 1)
    trials.measured(50_000.0, 100.0)
    assert trials.share().memory == 8 * GIB


def parts(trials) -> int:
    return round(1 / trials.share().gpus)


def test_a_gpu_is_packed_by_measured_memory_and_less_densely_after_an_overflow():
    trials = packing([node(16, 1, gpu_gib=24)], 8, "auto")
    assert trials.share().gpus == 1  # nothing is known yet
    trials.measured(900.0, 0.0)
    assert trials.share().gpus == 1
    trials.measured(900.0, 4000.0)
    assert parts(trials) == 4  # 24576 MiB // (1.2 x (4000 + 500))
    trials.measured(900.0, 1000.0)
    assert parts(trials) == 4  # the largest counts
    for expected in (3, 2, 1, 1):  # out of memory: all of its share was not enough
        trials.measured(900.0, 24576 * trials.share().gpus)
        assert parts(trials) == expected


@pytest.mark.parametrize(
    ("nodes", "concurrency", "peak", "expected"),
    [
        ([node(16, 1, gpu_gib=24)], 3, 100.0, 3),  # no finer than the trials at once need
        ([node(16, 4, gpu_gib=24)], 4, 100.0, 1),
        ([node(16, 1, gpu_gib=24), node(16, 1, gpu_gib=8)], 8, 1500.0, 3),  # the smallest GPU counts
        ([node(16, 1)], 8, 100.0, 1),  # a size that nobody tells
        ([node(16, 1, gpu_gib=24), node(16, 1)], 8, 100.0, 1),
        ([node(16, 1, gpu_gib=24), node(16)], 8, 1500.0, 8),
    ],
)
def test_a_share_of_a_gpu_is_no_finer_than_needed(nodes, concurrency, peak, expected):
    trials = packing(nodes, concurrency, "auto")
    trials.measured(900.0, peak)
    assert parts(trials) == expected


def test_a_share_that_was_asked_for_stays():
    trials = packing([node(16, 1, gpu_gib=24)], 2, 0.5)
    trials.measured(900.0, 20_000.0)
    assert trials.share().gpus == 0.5


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
    monkeypatch.setattr(resources.ray, "nodes", lambda: rows)
    monkeypatch.setattr(resources.ray, "get", lambda references: references)
    assert resources.machines() == (Node(4.0, 0.0, 8.0), Node(0.0, 0.0, 8.0))


def silent_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "address", [f"127.0.0.1:{silent_port()}", f"ray://127.0.0.1:{silent_port()}", "nonsense", "a:b"]
)
def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch, address):
    """Ray would try for two minutes, and write to the terminal about it."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    expected = f"RAY_ADDRESS is {address}, but no Ray cluster answers there .*; give host:port"
    with pytest.raises(MicrosegError, match=expected) as caught, ray_session():
        pass
    assert "\n" not in str(caught.value)


def test_workers_elsewhere_get_what_they_need_and_no_more(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {"MLFLOW_TRACKING_TOKEN": "t", "AWS_PROFILE": "lab", "MICROSEG_HOME": "/shared"}
    own = {"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "7", "HOME": "/home/me"}
    for name, value in (given | own).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["platform", "", "/elsewhere"]))  # as MLproject has it
    carried = carried_environment()
    assert given.items() <= carried.items() and not own.keys() & carried.keys()
    assert carried["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "platform"), "/elsewhere"]
    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in carried_environment()


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
        share = packing(nodes, concurrency=min(2, int(nodes[0].cpus))).share()
        asked = {"num_cpus": share.cpus, "num_gpus": 0, "memory": share.memory}
        seen = ray.get(ray.remote(**asked)(work).remote(int(share.cpus)))
    assert seen["pools"] == {int(share.cpus)} and seen["openmp"] == str(int(share.cpus))
    assert seen["gpus"] == ""  # Ray leaves all GPUs visible to whoever asked for none
    assert seen["busy"] <= share.cpus + 2, seen  # those that compute, one that leads, one that draws
