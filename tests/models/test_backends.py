"""Networks, losses and metrics on the other backends of Keras: `python -m pytest -m slow tests/models/test_backends.py`.

``MICROSEG_BACKENDS_PYTHON`` names an interpreter that has JAX or PyTorch, Keras and pytest; without it,
the one that runs the tests. This file, run as a script, prints the losses and metrics of one batch.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from microseg.losses import BORDER_LOSSES, LOSSES
from microseg.metrics import PooledConfusion

HERE = Path(__file__).resolve()
PYTHON = os.environ.get("MICROSEG_BACKENDS_PYTHON", sys.executable)
# What runs once is not worth optimising: it halves the minutes in which XLA compiles.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

every = pytest.mark.parametrize("backend", ["jax", "torch"])


def values(maps):
    """Return every loss, and the metric of an epoch, of one batch that is the same on every backend."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, max(maps, 2), (2, 16, 16))
    truth = np.eye(maps)[labels] if maps > 1 else labels[..., None]
    weights = np.exp(rng.normal(size=(2, 16, 16, maps)))
    probability = weights / weights.sum(axis=-1, keepdims=True) if maps > 1 else weights / (1 + weights)
    distances = rng.uniform(2, 60, (2, 16, 16, 1))
    answers = {}
    for name, loss in LOSSES.items():
        targets = np.concatenate([truth, distances], axis=-1) if name in BORDER_LOSSES else truth
        tensors = (keras.ops.convert_to_tensor(x, "float32") for x in (targets, probability))
        answers[name] = float(keras.ops.convert_to_numpy(loss(*tensors)))
    metric = PooledConfusion(maps, 0.5)
    metric.update_state(
        keras.ops.convert_to_tensor(truth, "float32"), keras.ops.convert_to_tensor(probability, "float32")
    )
    return answers | {name: float(keras.ops.convert_to_numpy(x)) for name, x in metric.result().items()}


def run(backend, project, *arguments):
    """Run Python on another backend and return what it printed, or skip where the backend is not installed."""
    probe = f"import importlib.util as u; raise SystemExit(u.find_spec('{backend}') is None)"
    if subprocess.run([PYTHON, "-c", probe], check=False).returncode:
        pytest.skip(f"{backend} is not installed (MICROSEG_BACKENDS_PYTHON names an interpreter that has it)")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(project / "platform"),
        "XLA_FLAGS": QUICK,
    }
    answer = subprocess.run(
        [PYTHON, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout[-4000:] + answer.stderr[-4000:]
    return answer.stdout


@pytest.mark.slow
@every
def test_every_architecture_predicts_and_learns(backend, project):
    report = run(
        backend, project, "-m", "pytest", "-q", "-o", "addopts=", "-o", "filterwarnings=default",
        "-p", "no:cacheprovider", "--import-mode=importlib", str(HERE.with_name("test_architectures.py")),
        "-k", "3-2 or gradient_descent",
    )  # fmt: skip
    assert " passed" in report


@pytest.mark.slow
@every
def test_losses_and_metrics_have_the_same_values(backend, project):
    others = json.loads(run(backend, project, str(HERE)))
    for maps in (1, 3):
        assert others[str(maps)] == pytest.approx(values(maps), rel=1e-5)


@pytest.mark.parametrize("package", ["models", "losses", "metrics"])
def test_no_backend_is_imported(package, project):
    files = list((project / "platform/microseg" / package).rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert any(module.startswith("microseg") for module in modules)
    assert not {module.split(".")[0] for module in modules} & {"tensorflow", "jax", "torch"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({maps: values(maps) for maps in (1, 3)}))
