"""Cores, GPUs and memory: what the machines have, and what the next trial asks Ray for.

Ray places by what is asked for, not by what is used, and a trial that asks for more than any machine has
waits for ever without a word: what can never be met is refused here, before the first trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ray.tune import PlacementGroupFactory

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.runtime import MIB

RESERVE = 1.2  # what is asked for above the highest peak that was measured
UNMEASURED_MIB = 1024.0  # a trial's main memory before any was measured: TensorFlow takes three quarters
CUDA_CONTEXT_MIB = 500.0  # what a process holds on a GPU beside the tensors, which alone are measured


class Node(NamedTuple):
    """A machine: cores, GPUs, bytes of memory that Ray may give, MiB of its smallest GPU (None: unknown)."""

    cpus: float
    gpus: float
    memory: float
    gpu_memory_mib: float | None = None

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else ""
        return f"{self.cpus:g} core{'s' * (self.cpus != 1)}{gpus}"

    def room(self, cpus: int, gpus: float) -> int:
        """Return how many trials of so many cores and GPUs fit side by side.

        Of a fraction, a GPU holds a whole number; several GPUs of one trial are whole ones.
        """
        by_cores = int(self.cpus // cpus)
        if gpus == 0:
            return by_cores
        whole = int(self.gpus)
        by_gpus = whole * int(1 / gpus + 1e-9) if gpus <= 1 else int(whole // gpus)
        return min(by_cores, by_gpus)


class Share(NamedTuple):
    """What one trial asks Ray for: cores, GPUs and bytes of main memory."""

    cpus: float
    gpus: float
    memory: float


def asked(settings: Mapping[str, Any]) -> PlacementGroupFactory:
    """Return what a trial with these settings asks Ray for; it was decided when the trial was proposed."""
    share = settings["share"]
    return PlacementGroupFactory([{"CPU": share["cpu"], "GPU": share["gpu"], "memory": share["memory"]}])


class Packing:
    """Decides what each next trial asks for, from what the machines have and what earlier trials took.

    All trials of a study get the same number of cores: the most with which ``concurrency`` of them fit.
    Main memory, and with ``gpus_per_trial: auto`` that of the GPUs, is asked for as it was measured; where
    fewer trials fit by memory, Ray lets the others wait, and fewer run at once.

    Parameters
    ----------
    config : SearchConfig
        How many trials at once, and what of the GPUs each gets.
    nodes : sequence of Node
        The machines there are.

    Raises
    ------
    MicrosegError
        If what was asked for can never be met.
    """

    def __init__(self, config: SearchConfig, nodes: Sequence[Node]) -> None:
        wanted = config.gpus_per_trial
        self.concurrency = config.concurrency
        self._gpus = gpus_per_trial(wanted, config.concurrency, nodes)
        self._cpus = cpus_per_trial(self._gpus, config.concurrency, nodes)
        hosts = [node for node in nodes if node.room(self._cpus, self._gpus)]
        self._largest = max(node.memory for node in hosts)
        self._packs = wanted == "auto" and self._gpus > 0
        self._smallest_gpu = min((node.gpu_memory_mib or 0.0 for node in hosts), default=0.0)
        self._memory_mib = 0.0
        self._gpu_memory_mib = 0.0

    def measured(self, memory_mib: float, gpu_memory_mib: float) -> None:
        """Take note of the peak that a trial took, in MiB; of a GPU that was too small, its share of it."""
        self._memory_mib = max(self._memory_mib, memory_mib)
        self._gpu_memory_mib = max(self._gpu_memory_mib, gpu_memory_mib)

    def share(self) -> Share:
        """Return what the next trial asks for."""
        needed = (self._memory_mib or UNMEASURED_MIB) * RESERVE * MIB
        # Capped, so that one trial always fits: it may go well, and it would wait for ever otherwise.
        return Share(float(self._cpus), self._gpu_share(), float(int(min(needed, self._largest))))

    def _gpu_share(self) -> float:
        """Return the share of a GPU: no finer than needed, and a whole one until a peak was measured."""
        if not self._packs:
            return self._gpus
        if self._gpu_memory_mib == 0:
            return 1.0
        fitting = self._smallest_gpu // ((self._gpu_memory_mib + CUDA_CONTEXT_MIB) * RESERVE)
        return max(self._gpus, 1 / max(1.0, fitting))


def _room(nodes: Sequence[Node], cpus: int, gpus: float) -> int:
    return sum(node.room(cpus, gpus) for node in nodes)


def _described(nodes: Sequence[Node]) -> str:
    listed = "; ".join(str(node) for node in nodes)
    return listed if len(nodes) == 1 else f"{len(nodes)} machines ({listed})"


def gpus_per_trial(wanted: float | str | None, concurrency: int, nodes: Sequence[Node]) -> float:
    """Return the GPUs of a trial: as asked for, else the largest equal share of one with which all fit.

    Raises
    ------
    MicrosegError
        If so many trials with so many GPUs each do not fit.
    """
    if isinstance(wanted, int | float):
        _check_gpus(wanted, concurrency, nodes)
        return float(wanted)
    if not any(node.gpus for node in nodes):
        return 0.0
    for parts in range(1, concurrency + 1):
        if _room(nodes, 1, 1 / parts) >= concurrency:
            return 1 / parts
    raise MicrosegError(
        f"concurrency is {concurrency}, but {_room(nodes, 1, 1 / concurrency)} trials with a share of a GPU "
        f"fit on {_described(nodes)}; lower concurrency, or set gpus_per_trial to 0"
    )


def _check_gpus(wanted: float, concurrency: int, nodes: Sequence[Node]) -> None:
    if wanted > 1 and wanted != int(wanted):
        raise MicrosegError(
            f"gpus_per_trial is {wanted:g}; allowed are fractions up to 1 and whole numbers above"
        )
    if wanted and not any(node.gpus for node in nodes):
        raise MicrosegError(
            f"gpus_per_trial is {wanted:g}, but there is no GPU ({_described(nodes)}); leave it out, or "
            "set it to 0, to train on the processor"
        )
    fitting = _room(nodes, 1, wanted)
    if wanted and fitting < concurrency:
        raise MicrosegError(
            f"gpus_per_trial is {wanted:g} at concurrency {concurrency}, but {fitting} such trials fit on "
            f"{_described(nodes)}; lower one of them"
        )


def cpus_per_trial(gpus: float, concurrency: int, nodes: Sequence[Node]) -> int:
    """Return the most cores with which so many trials fit side by side; a trial never spans machines.

    Raises
    ------
    MicrosegError
        If they do not fit with one core each.
    """
    most = int(max(node.cpus for node in nodes))
    for cpus in range(most, 0, -1):
        if _room(nodes, cpus, gpus) >= concurrency:
            return cpus
    raise MicrosegError(
        f"concurrency is {concurrency}, but a trial takes a core at least and there are "
        f"{_described(nodes)}; ask for no more than {_room(nodes, 1, gpus)}"
    )
