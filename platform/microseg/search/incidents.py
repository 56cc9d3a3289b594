"""What went wrong with a trial so far, kept in its folder for the worker that tries it again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ray.exceptions

from microseg.config import TrialConfig
from microseg.data.files import replacing
from microseg.errors import MicrosegError
from microseg.search.deaths import WorkerMemoryError, with_its_machine

FILE = "incidents.json"
# So many of a kind end a trial. The death of a machine is no fault of it, unless it is what kills them.
MOST = {"out_of_memory": 2, "failed": 2, "machine_lost": 10}

CAUSE = re.compile(r"\w*(Error|Exception): \S")

Kind = Literal["out_of_memory", "failed", "machine_lost"]


class TrialMemoryError(MicrosegError):
    """The worker's framework ran out of memory; raised in place of an error that may not pickle."""


class Incident(NamedTuple):
    """How an attempt ended, in words, and in how many parts its batches were drawn."""

    kind: Kind
    text: str
    accumulation: int = 1

    @property
    def state(self) -> Literal["out_of_memory", "failed"]:
        """The state of a trial that is not tried again after it."""
        return "out_of_memory" if self.kind == "out_of_memory" else "failed"


def read(folder: Path) -> list[Incident]:
    """Return what went wrong with the trial of a folder, the oldest first."""
    try:
        return [Incident(*entry) for entry in json.loads((folder / FILE).read_bytes())]
    except (FileNotFoundError, ValueError):
        return []


def note(folder: Path, incident: Incident) -> None:
    """Add to what went wrong with the trial of a folder."""
    with replacing(folder / FILE) as file:
        file.write(json.dumps([*read(folder), incident]).encode())


def hopeless(found: list[Incident], config: TrialConfig) -> Incident | None:
    """Return why a trial is not tried again; None while it may be.

    Memory that does not suffice for half a batch, or for one patch, a second failure, and the death of ten
    machines end it.
    """
    for kind, most in MOST.items():
        of_kind = [incident for incident in found if incident.kind == kind]
        if len(of_kind) >= most:
            return of_kind[-1]
    single = (incident for incident in found if incident.accumulation >= config.batch_size)
    return next((incident for incident in single if incident.kind == "out_of_memory"), None)


def relieved(config: TrialConfig, found: list[Incident]) -> TrialConfig:
    """Return the configuration for another attempt: half of each batch at once after memory ran out.

    The weights still change once per batch. A batch of odd size goes in its smallest equal parts above one.
    A configuration that has more parts than those that ran out, as a resumed study keeps it, stays.
    """
    tried = [incident.accumulation for incident in found if incident.kind == "out_of_memory"]
    if config.accumulation > max(tried, default=0):
        return config
    part = config.batch_size // config.accumulation
    further = next((n for n in range(2, part + 1) if part % n == 0), 1)
    return config.model_copy(update={"accumulation": config.accumulation * further})


def classify(error: BaseException | None, address: str = "") -> Incident:
    """Say what an error of a worker means.

    Out of memory is TensorFlow's ResourceExhaustedError, which the worker turns into `TrialMemoryError`,
    or Ray's OutOfMemoryError, by which it ends a worker before the system does and which arrives as
    `WorkerMemoryError`. A worker may die with its machine, by itself (the system's own end of a process
    that takes too much memory is such a death), or of an exception: the latter two are failures. ``address``
    is that of the worker's machine, as far as it is known.
    """
    cause: Any = getattr(error, "cause", None) or error
    if isinstance(cause, TrialMemoryError | WorkerMemoryError):
        return Incident("out_of_memory", describe(cause))
    if isinstance(cause, ray.exceptions.RayActorError) and with_its_machine(cause, address):
        return Incident("machine_lost", "the worker's machine was lost")
    return Incident("failed", describe(cause))


def describe(error: Any) -> str:
    """Return an error in one line: its first or, where that only announces, what raised it first."""
    if isinstance(error, WorkerMemoryError):
        return "the machine ran out of memory, Ray ended the worker"
    if isinstance(error, ray.exceptions.RayActorError):
        return "the worker process died"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    if lines[0].endswith(":"):  # TensorFlow: "Graph execution error:", many lines, the cause among them
        return next((line for line in lines[1:] if CAUSE.match(line)), f"{lines[0]} {lines[-1]}")[:500]
    name = "" if isinstance(error, MicrosegError) else f"{type(error).__name__}: "
    return f"{name}{lines[0]}"[:500]
