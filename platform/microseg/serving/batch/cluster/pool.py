"""How many workers there are, and the share of a machine that each of them gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from microseg.errors import MicrosegError

CORES = 4  # of a worker at most: reading and writing take one of them, and every worker holds the model


class Pool(NamedTuple):
    """Workers, and the cores and GPUs of each."""

    workers: int
    cores: int
    gpus: int


def machines() -> list[tuple[float, float]]:
    """Return the cores and the GPUs of each machine of the Ray that runs."""
    import ray

    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [(found.get("CPU", 0.0), found.get("GPU", 0.0)) for found in alive]


def pool_of(machines: Sequence[tuple[float, float]]) -> Pool:
    """Return as many workers as there is room for: one per GPU where there are any, else by cores.

    Parameters
    ----------
    machines : sequence of tuple
        Cores and GPUs of each. Those with fewer cores than a worker gets stay out.

    Raises
    ------
    MicrosegError
        If no machine has a core.
    """
    whole = [(int(cores), int(gpus)) for cores, gpus in machines if cores >= 1]
    if not whole:
        raise MicrosegError("no machine of the Ray cluster has a core to give; start one with --num-cpus")
    with_gpu = [(cores, gpus) for cores, gpus in whole if gpus]
    if with_gpu:
        share = min(CORES, max(1, min(cores // gpus for cores, gpus in with_gpu)))
        return Pool(sum(min(gpus, cores // share) for cores, gpus in with_gpu), share, 1)
    share = min(CORES, max(cores for cores, _ in whole))
    return Pool(sum(cores // share for cores, _ in whole), share, 0)
