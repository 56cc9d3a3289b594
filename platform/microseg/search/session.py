"""The Ray that a study runs on, and the machines it has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from microseg import cluster
from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.search import standby
from microseg.search.machines import Needs, check_machines
from microseg.search.resources import Node, Packing, Share

NOTHING = Needs()


@contextmanager
def ready(config: SearchConfig, needs: Needs = NOTHING) -> Iterator[Share]:
    """Hold a Ray on which the trials of a search fit, asked first, so that no study is begun in vain.

    Yields what the first of them asks for; ``needs`` is what its machines must see.

    Raises
    ------
    MicrosegError
        If no cluster answers, what was asked for can never be met, or a machine does not see what it needs.
    """
    with ray_session() as nodes:
        share = Packing(config, nodes).share()
        if config.budget and config.budget.gpu_hours and not share.gpus:
            raise MicrosegError(
                f"budget.gpu_hours is {config.budget.gpu_hours:g}, but no trial here gets a GPU and it would "
                "never end the search; set budget.hours"
            )
        if len(nodes) > 1:
            check_machines(needs)
        elif cluster.is_local():
            standby.set_environment()
            standby.prepare_first(min(config.concurrency, config.trials))
        yield share


@contextmanager
def ray_session() -> Iterator[tuple[Node, ...]]:
    """Hold a Ray, see `microseg.cluster.joined`; yields its machines."""
    with cluster.joined():
        yield machines()


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
