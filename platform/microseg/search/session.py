"""The Ray that a study runs on: started on this machine or joined, and the machines it has."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from microseg.config import SearchConfig
from microseg.data.files import absolute
from microseg.errors import MicrosegError
from microseg.runtime import MIB
from microseg.search.resources import Node, Packing, Share

OBJECT_STORE = 200 * MIB  # results are small: bytes enough for a study, whatever the machine offers

# The run that `mlflow run` opened is the study's; workers that inherit it would resume and rename it.
RUN_ID = "MLFLOW_RUN_ID"

# What workers on other machines need to know of this one's environment; those of the same machine inherit it.
CARRIED = (
    "AWS_",
    "KERAS_",
    "MICROSEG_",
    "MLFLOW_",
    "NO_ALBUMENTATIONS_UPDATE",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "TF_",
)


@contextmanager
def ready(config: SearchConfig) -> Iterator[Share]:
    """Hold a Ray on which the trials of a search fit, asked first, so that no study is begun in vain.

    Yields what the first of them asks for.

    Raises
    ------
    MicrosegError
        If no cluster answers, or what was asked for can never be met.
    """
    with ray_session() as nodes:
        share = Packing(config, nodes).share()
        if config.budget and config.budget.gpu_hours and not share.gpus:
            raise MicrosegError(
                f"budget.gpu_hours is {config.budget.gpu_hours:g}, but no trial here gets a GPU and it would "
                "never end the search; set budget.hours"
            )
        yield share


@contextmanager
def ray_session() -> Iterator[tuple[Node, ...]]:
    """Start Ray on this machine, or join the cluster of ``RAY_ADDRESS``; yields its machines.

    Within another session it is that one's Ray.

    Raises
    ------
    MicrosegError
        If no cluster answers there.
    """
    if ray.is_initialized():
        yield machines()
        return
    with _without(RUN_ID):
        _start()
    try:
        yield machines()
    finally:
        ray.shutdown()


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Take a variable out of the environment for a while."""
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def _start() -> None:
    """Start Ray, or join it, without a word of its own."""
    address = os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        _knock(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if address == "local" else {"runtime_env": {"env_vars": carried_environment()}}),
        )
    except (OSError, ValueError) as error:
        raise MicrosegError(
            f"RAY_ADDRESS is {address}, but no Ray cluster answers there ({str(error).splitlines()[0]}); "
            "give host:port of its head, with RAY_AUTH_MODE=token if it asks for one, or unset it to stay on "
            "this machine"
        ) from error


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would try for minutes, and write about it."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=10).close()


def carried_environment() -> dict[str, str]:
    """Return what workers on other machines are given of this process's environment.

    They inherit that of the ``ray start`` of their machine otherwise. It holds the credentials of the
    tracking server and of S3, if they are set; whoever may use the cluster can read them.
    """
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = os.pathsep.join(str(absolute(Path(entry))) for entry in entries if entry)
    return carried | ({"PYTHONPATH": paths} if paths else {})


def machines() -> tuple[Node, ...]:
    """Return the machines of the Ray that runs."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    asked = {node["NodeID"]: _ask_gpu(node["NodeID"]) for node in alive if node["Resources"].get("GPU")}
    sizes = dict(zip(asked, ray.get(list(asked.values())), strict=True))
    return tuple(
        Node(
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            node["Resources"].get("memory", 0.0),
            sizes.get(node["NodeID"]),
        )
        for node in alive
    )


def _ask_gpu(machine: str) -> Any:
    there = NodeAffinitySchedulingStrategy(machine, soft=False)
    return ray.remote(num_cpus=0)(smallest_gpu).options(scheduling_strategy=there).remote()


def smallest_gpu() -> float | None:
    """Return the MiB of this machine's smallest GPU, or None where ``nvidia-smi`` does not tell."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        return min(float(size) for size in said.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
