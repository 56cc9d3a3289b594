"""What a machine of the cluster has of a study: its own folders, and its view of those of the driver."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import ray
from filelock import FileLock, Timeout
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import microseg
from microseg.cluster import take_credentials
from microseg.data.manifest import Item, Manifest
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError, one_line
from microseg.storage import store
from microseg.storage.mirror import download, remove

PATIENCE = 120  # seconds in which a machine says what it sees; its first process has to start


class Need(NamedTuple):
    """A path that every machine must see, and what to do where one does not."""

    path: Path
    advice: str


class Needs(NamedTuple):
    """What a study needs of every machine: paths, and the address of a store that is to be reached."""

    paths: tuple[Need, ...] = ()
    store: str = ""


def check_machines(needs: Needs) -> None:
    """Ask every other machine of the Ray that runs whether a trial could be trained there.

    Raises
    ------
    MicrosegError
        For the first one on which it could not, with its name and what to do.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {
        node["NodeID"]: node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here and node["Resources"].get("CPU")
    }
    asked = {machine: _ask(machine, needs) for machine in others}
    for machine, answer in asked.items():
        try:
            reason = ray.get(answer, timeout=PATIENCE)
        except (ray.exceptions.RayError, ModuleNotFoundError) as error:
            reason = f"does not answer ({one_line(error)[-200:]}); install the same microseg on all machines"
        if reason:
            raise MicrosegError(f"machine {others[machine]} of the Ray cluster {reason}")


def _ask(machine: str, needs: Needs) -> ray.ObjectRef[str]:
    there = NodeAffinitySchedulingStrategy(machine, soft=False)
    asked = ray.remote(num_cpus=0, max_retries=0)(unfit).options(scheduling_strategy=there)
    answer: ray.ObjectRef[str] = asked.remote(needs, microseg.__version__)
    return answer


def unfit(needs: Needs, version: str) -> str:
    """Say why no trial can be trained on this machine; nothing where one can."""
    if microseg.__version__ != version:
        return f"has microseg {microseg.__version__}, this one {version}; install the same on all machines"
    take_credentials()
    missing = next((need for need in needs.paths if not need.path.exists()), None)
    if missing:
        return f"does not see {missing.path}; {missing.advice}"
    try:
        if needs.store:
            with scratch(own_home() / "work") as folder:
                _write_and_remove(needs.store, folder)
    except (MicrosegError, OSError) as error:
        return f"cannot keep what it trains: {one_line(error)}"
    return ""


def _write_and_remove(uri: str, folder: Path) -> None:
    """Do on the store what a trial does there."""
    probe = folder / f"probe-{uuid.uuid4().hex}"
    probe.touch()
    store(probe, f"{uri}/{probe.name}")
    download(uri, [probe.name], folder / "back")
    remove(uri, [probe.name])


def own_home() -> Path:
    """Return where a machine that does not see the driver's folder keeps images and trials in progress.

    That is ``MICROSEG_HOME`` of the environment in which Ray was started there, else the user's cache.
    """
    given = os.environ.get("MICROSEG_HOME")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given).resolve() if given else caches / "microseg"


def own_copy(manifest: Manifest, source: str, options: DataOptions, cache: Path) -> Manifest:
    """Return a data set as this machine has it: from S3, each image downloaded once, and checked.

    Parameters
    ----------
    manifest : Manifest
        The data set, or a part of it, as the driver has it.
    source : str
        Its ``s3://`` URI.
    options : DataOptions
        How the driver read it.
    cache : Path
        Of this machine.

    Raises
    ------
    MicrosegError
        If an image or mask has changed or is gone.
    """
    own = {item.name: item for item in open_dataset(source, options, cache).items}
    items = tuple(_unchanged(item, own.get(item.name), source) for item in manifest.items)
    return manifest.model_copy(update={"items": items})


def _unchanged(item: Item, own: Item | None, source: str) -> Item:
    if own is None or own.hashes != item.hashes:
        raise MicrosegError(
            f"{source}: '{item.name}' or its mask is gone or has changed since the study began; restore it"
        )
    return item.model_copy(update={"images": own.images, "mask": own.mask})


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """Yield a new folder that goes at the end; folders of processes that were killed go now."""
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):  # or a folder that is not locked yet would pass for one that was left
        _remove_left([folder for folder in place.iterdir() if folder.is_dir()])
        own = Path(tempfile.mkdtemp(dir=place))
        held = FileLock(own / "lock").acquire(timeout=0)
    with held:
        (own / "trial").mkdir()
        try:
            yield own / "trial"
        finally:
            shutil.rmtree(own, ignore_errors=True)


def _remove_left(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(Timeout), FileLock(folder / "lock").acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
