"""Decoded images and masks: decoded once per machine, mapped from disk afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from microseg.data.borders import border_distance, separate
from microseg.data.files import content_hash, file_hash, read_bytes, replacing
from microseg.data.images import Array, read_image, read_labels
from microseg.data.manifest import Item, Manifest
from microseg.data.masks import IGNORE, to_target
from microseg.errors import MicrosegError


def image_array(item: Item, manifest: Manifest, cache: Path) -> Array:
    """Return an item's image.

    Returns
    -------
    ndarray, shape (height, width, channels)
        uint8, uint16 or float32 as in the file, read-only; a grey image of a colour set has its
        values in all three channels.

    Raises
    ------
    MicrosegError
        If the files cannot be read or have changed since the data set was checked.
    """

    def decode() -> Array:
        image = read_image(item.images, manifest.axes)
        return np.broadcast_to(image, (*image.shape[:2], manifest.channels))

    return _cached(item, f"image {manifest.axes} {manifest.channels}", cache, decode)


def target_array(item: Item, manifest: Manifest, cache: Path) -> Array:
    """Return an item's class indices.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        0 is background, 255 counts nowhere; read-only.

    Raises
    ------
    MicrosegError
        As `image_array`.
    """
    role = f"target {manifest.mask_kind} {manifest.threshold} {manifest.ignore}"
    return _cached(item, role, cache, lambda: to_target(read_labels(item.mask), manifest))


def instance_array(item: Item, manifest: Manifest, cache: Path) -> Array:
    """Return an item's objects, each with a number of its own.

    Returns
    -------
    ndarray of int32, shape (height, width)
        0 is background, objects are 1 to n; read-only.

    Raises
    ------
    MicrosegError
        If the masks do not tell objects apart, or as `image_array`.
    """
    if manifest.mask_kind != "instance":
        raise MicrosegError(
            f"{manifest.name}: {manifest.mask_kind} masks do not tell objects apart; give instance masks"
        )
    return _cached(item, "instances 1 to n", cache, lambda: _consecutive(read_labels(item.mask)))


def _consecutive(labels: Array) -> Array:
    """Count objects from 1 on: a mask may use any of 2**32 numbers, and tables go up to the highest."""
    values, index = np.unique(labels, return_inverse=True)
    counted: Array = (index.reshape(labels.shape) + (values[0] > 0)).astype(np.int32)
    return counted


def border_array(item: Item, manifest: Manifest, cache: Path) -> Array:
    """Return how close two objects of an item are at each pixel, see `border_distance`.

    Where masks do not tell objects apart, each connected region of a class is one.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        Quarters of a pixel, 255 where far; read-only.

    Raises
    ------
    MicrosegError
        As `image_array`.
    """

    def decode() -> Array:
        if manifest.mask_kind == "instance":
            return border_distance(instance_array(item, manifest, cache))
        return border_distance(separate(np.asarray(target_array(item, manifest, cache)), IGNORE))

    return _cached(
        item, f"borders {manifest.mask_kind} {manifest.threshold} {manifest.ignore}", cache, decode
    )


def _cached(item: Item, role: str, cache: Path, decode: Callable[[], Array]) -> Array:
    path = cache / "arrays" / f"{content_hash([item.sha256.encode(), role.encode()])[:40]}.npy"
    if not path.is_file():
        _check_unchanged(item)
        with replacing(path) as handle:
            np.save(handle, np.ascontiguousarray(decode()), allow_pickle=False)
    mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def _check_unchanged(item: Item) -> None:
    """Make sure that what is stored under a content hash has that content."""
    if tuple(file_hash(read_bytes(path)) for path in (*item.images, item.mask)) != item.hashes:
        raise MicrosegError(
            f"{item.images[0]}: it or its mask changed since the data set was checked; start again"
        )
