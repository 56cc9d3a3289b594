"""Whole images as a network sees them, preprocessed, with their labels and the targets made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from microseg.components import create
from microseg.config import Component
from microseg.data.arrays import border_array, image_array, target_array
from microseg.data.borders import QUARTERS
from microseg.data.files import replacing
from microseg.data.manifest import Item, Manifest
from microseg.data.masks import IGNORE
from microseg.data.preprocess import PREPROCESSING

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]
Target = NDArray[np.float32]

IN_MEMORY = 2 * 2**30  # bytes of preprocessed images that a training holds before it maps files instead


class Pair(NamedTuple):
    """A preprocessed image (height, width, channels) float32 and its labels.

    ``mask`` is the class index, (height, width) uint8. ``border``, of the same shape and type, is the
    distance to the two nearest objects in quarters of a pixel, where the loss needs it.
    """

    name: str
    image: Image
    mask: Mask
    border: Mask | None = None

    @property
    def labels(self) -> Mask:
        """The mask, or mask and border as two planes, shape (height, width, 2)."""
        return self.mask if self.border is None else np.stack([self.mask, self.border], axis=-1)


def load_pairs(
    names: Iterable[str],
    manifest: Manifest,
    cache: Path,
    preprocess: Component,
    *,
    borders: bool = False,
    limit: int = IN_MEMORY,
) -> list[Pair]:
    """Load and preprocess whole images, in memory or, above a limit, as mapped files in the cache.

    Parameters
    ----------
    names : iterable of str
        Names of the manifest's items.
    manifest : Manifest
        The data set.
    cache : Path
        Folder of decoded and preprocessed arrays.
    preprocess : Component
        An entry of ``PREPROCESSING``; it sees whole images, as in prediction.
    borders : bool
        Whether the loss needs the distance between objects.
    limit : int
        Bytes of float32 images that may be held in memory.
    """
    items = {item.name: item for item in manifest.items}
    chosen = [items[name] for name in names]
    size = sum(item.height * item.width * manifest.channels * 4 for item in chosen)
    load = _prepared if size <= limit else _mapped
    return [
        Pair(
            item.name,
            load(item, manifest, cache, preprocess),
            target_array(item, manifest, cache),
            border_array(item, manifest, cache) if borders else None,
        )
        for item in chosen
    ]


def _prepared(item: Item, manifest: Manifest, cache: Path, preprocess: Component) -> Image:
    image: Image = create(preprocess, PREPROCESSING, "preprocess", image_array(item, manifest, cache))
    return image


def _mapped(item: Item, manifest: Manifest, cache: Path, preprocess: Component) -> Image:
    read = f"{item.sha256} {manifest.axes} {manifest.channels}"
    key = hashlib.sha256(f"{read} {preprocess.model_dump_json()}".encode()).hexdigest()
    path = cache / "preprocessed" / f"{key}.npy"
    if not path.exists():
        with replacing(path) as file:
            np.save(file, _prepared(item, manifest, cache, preprocess))
    mapped: Image = np.load(path, mmap_mode="r")
    return mapped


def encode_targets(labels: Mask, maps: int) -> Target:
    """Return targets of shape (..., maps): 0 and 1 for one map, one-hot for several, -1 where ignored.

    Labels with a second plane, (height, width, 2), give one channel more: the distance to the two nearest
    objects in pixels.
    """
    mask = labels[..., 0] if labels.ndim == 3 else labels
    first = 1 if maps == 1 else 0
    targets: Target = (mask[..., None] == np.arange(first, first + maps)).astype(np.float32)
    targets[mask == IGNORE] = -1.0
    if labels.ndim == 2:
        return targets
    return np.concatenate([targets, labels[..., 1:].astype(np.float32) / np.float32(QUARTERS)], axis=-1)
