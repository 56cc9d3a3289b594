"""A finished mask in the format that was asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from microseg import storage
from microseg.data.images import write_image
from microseg.data.streams import ImageStream, MaskStore, write_ome_tiff
from microseg.errors import MicrosegError
from microseg.serving.batch.files import SUFFIXES
from microseg.serving.batch.opening import MOST_PIXELS
from microseg.serving.batch.options import Format
from microseg.serving.objects import as_uint16


def format_of(image: ImageStream, chosen: Format) -> str:
    """Return the format of an image's mask.

    Raises
    ------
    MicrosegError
        If the chosen one cannot hold it.
    """
    height, width, _ = image.shape
    fits_png = not image.planes and height * width <= MOST_PIXELS
    if chosen == "png" and not fits_png:
        what = f"{image.planes} planes" if image.planes else f"{width} x {height} pixels"
        raise MicrosegError(
            f"{image.name}: {what}, but a PNG holds one plane of at most {MOST_PIXELS} pixels; "
            "give --format ome-tiff or ome-zarr"
        )
    if chosen != "auto":
        return chosen
    if image.ngff:
        return "ome-zarr"
    return "png" if fits_png else "ome-tiff"


def publish(store: MaskStore, target: str, kind: str) -> None:
    """Put a mask at its place, as a whole; the store is gone afterwards.

    Parameters
    ----------
    store : MaskStore
        All of it is written.
    target : str
        A path or ``s3://`` URI.
    kind : str
        A key of ``SUFFIXES``.
    """
    if kind == "ome-zarr" and not storage.is_remote(target):
        store.finish()
        return
    if kind == "ome-zarr":
        storage.store_folder(store.complete(), target)
    elif storage.is_remote(target):
        with tempfile.TemporaryDirectory(prefix="microseg-", dir=store.target.parent) as folder:
            file = Path(folder) / f"mask{SUFFIXES[kind]}"
            _write(store, file, kind)
            storage.store(file, target)
    else:
        _write(store, Path(target), kind)
    store.discard()


def _write(store: MaskStore, file: Path, kind: str) -> None:
    if kind == "ome-tiff":
        write_ome_tiff(store.complete(), file)
        return
    height, width = store.shape
    values = store.plane_array()[0:height, 0:width]
    write_image(file, values if values.dtype == np.uint8 else as_uint16(values))
