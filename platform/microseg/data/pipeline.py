"""Random crops of preprocessed images as a `tf.data` pipeline that is a function of its seed.

Every sample is drawn from its own generator, seeded by (seed, epoch, number within the epoch): the
threads that draw may finish in any order, and epoch e is the same whether or not training resumed.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microseg.augment import Augmenter
from microseg.data.masks import IGNORE
from microseg.data.pairs import Image, Mask, Pair, Target, encode_targets

DRAWING_THREADS = 4
IMAGES_SEARCHED = 4096  # whose foreground pixels are kept, some 30 KiB for each class of each
Pixels = NDArray[np.int32]


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


def foreground_pixels(mask: Mask, most: int = 4096) -> list[Pixels]:
    """Return, for each foreground class of an image, rows and columns of some pixels, shape (pixels, 2)."""
    found = []
    for value in np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE)[1:IGNORE]) + 1:
        pixels = np.flatnonzero(mask == value)
        chosen = pixels[:: math.ceil(len(pixels) / most)]
        found.append(np.stack(np.unravel_index(chosen, mask.shape), axis=-1).astype(np.int32))
    return found


def _corner(
    shape: Sequence[int], tile: int, rng: np.random.Generator, classes: Sequence[Pixels]
) -> list[int]:
    """Draw where a patch starts: anywhere or, with classes, so that it holds a pixel of one of them."""
    last = [max(side - tile, 0) for side in shape[:2]]
    if not classes:
        return [int(rng.integers(0, end + 1)) for end in last]
    row, column = rng.choice(classes[int(rng.integers(len(classes)))])
    starts = (int(position) - int(rng.integers(tile)) for position in (row, column))
    return [int(np.clip(start, 0, end)) for start, end in zip(starts, last, strict=True)]


def crop(
    pair: Pair, tile: int, rng: np.random.Generator, classes: Sequence[Pixels] = ()
) -> tuple[Image, Mask]:
    """Cut a random square; beyond a smaller image the pixels are mirrored and the labels ignored.

    With ``classes``, pixels by class from `foreground_pixels`, the square holds one of them.
    """
    y, x = _corner(pair.mask.shape, tile, rng, classes)
    window = slice(y, y + tile), slice(x, x + tile)
    image, labels = pair.image[window], pair.labels_at(*window)
    missing = [tile - side for side in labels.shape[:2]]
    if any(missing):
        before = [int(rng.integers(0, gap + 1)) for gap in missing]
        widths = [(start, gap - start) for start, gap in zip(before, missing, strict=True)]
        image = np.pad(image, [*widths, (0, 0)], mode="reflect")
        labels = np.pad(labels, [*widths, (0, 0)][: labels.ndim], constant_values=IGNORE)
    return image, labels


def sampler(
    pairs: Sequence[Pair], sampling: Sampling, augment: Augmenter, maps: int
) -> Callable[[int], tuple[Image, Target]]:
    """Return sample number n of the whole training as a function of n; epochs follow one another."""
    counts = [tile_count(pair.mask.shape, sampling.tile) for pair in pairs]
    length = sampling.steps * sampling.batch_size

    @functools.lru_cache(maxsize=4)  # neighbouring epochs, while the drawing threads cross the border
    def order(epoch: int) -> NDArray[np.intp]:
        return epoch_order(counts, length, (sampling.seed, epoch))

    @functools.lru_cache(maxsize=IMAGES_SEARCHED)
    def foreground(chosen: int) -> list[Pixels]:
        return foreground_pixels(pairs[chosen].mask)

    def sample(number: int) -> tuple[Image, Target]:
        epoch, index = divmod(int(number), length)
        rng = np.random.default_rng((sampling.seed, epoch, index))
        chosen = int(order(epoch)[index])
        aimed = foreground(chosen) if rng.random() < sampling.foreground else ()
        image, mask = crop(pairs[chosen], sampling.tile, rng, aimed)
        image, mask = augment(image, mask, int(rng.integers(2**31)))
        return np.ascontiguousarray(image, np.float32), encode_targets(mask, maps)

    return sample


def training_batches(
    pairs: Sequence[Pair], sampling: Sampling, augment: Augmenter, maps: int, epochs: range
) -> Any:
    """Return a `tf.data.Dataset` of the batches of some epochs, drawn in parallel ahead of the training step.

    They are drawn by as many threads as TensorFlow may use between operations, at most ``DRAWING_THREADS``:
    left alone, `tf.data` takes a thread for every core, whatever the process was given.

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

    given = tf.config.threading.get_inter_op_parallelism_threads() or os.cpu_count() or 1
    threads = min(DRAWING_THREADS, given)
    numbers = tf.data.Dataset.range(epochs.start * length, epochs.stop * length)
    patches = numbers.map(draw, num_parallel_calls=threads, deterministic=True)
    return patches.batch(sampling.batch_size, drop_remainder=True).prefetch(2)
