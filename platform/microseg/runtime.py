"""The machine: threads, precision, seeds, memory. TensorFlow is imported only inside the functions."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microseg.config import Precision
from microseg.errors import MicrosegError

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
MIB = 2**20


def load_tensorflow() -> None:
    """Import TensorFlow, see `import_tensorflow`, and look for GPUs, without the lines that it writes then.

    They come from compiled code, straight to the file descriptor of standard error, before any log level
    counts.
    """
    import_tensorflow()
    with silent_descriptor():  # it says at its first look that there is no driver
        sys.modules["tensorflow"].config.list_physical_devices("GPU")


def import_tensorflow() -> None:
    """Import TensorFlow quietly and without what it and Keras import along for features unused here.

    Scikit-learn and matplotlib, which Keras takes when they are there (for its scikit-learn wrappers and
    plots), are a quarter of the time of the import, JAX (for what converts its models) a tenth. Keras
    computes with TensorFlow unless ``KERAS_BACKEND`` says otherwise.
    """
    if "tensorflow" in sys.modules:
        return
    other = os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow"
    unused = ("sklearn", "matplotlib") if other else ("sklearn", "matplotlib", "jax")
    with hidden(*unused), silent_descriptor(), uncollected():
        importlib.import_module("tensorflow")


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Do not look for garbage, and afterwards never again among all that is there now.

    Imports keep nearly all that they make, and each look would go through the whole of it.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Let packages that are not loaded yet look as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None is how Python marks it
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def silent_descriptor() -> Iterator[None]:
    """Drop what is written to standard error, by compiled code too."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def threads(count: int) -> None:
    """Give TensorFlow a number of threads, within one operation and between operations.

    OpenCV, which augments, gets one instead of one for every core: patches are drawn side by side.

    Raises
    ------
    MicrosegError
        If TensorFlow already runs with another number.
    """
    import cv2
    import tensorflow as tf

    cv2.setNumThreads(1)
    config = tf.config.threading
    if config.get_intra_op_parallelism_threads() == count == config.get_inter_op_parallelism_threads():
        return
    try:
        config.set_intra_op_parallelism_threads(count)
        config.set_inter_op_parallelism_threads(count)
    except RuntimeError as error:
        raise MicrosegError(
            f"threads: {count} given, but TensorFlow already runs in this process; set them before training"
        ) from error


def thread_count() -> int:
    """Return the threads of TensorFlow within one operation; 0: as many as there are cores."""
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def grow_gpu_memory() -> None:
    """Let TensorFlow take GPU memory as it needs it, so that several trials can share one GPU."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        # Refused once a GPU is in use; then its memory is as an earlier call left it.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags; none where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2].split() for line in lines if line.startswith("flags"))
    return frozenset(next(flags, []))


def _gpu_capability() -> tuple[int, int] | None:
    """Return the lowest CUDA compute capability of the GPUs, or None without any."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return min((detail.get("compute_capability", (0, 0)) for detail in details), default=None)


def precision_policy(precision: Precision) -> str:
    """Return the Keras dtype policy for a precision.

    ``auto`` is 16-bit where the hardware computes it faster: bfloat16 on a GPU from Ampere on and on a CPU
    with AVX512-BF16 or AMX, float16 on a Volta or Turing GPU; else float32. Weights stay float32.
    """
    if precision != "auto":
        return POLICIES[precision]
    capability = _gpu_capability()
    if capability is None:
        return POLICIES["bfloat16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "float32"]
    if capability >= (8, 0):
        return POLICIES["bfloat16"]
    return POLICIES["float16" if capability >= (7, 0) else "float32"]


@contextlib.contextmanager
def fresh_session(precision: Precision, seed: int) -> Iterator[None]:
    """Start from an empty Keras state with a precision policy and a seed; restore the policy afterwards.

    The state of earlier models is dropped, which frees their memory and makes layer names repeat.
    """
    import keras

    grow_gpu_memory()
    before = keras.config.dtype_policy()
    keras.backend.clear_session()  # resets the policy and the seeds too, so it comes first
    keras.config.set_dtype_policy(precision_policy(precision))
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        keras.backend.clear_session()
        keras.config.set_dtype_policy(before)


def input_gradient(function: Callable[[Any], Any], inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the gradient of a function's value, or of its values' sum, with respect to its input."""
    import tensorflow as tf

    given = tf.convert_to_tensor(inputs)
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = function(given)
    return np.asarray(tape.gradient(value, given), np.float32)


def operations(network: Any, shape: Sequence[int]) -> int:
    """Return the floating-point operations of one prediction: a multiplication and an addition count two.

    Parameters
    ----------
    network : keras.Model
        The network.
    shape : sequence of int
        Of the images, (batch, height, width, channels).
    """
    import tensorflow as tf

    profiler, given = tf.compat.v1.profiler, tf.TensorSpec(shape, "float32")
    graph = tf.function(lambda images: network(images, training=False)).get_concrete_function(given).graph
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it warns of a function of its own, which is deprecated
    try:
        found = profiler.profile(graph, options=options.with_empty_output().build())
    finally:
        logger.setLevel(level)
    return int(found.total_float_ops)


def peak_memory() -> int:
    """Return the most main memory that this process ever held, in bytes.

    On Linux ``getrusage`` counts what the parent held when it started this process; ``VmHWM`` does not.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_memory_mib() -> float:
    """Return the most main memory that this process ever held, in MiB."""
    return peak_memory() / MIB


def peak_gpu_memory_mib() -> float:
    """Return the most memory of the first GPU that this process ever held, in MiB; 0 without a GPU."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return 0.0
    return float(tf.config.experimental.get_memory_info("GPU:0")["peak"]) / MIB


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """Describe this machine: system, CPU, cores, memory in GiB, GPUs, and what precision ``auto`` means."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": platform.platform(terse=True),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory, 1),
        "gpus": [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus],
        "precision": precision_policy("auto"),
    }
