"""A worker that Ray ended to save the machine's memory ends its trial's attempt, not the study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

HEARD = ("_actor_start_failed", "_actor_task_failed")  # where Tune is told that a worker died


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
