"""The machine: precision by hardware, threads, seeds, and that TensorFlow is imported late."""

import gc
import os
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from microseg import runtime
from microseg.errors import MicrosegError

NO_FLAGS = frozenset()


@pytest.mark.parametrize(
    ("capability", "flags", "policy"),
    [
        (None, NO_FLAGS, "float32"),
        (None, frozenset({"avx512_bf16"}), "mixed_bfloat16"),
        (None, frozenset({"amx_bf16"}), "mixed_bfloat16"),
        ((9, 0), NO_FLAGS, "mixed_bfloat16"),
        ((7, 5), NO_FLAGS, "mixed_float16"),
        ((6, 1), frozenset({"avx512_bf16"}), "float32"),
    ],
)
def test_automatic_precision_follows_the_hardware(monkeypatch, capability, flags, policy):
    monkeypatch.setattr(runtime, "_gpu_capability", lambda: capability)
    monkeypatch.setattr(runtime, "cpu_flags", lambda: flags)
    assert runtime.precision_policy("auto") == policy


@pytest.mark.parametrize("precision", runtime.POLICIES)
def test_stated_precision_is_a_policy_that_keras_knows(precision):
    assert keras.DTypePolicy(runtime.precision_policy(precision)).variable_dtype == "float32"


def draw():
    return float(keras.random.normal(())), float(np.random.random()), keras.layers.Dense(1).name


def test_fresh_session_seeds_sets_the_policy_and_restores_it():
    before = keras.config.dtype_policy()
    drawn = []
    for seed in (3, 3, 4):
        with runtime.fresh_session("bfloat16", seed):
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
            drawn.append(draw())
        assert keras.config.dtype_policy() == before
    assert drawn[0] == drawn[1]
    assert drawn[0][:2] != drawn[2][:2]


def test_policy_is_restored_when_a_search_stops_the_trial():
    before = keras.config.dtype_policy()
    with pytest.raises(SystemExit), runtime.fresh_session("bfloat16", 0):
        raise SystemExit(0)
    assert keras.config.dtype_policy() == before


def test_threads_of_a_running_tensorflow_cannot_change():
    tf.constant(0)
    runtime.threads(tf.config.threading.get_intra_op_parallelism_threads())
    with pytest.raises(MicrosegError, match="threads: 97 given, but TensorFlow already runs"):
        runtime.threads(97)


def test_opencv_does_not_take_every_core():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        runtime.threads(tf.config.threading.get_intra_op_parallelism_threads())
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


def test_without_a_gpu_none_of_its_memory_was_used():
    assert tf.config.list_physical_devices("GPU") or runtime.peak_gpu_memory_mib() == 0.0


def test_the_peak_of_a_gpu_is_told_in_mib(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one"])
    monkeypatch.setattr(
        tf.config.experimental, "get_memory_info", lambda device: {"current": 1, "peak": 3 * 2**20}
    )
    assert runtime.peak_gpu_memory_mib() == 3.0


def test_peak_memory_is_at_least_what_was_held_and_in_mib():
    held = np.ones(300 * runtime.MIB, np.uint8)
    del held
    assert 300 < runtime.peak_memory_mib() < 64 * 1024


def test_the_peak_of_a_child_is_not_that_of_its_parent():
    """Linux's getrusage counts what the parent held when it started the child."""
    held = np.ones(600 * runtime.MIB, np.uint8)
    code = "import microseg.runtime as r; print(r.peak_memory_mib())"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-B", "-c", code], env=environment, capture_output=True, text=True)
    assert held.nbytes and 10 < float(done.stdout) < 500


def test_hardware_describes_this_machine():
    found = runtime.hardware()
    assert found["cores"] >= 1 and found["memory_gib"] > 0 and found["cpu"]
    assert found["precision"] in runtime.POLICIES.values()


def test_import_loads_neither_tensorflow_nor_keras():
    code = "import sys, microseg.runtime; sys.exit(bool({'tensorflow', 'keras'} & sys.modules.keys()))"
    assert (
        subprocess.run([sys.executable, "-B", "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([keras.layers.Conv2D(4, 3, padding="same", use_bias=False)], 2 * 9 * 4 * 64),
        (
            [keras.layers.Conv2D(4, 1, use_bias=False), keras.layers.Conv2D(2, 1, use_bias=False)],
            (8 + 16) * 64,
        ),
    ],
)
def test_a_multiplication_and_an_addition_are_two_operations(layers, expected):
    network = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    assert runtime.operations(network, (1, 8, 8, 1)) == expected
    assert runtime.operations(network, (3, 8, 8, 1)) == 3 * expected


LOAD = """
import gc, sys
from microseg import runtime
runtime.load_tensorflow()
import keras
unused = {"sklearn", "matplotlib", "jax"} & sys.modules.keys()
sys.stdout.write(f"{keras.backend.backend()} {sorted(unused)} {gc.isenabled()} {gc.get_freeze_count() > 10**5}")
"""


def test_tensorflow_is_loaded_alone_and_is_no_garbage(tmp_path):
    """Whatever Keras's file of settings says: what is trained with is TensorFlow."""
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    environment = kept | {"PYTHONPATH": ":".join(sys.path), "KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-B", "-c", LOAD], env=environment, capture_output=True, text=True)
    assert done.stdout == "tensorflow [] True True", done.stderr


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_is_looked_for_as_before_when_all_is_loaded(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with runtime.uncollected(), runtime.uncollected():
            assert not gc.isenabled()
            loaded = [[] for _ in range(1000)]
        assert gc.isenabled() == collecting
        assert gc.get_freeze_count() > len(loaded)
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
