"""Whether an image looks like the images that a network was trained on: intensities, focus, pixel size.

A network answers any image, also one that it can know nothing about. What is compared is cheap and explains
itself; it does not find every foreign image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from microseg.config import Strict

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")

LOW, HIGH = 1.0, 99.0  # percentiles: a dead or a hot pixel is no intensity range
MARGIN = 0.25  # of the intensities of the training images, beyond either end
FACTOR = 2.0  # beyond the sharpest and the least sharp training image
SCALE = 1.25  # pixel sizes further apart than augmentation commonly scales
MOST_IMAGES = 200
_LOOKED_AT = 2**20  # pixels: more make the measures slower, not better


class Interval(Strict):
    """The least and the most of a measure over the training images."""

    least: float
    most: float


class Appearance(Strict):
    """How the training images look before any preprocessing.

    ``dark`` and ``bright`` are the 1st and the 99th percentile of an image's values and ``contrast`` is their
    difference; ``focus`` is what `look` measures; ``images`` is how many images were looked at.
    """

    dark: Interval
    bright: Interval
    contrast: Interval
    focus: Interval
    images: int


class Look(NamedTuple):
    """The measures of one image, see `Appearance`."""

    dark: float
    bright: float
    contrast: float
    focus: float


def look(image: Array) -> Look:
    """Measure one image; of a large one, evenly spread rows.

    Focus is the variance of the Laplacian (Pech-Pacheco et al. 2000, doi:10.1109/ICPR.2000.903548) divided
    by the variance of the values, so that neither offset nor gain of the camera changes it. It is 20 for
    white noise, goes to 0 with blur, and is 0 for an image of one value.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        As its file stores it; channels are averaged.
    """
    step = max(1, image.shape[0] * image.shape[1] // _LOOKED_AT)
    return _look(_grey(image[::step]), _laplacian(image, step))


def look_at(windows: Sequence[Array]) -> Look:
    """Measure one image by windows of it, see `look`; that of a large image need not be read as a whole."""
    greys, laplacians = ([part.ravel() for part in map(of, windows)] for of in (_grey, _laplacian))
    return _look(np.concatenate(greys), np.concatenate(laplacians))


def _look(values: Array, laplacian: Array) -> Look:
    dark, bright = (float(value) for value in np.percentile(values, (LOW, HIGH)))
    variance = float(values.var(dtype=np.float64))
    focus = float(laplacian.var(dtype=np.float64)) / variance if variance and laplacian.size else 0.0
    return Look(dark, bright, bright - dark, focus)


def _grey(image: Array) -> Array:
    """Average the channels; as a product of matrices this is ten times as fast as a mean."""
    channels = image.shape[-1]
    grey: Array = image.astype(np.float32) @ np.full(channels, 1 / channels, np.float32)
    return grey


def _laplacian(image: Array, step: int = 1) -> Array:
    """Return the sum of four neighbours minus four times the pixel, at every ``step``-th inner row."""
    if min(image.shape[:2]) < 3:
        return np.zeros(0, np.float32)
    above, here, below = (_grey(image[first : image.shape[0] - 2 + first : step]) for first in range(3))
    inner: Array = (above + below - 4 * here)[:, 1:-1] + here[:, :-2] + here[:, 2:]
    return inner


def appearance(images: Iterable[Array]) -> Appearance:
    """Measure training images, at least one, and keep the range of each measure."""
    looks = [look(image) for image in images]
    ranges = [Interval(least=min(values), most=max(values)) for values in zip(*looks, strict=True)]
    return Appearance(**dict(zip(Look._fields, ranges, strict=True)), images=len(looks))


def sample(items: Sequence[T]) -> Sequence[T]:
    """Return at most `MOST_IMAGES` items of a training set, evenly spread: more hardly widen a range."""
    return items[:: -(-len(items) // MOST_IMAGES)]


def differences(seen: Appearance, found: Look) -> list[str]:
    """Say in one sentence each how an image differs from the training images.

    Parameters
    ----------
    seen : Appearance
        Of the training images.
    found : Look
        Of the image, see `look`.

    Returns
    -------
    list of str
        Empty where it looks like them.
    """
    return [*_intensities(seen, found), *_focus(seen, found)]


def _intensities(seen: Appearance, found: Look) -> list[str]:
    room = MARGIN * (seen.bright.most - seen.dark.least)
    outside = found.dark < seen.dark.least - room or found.bright > seen.bright.most + room
    if not outside and found.contrast * FACTOR >= seen.contrast.least:
        return []
    return [
        f"the image's values lie between {found.dark:.4g} and {found.bright:.4g} (1st and 99th percentile), "
        f"those of the training images between {seen.dark.least:.4g} and {seen.bright.most:.4g}, at least "
        f"{seen.contrast.least:.4g} apart: give the values as the training images stored them"
    ]


def _focus(seen: Appearance, found: Look) -> list[str]:
    if found.focus * FACTOR < seen.focus.least:
        return ["the image is more blurred than any training image: check the focus"]
    if found.focus > FACTOR * seen.focus.most:
        return ["the image is noisier, or sharper, than any training image: check exposure and pixel size"]
    return []


def scale_difference(trained_um: float | None, given_um: float | None) -> list[str]:
    """Say whether two pixel sizes are more than a factor of 1.25 apart, as far as they are known."""
    if not trained_um or not given_um or 1 / SCALE <= given_um / trained_um <= SCALE:
        return []
    factor = given_um / trained_um
    return [
        f"a pixel is {given_um:g} um wide, in the training images {trained_um:g} um: resize the image to "
        f"{factor:.3g} times its size for a mask that can be trusted"
    ]
