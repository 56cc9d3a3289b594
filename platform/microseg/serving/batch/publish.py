"""A finished mask in the format that was asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microseg import storage
from microseg.data.images import write_image
from microseg.data.streams import ImageStream, MaskStore, blocks, write_ome_tiff
from microseg.errors import MicrosegError
from microseg.instances import Labels
from microseg.serving.batch.files import SUFFIXES, mask_of, stem, workplace
from microseg.serving.batch.opening import MOST_PIXELS, Source
from microseg.serving.batch.options import Format, PredictOptions
from microseg.serving.masks import Mask
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
        store.finish(Path(target))
        return
    if kind == "ome-zarr":
        storage.store_folder(store.complete(), target)
    elif storage.is_remote(target):
        with tempfile.TemporaryDirectory(prefix=".microseg-", dir=store.target.parent) as folder:
            file = Path(folder) / f"mask{SUFFIXES[kind]}"
            _write(store, file, kind)
            storage.store(file, target)
    else:
        _write(store, Path(target), kind)
    store.discard()


def put(
    mask: Mask | Labels, source: Source, stream: ImageStream, target: str, options: PredictOptions
) -> str:
    """Put a mask that is in memory at its place, in the format that was asked for, and return the place.

    Parameters
    ----------
    mask : ndarray of uint8 or int32, shape (height, width)
        A mask, or numbered objects.
    source, stream
        The image.
    target : str
        The folder of the masks.
    options : PredictOptions
        Say the format.
    """
    kind = format_of(stream, options.format)
    place = mask_of(source.name, target, SUFFIXES[kind])
    if kind == "png":
        with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
            file = Path(folder) / "mask.png"
            write_image(file, mask if mask.dtype == np.uint8 else as_uint16(mask))
            storage.store(file, place)
        return place
    unfinished = workplace(target) / f"{stem(source.name)}.whole.ome.zarr"
    dtype = "uint8" if mask.dtype == np.uint8 else "uint32"
    store = MaskStore.open(unfinished, stream, dtype, {"predicted": "in one piece"})
    height, width = mask.shape
    try:
        store.write(mask, slice(0, height), slice(0, width))
        publish(store, place, kind)
    except (OSError, MicrosegError):
        store.discard()
        raise
    return place


def _write(store: MaskStore, file: Path, kind: str) -> None:
    if kind == "ome-tiff":
        write_ome_tiff(store.complete(), file)
        return
    write_image(file, _whole(store))


def _whole(store: MaskStore) -> NDArray[np.generic]:
    """Return a mask in the bits that a PNG has, filled block by block."""
    plane = store.plane_array()
    mask = np.empty(plane.shape, np.uint8 if plane.dtype == np.uint8 else np.uint16)
    for _, *window in blocks(plane.shape):
        values = plane[window[0], window[1]]
        mask[window[0], window[1]] = values if mask.dtype == np.uint8 else as_uint16(values)
    return mask


def encoded_bytes(image: ImageStream, kind: str) -> int:
    """Return the bytes that writing an image's mask holds: a PNG is encoded as a whole."""
    height, width, _ = image.shape
    return 2 * 2 * height * width if kind == "png" else 0
