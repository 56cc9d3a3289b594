"""From probabilities to what is shown: masks, and the pieces of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from microseg.instances import Labels

Probability = NDArray[np.float32]
Mask = NDArray[np.uint8]


def to_mask(probability: Probability, threshold: float) -> Mask:
    """Decide every pixel's class.

    Parameters
    ----------
    probability : ndarray of float32, shape (height, width, classes)
        One map (sigmoid) or one per class, the background first (softmax), in [0, 1].
    threshold : float
        Where one map counts as foreground, in (0, 1); several maps are decided by the largest.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        0 and 255 for one map, so that any viewer shows the mask and any reader that takes non-zero
        as foreground reads it back; class indices from 0 for several.
    """
    if probability.shape[-1] == 1:
        return np.where(probability[..., 0] >= threshold, 255, 0).astype(np.uint8)
    classes: Mask = probability.argmax(axis=-1).astype(np.uint8)
    return classes


def pieces(mask: NDArray[np.generic]) -> Labels:
    """Label the connected pieces of each class of a mask, (height, width), from 1 on; 0 is background."""
    labels: Labels = measure.label(mask, connectivity=2).astype(np.int32)
    return labels
