"""Whole images as a network sees them, preprocessed, with their labels and the targets made of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microseg.components import create
from microseg.config import Component
from microseg.data.arrays import border_array, image_array, target_array
from microseg.data.borders import QUARTERS
from microseg.data.files import replacing
from microseg.data.manifest import Item, Manifest
from microseg.data.masks import IGNORE
from microseg.data.preprocess import PREPROCESSING, Transform, divisible, fit, output_channels

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]
Target = NDArray[np.float32]

# Bytes of preprocessed images that a training holds in memory: before it reads windows instead, which takes
# 0.2 ms a patch and shares the decoded images with other trials; and where CLAHE allows no windows.
WINDOWS_ABOVE, FILES_ABOVE = 2**28, 2**31


class Windowed:
    """A decoded image that is preprocessed window by window, with the bits of the whole one preprocessed.

    Parameters
    ----------
    read : callable
        Returns the image as decoded, (height, width, channels), mapped from the cache: it is open only while
        a window is read. It is measured when the first one is.
    preprocess : Component
        An entry of ``PREPROCESSING`` that is `divisible`.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, read: Callable[[], NDArray[Any]], preprocess: Component) -> None:
        self._read, self._preprocess = read, preprocess
        height, width, channels = read().shape
        self.shape = (height, width, output_channels(preprocess, channels))

    @functools.cached_property
    def _transform(self) -> Transform:
        return fit(self._preprocess, lambda: [self._read()])

    def __getitem__(self, window: tuple[slice, slice]) -> Image:
        return self._transform(self._read()[window])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:, :].astype(dtype or self.dtype, copy=False)


class Pair(NamedTuple):
    """A preprocessed image (height, width, channels) float32 and its labels.

    The image is read by two slices, rows and columns; ``whole`` is all of it in memory. ``mask`` is the class
    index, (height, width) uint8. ``border``, of the same shape and type, is the distance to the two nearest
    objects in quarters of a pixel, where the loss needs it.
    """

    name: str
    image: Image | Windowed
    mask: Mask
    border: Mask | None = None

    @property
    def whole(self) -> Image:
        """The image in memory."""
        return np.asarray(self.image)

    @property
    def labels(self) -> Mask:
        """The mask, or mask and border as two planes, shape (height, width, 2)."""
        return self.labels_at(slice(None), slice(None))

    def labels_at(self, rows: slice, columns: slice) -> Mask:
        """Return a window of the labels; of large images nothing else is read."""
        mask = self.mask[rows, columns]
        return mask if self.border is None else np.stack([mask, self.border[rows, columns]], axis=-1)


class StoredPair(Pair):
    """A pair whose arrays are opened whenever they are asked for; it is made of functions that open them.

    Python keeps the file of a mapped array open, and systems allow a process some thousands.
    """

    @property
    def image(self) -> Image | Windowed:
        """The image, opened now."""
        return self[1]()  # type: ignore[operator,no-any-return]

    @property
    def mask(self) -> Mask:
        """The mask, opened now."""
        return self[2]()  # type: ignore[operator,no-any-return]

    @property
    def border(self) -> Mask | None:
        """The distance to the two nearest objects, opened now, or None."""
        return self[3] and self[3]()  # type: ignore[operator]


def load_pairs(
    names: Iterable[str],
    manifest: Manifest,
    cache: Path,
    preprocess: Component,
    *,
    borders: bool = False,
    limit: int | None = None,
) -> list[Pair]:
    """Load and preprocess images: whole in memory or, above a limit, window by window as they are read.

    With CLAHE, which needs whole images, they are mapped from files in the cache above the limit.

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
    limit : int, optional
        Bytes of float32 images that may be held in memory, if not the usual.

    Raises
    ------
    MicrosegError
        If an image cannot be read.
    """
    items = {item.name: item for item in manifest.items}
    chosen = [items[name] for name in names]
    size = sum(item.height * item.width * manifest.channels * 4 for item in chosen)
    windows = divisible(preprocess.params)
    most = limit if limit is not None else WINDOWS_ABOVE if windows else FILES_ABOVE
    load = _held if size <= most else _windowed if windows else _mapped
    return [load(item, manifest, cache, preprocess, borders) for item in chosen]


def _held(item: Item, manifest: Manifest, cache: Path, preprocess: Component, borders: bool) -> Pair:
    return Pair(
        item.name,
        _prepared(item, manifest, cache, preprocess),
        np.array(target_array(item, manifest, cache)),
        np.array(border_array(item, manifest, cache)) if borders else None,
    )


def _windowed(item: Item, manifest: Manifest, cache: Path, preprocess: Component, borders: bool) -> Pair:
    image = Windowed(functools.partial(image_array, item, manifest, cache), preprocess)
    return _stored(lambda: image, item, manifest, cache, borders)


def _mapped(item: Item, manifest: Manifest, cache: Path, preprocess: Component, borders: bool) -> Pair:
    read = functools.partial(_mapped_image, item, manifest, cache, preprocess)
    read()
    return _stored(read, item, manifest, cache, borders)


def _stored(read: Callable[[], Any], item: Item, manifest: Manifest, cache: Path, borders: bool) -> Pair:
    target = functools.partial(target_array, item, manifest, cache)
    border = functools.partial(border_array, item, manifest, cache) if borders else None
    target()  # decoded, where nobody did yet
    if border:
        border()
    return StoredPair(item.name, read, target, border)  # type: ignore[arg-type]


def _prepared(item: Item, manifest: Manifest, cache: Path, preprocess: Component) -> Image:
    image: Image = create(preprocess, PREPROCESSING, "preprocess", image_array(item, manifest, cache))
    return image


def _mapped_image(item: Item, manifest: Manifest, cache: Path, preprocess: Component) -> Image:
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
