"""The state of a trial's training: in its folder, or on a store where machines share no folder.

On the store each attempt at a trial has a number, and a folder that nobody else writes to::

    STORE/studies/STUDY/TRIAL/incidents.json       what went wrong before, by the driver
    STORE/studies/STUDY/TRIAL/000002/claim.json    attempt 2 has begun: attempt 1, should it live, ends
    STORE/studies/STUDY/TRIAL/000002/ready.json    what attempt 1 had kept is here: attempt 2 counts
    STORE/studies/STUDY/TRIAL/000002/fold-0/...    the trial's folder

So the worker of a driver that was killed cannot mix its state with that of its successor, whatever the order
in which the two write, and without locks, which S3 does not have.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from microseg.cluster import STORE
from microseg.errors import MicrosegError
from microseg.search import incidents, patience
from microseg.search.machines import scratch
from microseg.storage import is_remote, store
from microseg.storage.mirror import download, objects, remove

CLAIM, READY = "claim.json", "ready.json"
ORPHAN = 120  # seconds that Ray takes at most to end the workers of a driver that was killed
SETTLE = 15.0  # seconds in which such a worker has written what it was about to write

T = TypeVar("T")


class SupersededError(MicrosegError):
    """Another attempt has taken the trial over."""


def studies_store() -> str:
    """Return where trials keep their state for all machines to read; empty without ``MICROSEG_STORE``.

    Raises
    ------
    MicrosegError
        If the variable names no ``s3://`` prefix.
    """
    given = os.environ.get(STORE, "").rstrip("/")
    if not given:
        return ""
    if not is_remote(given) or not given.removeprefix("s3://"):
        raise MicrosegError(
            f"{STORE} is {given}; allowed is an address such as s3://BUCKET/PREFIX, or unset it: then all "
            "machines must share MICROSEG_HOME"
        )
    return f"{given}/studies"


def study_store(name: str, run_id: str) -> str:
    """Return where the trials of one study do; its run tells it from others of the same name."""
    base = studies_store()
    return f"{base}/{name}-{run_id[:8]}" if base else ""


class Attempt:
    """One worker's attempt at a trial: the folder in which it trains, and what of that it keeps on the store.

    Parameters
    ----------
    folder : Path
        Of the trial, on this machine.
    uri : str
        The trial on the store; empty where the folder itself outlives the worker.
    number : int
        Which attempt it is, from 1 on.
    """

    def __init__(self, folder: Path, uri: str = "", number: int = 0) -> None:
        self.folder = folder
        self.superseded = False
        self._trial, self._number = uri, number
        self._own = f"{uri}/{number:06d}"
        self._kept: dict[str, tuple[int, int]] = {}

    def save(self) -> None:
        """Bring the store to what the folder holds; what says that the rest is whole goes last.

        Raises
        ------
        SupersededError
            If another attempt has begun meanwhile: this one's driver is dead.
        MicrosegError
            If the store is away for minutes.
        """
        if not self._trial:
            return
        if patiently(lambda: max(_numbers(objects(self._trial)), default=0)) > self._number:
            self.superseded = True
            raise SupersededError(f"{self._own}: another attempt has taken the trial over")
        here = _files(self.folder)
        changed = [name for name in here if here[name] != self._kept.get(name)]
        for name in sorted(changed, key=_last):
            patiently(functools.partial(store, self.folder / name, f"{self._own}/{name}"))
        gone = self._kept.keys() - here.keys()
        patiently(lambda: remove(self._own, gone))
        self._kept = here

    def mark(self, name: str, **said: str) -> None:
        """Put a small object beside the files, which tells other machines where this attempt stands."""
        with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
            path = Path(folder, name)
            path.write_text(json.dumps(said), encoding="utf-8")
            patiently(lambda: store(path, f"{self._own}/{name}"))


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the time of change and the size of each file, by its name within the folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            stat = path.stat()
            found[path.relative_to(folder).as_posix()] = (stat.st_mtime_ns, stat.st_size)
    return found


def _last(name: str) -> tuple[bool, str]:
    """Sort JSON behind all else: a checkpoint or a result names files that are whole when it is there."""
    return name.endswith(".json"), name


def _numbers(found: Iterable[str]) -> set[int]:
    return {int(first) for first in (name.partition("/")[0] for name in found) if first.isdigit()}


def patiently(act: Callable[[], T]) -> T:
    """Do something on the store, again and again while it is away; the last `MicrosegError` is raised."""
    return patience.patiently(act, lambda error: isinstance(error, MicrosegError))


@contextmanager
def shared(folder: Path) -> Iterator[Attempt]:
    """Hold a trial's folder that all machines see: the worker of a dead driver may live on for a while.

    Raises
    ------
    MicrosegError
        If another process still holds it after two minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / "lock").acquire(timeout=ORPHAN)
    except Timeout as error:
        raise MicrosegError(f"another process still trains in {folder}") from error
    with lock:
        yield Attempt(folder)


