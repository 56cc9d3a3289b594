"""Random crops of preprocessed images as a `tf.data` pipeline that is a function of its seed.

Every sample is drawn from its own generator, seeded by (seed, epoch, number within the epoch): the
threads that draw may finish in any order, and epoch e is the same whether or not training resumed.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microseg.augment import Augmenter
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
DRAWING_THREADS = 4


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
    key = hashlib.sha256(f"{item.sha256}{manifest.axes}{preprocess.model_dump_json()}".encode()).hexdigest()
    path = cache / "preprocessed" / f"{key}.npy"
    if not path.exists():
        with replacing(path) as file:
            np.save(file, _prepared(item, manifest, cache, preprocess))
    mapped: Image = np.load(path, mmap_mode="r")
    return mapped


@dataclass(frozen=True)
class Sampling:
    """How patches are drawn: their side in pixels, patches per batch, batches per epoch, and the seed.

    ``foreground`` is the share of the patches that are placed on a foreground pixel.
    """

    tile: int
    batch_size: int
    steps: int
    seed: int
    foreground: float = 0.0


def tile_count(shape: Sequence[int], tile: int) -> int:
    """Return how many tiles side by side cover an image of shape (height, width, ...)."""
    return math.ceil(shape[0] / tile) * math.ceil(shape[1] / tile)


def epoch_steps(pairs: Sequence[Pair], tile: int, batch_size: int) -> int:
    """Return the batches that see as many patches as cover the images."""
    return math.ceil(sum(tile_count(pair.mask.shape, tile) for pair in pairs) / batch_size)


def epoch_order(counts: Sequence[int], length: int, seed: Sequence[int]) -> NDArray[np.intp]:
    """Return which image each of an epoch's samples comes from.

    Every image appears as often as it has tiles, in random order, before any appears again.

    Parameters
    ----------
    counts : sequence of int
        Tiles of each image.
    length : int
        Samples of the epoch.
    seed : sequence of int
        Seed of the order.
    """
    rng = np.random.default_rng(seed)
    once = np.repeat(np.arange(len(counts)), counts)
    rounds = [rng.permutation(once) for _ in range(math.ceil(length / len(once)))]
    return np.concatenate(rounds)[:length]


def foreground_pixels(mask: Mask, most: int = 4096) -> list[NDArray[np.intp]]:
    """Return, for each foreground class of an image, rows and columns of some pixels, shape (pixels, 2)."""
    found = []
    for value in np.setdiff1d(mask, [0, IGNORE]):
        pixels = np.flatnonzero(mask == value)
        chosen = pixels[:: math.ceil(len(pixels) / most)]
        found.append(np.stack(np.unravel_index(chosen, mask.shape), axis=-1))
    return found


def _corner(
    shape: Sequence[int], tile: int, rng: np.random.Generator, classes: Sequence[NDArray[np.intp]]
) -> list[int]:
    """Draw where a patch starts: anywhere or, with classes, so that it holds a pixel of one of them."""
    last = [max(side - tile, 0) for side in shape[:2]]
    if not classes:
        return [int(rng.integers(0, end + 1)) for end in last]
    row, column = rng.choice(classes[int(rng.integers(len(classes)))])
    starts = (position - int(rng.integers(tile)) for position in (row, column))
    return [int(np.clip(start, 0, end)) for start, end in zip(starts, last, strict=True)]


def crop(
    image: Image, labels: Mask, tile: int, rng: np.random.Generator, classes: Sequence[NDArray[np.intp]] = ()
) -> tuple[Image, Mask]:
    """Cut a random square; beyond a smaller image the pixels are mirrored and the labels ignored.

    With ``classes``, pixels by class from `foreground_pixels`, the square holds one of them.
    """
    y, x = _corner(labels.shape, tile, rng, classes)
    image, labels = image[y : y + tile, x : x + tile], labels[y : y + tile, x : x + tile]
    missing = [tile - side for side in labels.shape[:2]]
    if any(missing):
        before = [int(rng.integers(0, gap + 1)) for gap in missing]
        widths = [(start, gap - start) for start, gap in zip(before, missing, strict=True)]
        image = np.pad(image, [*widths, (0, 0)], mode="reflect")
        labels = np.pad(labels, [*widths, (0, 0)][: labels.ndim], constant_values=IGNORE)
    return image, labels


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


def sampler(
    pairs: Sequence[Pair], sampling: Sampling, augment: Augmenter, maps: int
) -> Callable[[int], tuple[Image, Target]]:
    """Return sample number n of the whole training as a function of n; epochs follow one another."""
    counts = [tile_count(pair.mask.shape, sampling.tile) for pair in pairs]
    labels = [pair.labels for pair in pairs]
    classes = [foreground_pixels(pair.mask) if sampling.foreground else [] for pair in pairs]
    length = sampling.steps * sampling.batch_size

    @functools.lru_cache(maxsize=4)  # neighbouring epochs, while the drawing threads cross the border
    def order(epoch: int) -> NDArray[np.intp]:
        return epoch_order(counts, length, (sampling.seed, epoch))

    def sample(number: int) -> tuple[Image, Target]:
        epoch, index = divmod(int(number), length)
        rng = np.random.default_rng((sampling.seed, epoch, index))
        chosen = order(epoch)[index]
        aimed = classes[chosen] if rng.random() < sampling.foreground else ()
        image, mask = crop(pairs[chosen].image, labels[chosen], sampling.tile, rng, aimed)
        image, mask = augment(image, mask, int(rng.integers(2**31)))
        return np.ascontiguousarray(image, np.float32), encode_targets(mask, maps)

    return sample


def training_batches(
    pairs: Sequence[Pair], sampling: Sampling, augment: Augmenter, maps: int, epochs: range
) -> Any:
    """Return a `tf.data.Dataset` of the batches of some epochs, drawn in parallel ahead of the training step.

    Parameters
    ----------
    pairs : sequence of Pair
        The training images.
    sampling : Sampling
        Patch size, batch size, steps per epoch, seed.
    augment : callable
        From `microseg.augment.augmenter`.
    maps : int
        Output maps of the network: 1 for targets 0 and 1, more for one-hot targets.
    epochs : range
        Which epochs, counted from 0; equal epochs give equal batches.

    Returns
    -------
    tf.data.Dataset
        Of images (batch, tile, tile, channels) float32 and targets (batch, tile, tile, maps) float32,
        where every map of an ignored pixel is -1; with borders, a last channel holds their distances.
    """
    import tensorflow as tf

    sample = sampler(pairs, sampling, augment, maps)
    length, side = sampling.steps * sampling.batch_size, sampling.tile
    channels, planes = pairs[0].image.shape[-1], maps + (pairs[0].border is not None)

    def draw(number: Any) -> Any:
        image, target = tf.numpy_function(sample, [number], (tf.float32, tf.float32), stateful=False)
        return tf.ensure_shape(image, (side, side, channels)), tf.ensure_shape(target, (side, side, planes))

    numbers = tf.data.Dataset.range(epochs.start * length, epochs.stop * length)
    threads = min(DRAWING_THREADS, os.cpu_count() or 1)
    patches = numbers.map(draw, num_parallel_calls=threads, deterministic=True)
    return patches.batch(sampling.batch_size, drop_remainder=True).prefetch(2)
