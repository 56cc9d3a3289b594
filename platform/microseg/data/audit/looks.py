"""One look at the pixels of each item: all that the audit measures, and nothing larger."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from microseg.data.arrays import image_array, instance_array, target_array
from microseg.data.audit.likeness import thumbnail
from microseg.data.files import content_hash
from microseg.data.images import Array
from microseg.data.manifest import Item, Manifest
from microseg.data.masks import IGNORE

_READERS = 4  # decoding and hashing release the interpreter lock; each thread holds one image


class Look(NamedTuple):
    """What one look at an item tells.

    ``image`` and ``mask`` are hashes of pixels, the latter empty without foreground; ``counts`` the pixels
    of each class, the background first; ``areas`` and ``extents`` the pixels and the longer side of each
    object (none for class masks); ``thumbnail`` 64 x 64 grey values; ``brightness`` and ``spread`` the mean
    and standard deviation of the pixels, as shares of the number type's range for whole numbers; ``contrast``
    how much brighter the foreground is, in units of the spread (NaN where there is none); ``clipped`` the
    share of pixels at the image's own highest value.
    """

    item: Item
    image: str
    mask: str
    counts: Array
    areas: Array
    extents: Array
    thumbnail: Array
    brightness: float
    spread: float
    contrast: float
    clipped: float
    dtype: str

    @property
    def foreground(self) -> int:
        """The number of pixels that are not background."""
        return int(self.counts[1:].sum())


def look_at(manifest: Manifest, cache: Path) -> list[Look]:
    """Look at every item of a data set once, a few at a time.

    Raises
    ------
    MicrosegError
        If a file has changed since the data set was checked.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda item: _look(item, manifest, cache), manifest.items))


def foreground_classes(manifest: Manifest) -> Sequence[str]:
    """Return the names of a data set's classes without the background."""
    return manifest.classes[1:] if manifest.mask_kind == "classes" else manifest.classes


def _look(item: Item, manifest: Manifest, cache: Path) -> Look:
    image, target = image_array(item, manifest, cache), target_array(item, manifest, cache)
    counts = np.bincount(target.ravel(), minlength=IGNORE + 1)[: len(foreground_classes(manifest)) + 1]
    areas, extents = _objects(item, manifest, cache)
    brightness, spread, contrast = _statistics(image, target)
    return Look(
        item=item,
        image=_hash(image),
        mask=_hash(target) if counts[1:].any() else "",
        counts=counts,
        areas=areas,
        extents=extents,
        thumbnail=thumbnail(image),
        brightness=brightness,
        spread=spread,
        contrast=contrast,
        clipped=float(np.mean(image == image.max())),
        dtype=str(image.dtype),
    )


def _hash(array: Array) -> str:
    """Hash decoded pixels: the same image in two file formats is still the same image."""
    return content_hash([str((array.shape, array.dtype)).encode(), np.ascontiguousarray(array).tobytes()])


def _objects(item: Item, manifest: Manifest, cache: Path) -> tuple[Array, Array]:
    """Measure each object; where binary masks do not tell them apart, each 8-connected region."""
    if manifest.mask_kind == "classes":
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if manifest.mask_kind == "instance":
        labels: Array = np.asarray(instance_array(item, manifest, cache))
    else:
        target = target_array(item, manifest, cache)
        labels, _ = ndimage.label((target > 0) & (target != IGNORE), np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    extents = [max(side.stop - side.start for side in box) for box in boxes if box]
    return np.bincount(labels.ravel())[1:], np.array(extents, np.int64)


def _statistics(image: Array, target: Array) -> tuple[float, float, float]:
    """Return brightness, spread and contrast, see `Look`."""
    grey = image.mean(axis=2, dtype=np.float32)
    scale = 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)
    brightness, spread = float(grey.mean(dtype=np.float64)), float(grey.std(dtype=np.float64))
    inside, outside = grey[(target > 0) & (target != IGNORE)], grey[target == 0]
    if not (inside.size and outside.size and spread):
        return brightness / scale, spread / scale, float("nan")
    contrast = float(inside.mean(dtype=np.float64) - outside.mean(dtype=np.float64)) / spread
    return brightness / scale, spread / scale, contrast
