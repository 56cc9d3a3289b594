"""The trivial rival of a first champion: a threshold on the brightness of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from microseg.metrics.counts import confusion, dice

Image = NDArray[Any]
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Otsu:
    """Otsu's threshold on the mean of an image's preprocessed channels.

    ``dark`` and ``bright`` are the class indices of the pixels up to the threshold, and above it.

    References
    ----------
    Otsu 1979, DOI 10.1109/TSMC.1979.4310076.
    """

    preprocess: Callable[[Image], NDArray[np.float32]]
    dark: int
    bright: int

    def __call__(self, image: Image) -> Mask:
        """Return the class index of every pixel of an image (height, width, channels)."""
        above = _above(self.preprocess(image))
        return np.where(above, self.bright, self.dark).astype(np.uint8)


def fit_otsu(
    preprocess: Callable[[Image], NDArray[np.float32]],
    images: Sequence[Image],
    truths: Sequence[Mask],
    classes: int,
) -> Otsu:
    """Choose what is bright and what is dark: the pair of classes with the highest mean Dice.

    With several foreground classes, two at most are told apart: it is trivial, and still to be beaten.

    Parameters
    ----------
    preprocess : callable
        What the network that it competes with sees of an image.
    images : sequence of ndarray, shape (height, width, channels)
        Training images, as in the files.
    truths : sequence of ndarray of uint8, shape (height, width)
        Class indices; 255 counts nowhere.
    classes : int
        Number of foreground classes.
    """
    sides = [_above(preprocess(image)) for image in images]

    def score(dark: int, bright: int) -> float:
        masks = (np.where(above, bright, dark).astype(np.uint8) for above in sides)
        scores = [
            dice(confusion(truth, mask, classes)).mean() for truth, mask in zip(truths, masks, strict=True)
        ]
        return float(np.mean(scores))

    return Otsu(preprocess, *max(permutations(range(classes + 1), 2), key=lambda pair: score(*pair)))


def _above(prepared: NDArray[np.float32]) -> NDArray[np.bool_]:
    brightness = prepared.mean(axis=-1)
    above: NDArray[np.bool_] = brightness > threshold_otsu(brightness)
    return above
