"""How workers die: ended by Ray to save the machine's memory, or with their machine."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

HEARD = ("_actor_start_failed", "_actor_task_failed")  # where Tune is told that a worker died
LOST = "because its node has died"  # what Ray 2.60 says of a worker whose machine is gone; its type does not
NOTICED = 30  # seconds in which Ray knows that a machine is gone: 14 were seen

_ADDRESS = re.compile(r"^\s*ip: (\S+)$", re.MULTILINE)


class WorkerMemoryError(RayActorError):
    """Ray ended a worker before the machine ran out of memory: its `OutOfMemoryError`, as a death."""


@contextmanager
def survived() -> Iterator[None]:
    """Let Ray Tune go on after Ray's `OutOfMemoryError`, as after any other death of a worker.

    Ray 2.60 hands that error to Tune's driver, which knows `RayActorError` and `RayTaskError` only: it raises
    ``RuntimeError: Caught unexpected exception`` and the whole search ends (see also ray issue 4061).
    """
    original = {name: getattr(RayActorManager, name) for name in HEARD}
    for name, handle in original.items():
        setattr(RayActorManager, name, _as_death(handle))
    try:
        yield
    finally:
        for name, handle in original.items():
            setattr(RayActorManager, name, handle)


def _as_death(handle: Callable[..., None]) -> Callable[..., None]:
    def told(manager: Any, *, exception: Exception, **tracked: Any) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = WorkerMemoryError(error_msg=str(exception))
        handle(manager, exception=exception, **tracked)

    return told


def with_its_machine(
    error: RayActorError, address: str = "", sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Say whether a worker died because its machine did, or was taken away.

    Of a machine that loses power the processes may end one after the other, the worker's before the one that
    speaks for the machine: Ray then tells of a worker's death first, and knows the machine's seconds later.

    Parameters
    ----------
    error : RayActorError
        What Ray says of the worker.
    address : str
        Of its machine, where the error does not tell: one of a worker that cannot be reached does not.
    sleep : callable
        Waits for so many seconds.
    """
    if error.preempted or LOST in str(error):
        return True
    told = _ADDRESS.search(str(error))
    address = told[1] if told else address
    if not address or not ray.is_initialized():
        return False
    for _ in range(NOTICED):
        alive = {
            node["NodeManagerAddress"]: node["Alive"] for node in ray.nodes()
        }  # the newest of an address
        if len(alive) < 2:  # this machine is the only one
            return False
        if not alive.get(address):
            return True
        sleep(1)
    return False
