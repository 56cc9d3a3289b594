"""What Ray Tune sends to workers."""

import subprocess
import sys
from pathlib import Path

from ray import cloudpickle

from microseg.data.manifest import Item, Manifest
from microseg.folds import Fold
from microseg.search import worker
from microseg.search.job import Job
from microseg.search.runner import trainable

DRIVERS = ("tensorflow", "keras", "optuna", "microseg.search.runner")
LOADED = f"""
import sys
from ray import cloudpickle
unpickled = cloudpickle.load(sys.stdin.buffer)
sys.stdout.write(" ".join(name for name in {DRIVERS} if name in sys.modules))
"""


def job(folder: Path) -> Job:
    file = Path("a.png")
    item = Item(name="a", images=(file,), mask=file, group="a", height=8, width=8, hashes=("0" * 64,) * 2)
    manifest = Manifest(name="set", source="here", channels=1, mask_kind="binary", items=(item,))
    return Job(
        manifest=manifest,
        folds=(Fold(index=0, train=("a",), valid=("a",)),),
        metric="val/dice",
        mode="max",
        epochs=1,
        workdir=folder,
        cache=folder,
    )


def test_what_a_worker_is_sent_loads_nothing_of_the_driver(tmp_path):
    """TensorFlow would be loaded with it, and with all that Keras takes along, before `load_tensorflow`."""
    sent = cloudpickle.dumps(trainable(worker.run, job(tmp_path)))
    command = [sys.executable, "-B", "-c", LOADED]
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, input=sent, env=environment, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr.decode()
