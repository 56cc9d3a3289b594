"""A tiny real ensemble, packaged and registered in an MLflow of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import keras
import mlflow
import numpy as np
import pytest

from microseg.config import Component, TrialConfig
from microseg.serving.card import ModelCard
from microseg.serving.packaging import log_candidate


def network(seed, channels=1, classes=1):
    """Two convolutions with weights large enough that the mask has both classes."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, channels))
    hidden = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    logits = keras.layers.Conv2D(
        classes, 3, padding="same", kernel_initializer=keras.initializers.RandomNormal(0, 2)
    )(hidden)
    outputs = keras.layers.Activation("sigmoid" if classes == 1 else "softmax", dtype="float32")(logits)
    return keras.Model(inputs, outputs)


def card(**changes):
    config = TrialConfig(model=Component(name="unet"), tile=32, overlap=0.25, batch_size=4, threshold=0.5)
    values = {
        "name": "cells", "study": "demo", "trial": "trial-003", "config": config, "channels": 1,
        "classes": ("cell",), "data_digest": "0" * 64, "scores": {"val/dice": 0.9},
    }  # fmt: skip
    return ModelCard(**values | changes)


def save(folder, networks, description):
    folder.mkdir(parents=True, exist_ok=True)
    for number, member in enumerate(networks):
        member.save(folder / f"fold-{number}.keras")
    description.write(folder)
    return folder


@pytest.fixture(scope="session")
def build():
    """The functions that make networks, cards and model directories."""
    return SimpleNamespace(network=network, card=card, save=save)


@pytest.fixture(scope="session")
def image():
    """A grey image of 70 x 50 pixels with a bright square: more than one tile, no multiple of it."""
    pixels = np.random.default_rng(0).integers(0, 60, (50, 70, 1), dtype=np.uint8)
    pixels[10:30, 20:50] += 150
    return pixels


@pytest.fixture(scope="session")
def registered(tmp_path_factory):
    """An ensemble of two networks, registered as version 1 of 'cells' with both aliases."""
    folder = tmp_path_factory.mktemp("registered")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("demo", artifact_location=(folder / "artifacts").as_uri())
    run = client.create_run(experiment)
    directory = save(folder / "model", [network(1), network(2)], card())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", False)  # whatever the environment says
        candidate = log_candidate(card(), sorted(directory.glob("*.keras")), run.info.run_id)
    client.set_registered_model_alias("cells", "champion", str(candidate.version))
    mlflow.set_tracking_uri(None)  # as if it had never been set
    return SimpleNamespace(uri=uri, candidate=candidate, run=run, client=client, directory=directory)


@pytest.fixture(scope="session")
def store_of_registered(registered):
    """Return a context in which MLflow works with the store of `registered`."""

    @contextmanager
    def pointed():
        mlflow.set_tracking_uri(registered.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # as if it had never been set

    return pointed


@pytest.fixture(autouse=True)
def _in_the_store_of_registered(request):
    """Each test that uses `registered` works with its store."""
    uses = "registered" in request.fixturenames
    with request.getfixturevalue("store_of_registered")() if uses else nullcontext():
        yield


@pytest.fixture(scope="session")
def model_server(registered, tmp_path_factory):
    """Return a context in which 'mlflow models serve' answers: its address, and the memory of its processes."""

    @contextmanager
    def serving(**settings):
        folder = tmp_path_factory.mktemp("server")
        port = free_port()
        command = [
            sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/cells@champion",
            "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": registered.uri,
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "PYTHONPATH": "",  # the server knows the package from the model alone
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        with (folder / "log").open("w") as output:
            process = subprocess.Popen(
                command, env=environment | settings, cwd=folder, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_ready(address, process, folder / "log")
            yield SimpleNamespace(address=address, memory=lambda: memory_of_session(process.pid))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return serving


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def wait_until_ready(address, process, log):
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


def memory_of_session(session):
    """Return the resident bytes of each process of a session, by its number, from Linux's /proc."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                found[int(folder.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):  # ended meanwhile
            continue
    return found
