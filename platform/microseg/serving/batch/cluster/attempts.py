"""How often each part was begun, so that one at which workers die is not tried for ever."""

from __future__ import annotations

from collections import Counter
from typing import Any

ATTEMPTS = 3


class Attempts:
    """Counts the attempts at each part; an actor beside the driver, which outlives the workers."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, int]] = Counter()

    def begin(self, image: int, part: int) -> int:
        """Return which attempt at a part this is, from 1 on."""
        self._counts[image, part] += 1
        return self._counts[image, part]

    def repeated(self) -> int:
        """Return how many attempts were not the first."""
        return self._counts.total() - len(self._counts)


def start() -> Any:
    """Return a handle of `Attempts` on this machine: the one whose end ends everything."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Attempts).options(scheduling_strategy=here).remote()
