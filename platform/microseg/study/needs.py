"""What a study needs of every machine that trains for it: found out before anything starts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from microseg.cluster import STORE
from microseg.search.machines import Need, Needs
from microseg.search.state import studies_store
from microseg.storage import home, is_remote
from microseg.study.request import Prepared

IMAGES = (
    "put the images on a file system that all machines share, or on S3, and give --data s3://BUCKET/FOLDER"
)
HOME = (
    "put MICROSEG_HOME on a file system that all machines share, or set "
    f"{STORE}=s3://BUCKET/PREFIX, where trials then keep their state"
)
TRACKING = "start `mlflow server` where all machines reach it, and set MLFLOW_TRACKING_URI to its address"
WEIGHTS = "put this file of the search space on a file system that all machines share"


@contextmanager
def needs(prepared: Prepared, tracking_uri: str) -> Iterator[Needs]:
    """Yield what every machine must see: a file is put into ``MICROSEG_HOME`` where all must share it.

    Parameters
    ----------
    prepared : Prepared
        The study.
    tracking_uri : str
        Of MLflow.

    Raises
    ------
    MicrosegError
        If ``MICROSEG_STORE`` names no ``s3://`` prefix.
    """
    store = studies_store()
    found = [Need(file, WEIGHTS) for file in _files(prepared.request.config.space)]
    if not is_remote(prepared.request.data):
        item = prepared.manifest.items[0]
        found += [Need(path, IMAGES) for path in (*item.images[:1], item.mask)]
    if tracking_uri.startswith("sqlite:///"):
        found.append(Need(Path(tracking_uri.removeprefix("sqlite:///")), TRACKING))
    if store:
        yield Needs(tuple(found), store)
        return
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home(), prefix=".seen-by-all-") as probe:
        yield Needs((*found, Need(Path(probe.name), HOME)))


def _files(values: Any) -> Iterator[Path]:
    """Yield the files that a search space names, such as weights to start from."""
    if isinstance(values, dict):
        values = [*values.values()]
    if isinstance(values, list):
        for value in values:
            yield from _files(value)
    elif isinstance(values, str) and Path(values).is_absolute() and Path(values).is_file():
        yield Path(values)