@contextmanager
def taken_over(
    uri: str, session: str, place: Path, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Attempt]:
    """Go on with a trial that the store has, in a new folder on this machine.

    Parameters
    ----------
    uri : str
        The trial on the store.
    session : str
        Of the driver. A worker of another one may be about to write to MLflow: it is given time to notice.
    place : Path
        Where the folder is made; what killed processes have left there is deleted.
    sleep : callable
        Waits for so many seconds.
    """
    with scratch(place) as folder:
        found = patiently(lambda: objects(uri))
        last = max(_numbers(found), default=0)
        attempt = Attempt(folder, uri, last + 1)
        attempt.mark(CLAIM, session=session, worker=f"{platform.node()}, process {os.getpid()}")
        if f"{last:06d}/{CLAIM}" in found and _session(f"{uri}/{last:06d}") != session:
            sleep(SETTLE)
        patiently(lambda: fetch(uri, folder))
        attempt.save()
        attempt.mark(READY)
        former = [name for name in patiently(lambda: objects(uri)) if _numbers([name]) & {*range(last + 1)}]
        patiently(lambda: remove(uri, former))
        yield attempt


def _session(uri: str) -> str:
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        patiently(lambda: download(uri, [CLAIM], Path(folder)))
        return str(json.loads(Path(folder, CLAIM).read_bytes())["session"])


def fetch(uri: str, folder: Path) -> None:
    """Copy what the last attempt at a trial that counts has kept, and what went wrong with it before.

    JSON goes first: the files that it names were there before it, and one that a living worker removes
    meanwhile makes this fail, not give half a state.

    Raises
    ------
    MicrosegError
        If the store is away, or a worker changed the state meanwhile: try again.
    """
    found = objects(uri)
    ready = [number for number in _numbers(found) if f"{number:06d}/{READY}" in found]
    if ready:
        own = f"{max(ready):06d}/"
        names = [name.removeprefix(own) for name in found if name.startswith(own)]
        wanted = [name for name in names if name not in (CLAIM, READY)]
        for last in (True, False):
            download(f"{uri}/{own[:-1]}", [name for name in wanted if _last(name)[0] is last], folder)
    if incidents.FILE in found:
        download(uri, [incidents.FILE], folder)


def note(uri: str, folder: Path) -> None:
    """Put what went wrong with a trial, from its folder at the driver, where the next attempt reads it."""
    patiently(lambda: store(folder / incidents.FILE, f"{uri}/{incidents.FILE}"))


def forget(uri: str, keep: Collection[str] = ()) -> None:
    """Remove what a study, or one trial, has on the store, but for the trials that go on.

    What cannot be removed now stays: it is in nobody's way.
    """
    with suppress(MicrosegError):
        found = objects(uri)
        remove(uri, [name for name in found if name.partition("/")[0] not in keep])
