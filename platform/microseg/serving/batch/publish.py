"""A finished mask in the format that was asked for."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from microseg import storage
from microseg.data.images import write_image
from microseg.data.streams import ImageStream, MaskStore, open_stream, write_ome_tiff
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
    """Finish a mask and put it at its place, as a whole.

    Parameters
    ----------
    store : MaskStore
        All of it is written. It is gone afterwards.
    target : str
        A path or ``s3://`` URI.
    kind : str
        A key of ``SUFFIXES``.
    """
    mask = store.finish()
    if kind == "ome-zarr" and storage.is_remote(target):
        storage.store_folder(mask, target)
    if kind != "ome-zarr":
        with tempfile.TemporaryDirectory(prefix="microseg-", dir=mask.parent) as folder:
            file = Path(folder) / f"mask{SUFFIXES[kind]}"
            _write(mask, file, kind)
            storage.store(file, target)
    if kind != "ome-zarr" or storage.is_remote(target):
        shutil.rmtree(mask)


def _write(mask: Path, file: Path, kind: str) -> None:
    if kind == "ome-tiff":
        write_ome_tiff(mask, file)
        return
    with open_stream(mask) as stream:
        height, width, _ = stream.shape
        values = stream.read(slice(0, height), slice(0, width))[..., 0]
    write_image(file, values if values.dtype == np.uint8 else as_uint16(values))
