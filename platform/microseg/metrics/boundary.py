"""How well outlines agree: the boundary F1 score and the 95 % Hausdorff distance.

The outline of a mask is its pixels that have a 4-neighbour outside it. Beyond the image there is
background, and so there is in pixels that are ignored, in the truth and in the prediction: a mask that is
not empty always has an outline.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from microseg.data.masks import IGNORE

Classes = NDArray[np.uint8] | NDArray[np.bool_]


def outline_distances(
    truth: Classes, predicted: Classes, label: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distance of every true outline pixel to the predicted outline, and the reverse, in pixels.

    Where the other outline is empty, the distances are infinite.
    """
    labelled = truth != IGNORE
    true, found = (np.argwhere(_outline((mask == label) & labelled)) for mask in (truth, predicted))
    # Trees of the outlines' pixels: less time and memory than distance transforms of a whole slide.
    return KDTree(found).query(true)[0], KDTree(true).query(found)[0]


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    outline: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask)
    return outline


def boundary_f1(truth: Classes, predicted: Classes, *, tolerance: float = 2.0, label: int = 1) -> float:
    """Boundary F1 score of one image: harmonic mean of the outlines' precision and recall, in [0, 1].

    Parameters
    ----------
    truth, predicted : ndarray of uint8 or bool, shape (height, width)
        Class index per pixel; truth 255 is ignored.
    tolerance : float
        Distance in pixels up to which outlines agree.
    label : int
        The class that is compared.

    Returns
    -------
    float
        1 where both are empty, 0 where one of them is.

    References
    ----------
    Csurka, Larlus and Perronnin 2013, DOI 10.5244/C.27.32.
    """
    true, found = outline_distances(truth, predicted, label)
    if not (true.size and found.size):
        return float(true.size == found.size)
    recall, precision = np.mean(true <= tolerance), np.mean(found <= tolerance)
    return float(2.0 * precision * recall / (precision + recall)) if precision + recall else 0.0


def hausdorff95(
    truth: Classes, predicted: Classes, *, pixel_size_um: float | None = None, label: int = 1
) -> float:
    """Symmetric 95 % Hausdorff distance of the outlines of one image.

    95 % of the pixels of either outline are at most so far from the other: the larger of the two
    directed percentiles, so that a stray pixel does not decide.

    Parameters
    ----------
    truth, predicted, label
        As in `boundary_f1`.
    pixel_size_um : float, optional
        Side of a pixel in micrometres; without it the distance is in pixels.

    Returns
    -------
    float
        In micrometres or pixels: 0 where both are empty, the image's diagonal where one of them is, so
        that a mean over images stays finite.

    References
    ----------
    Huttenlocher, Klanderman and Rucklidge 1993, DOI 10.1109/34.232073.
    """
    true, found = outline_distances(truth, predicted, label)
    if true.size and found.size:
        distance = float(max(np.percentile(true, 95), np.percentile(found, 95)))
    else:
        distance = 0.0 if true.size == found.size else math.hypot(*truth.shape)
    return distance * (pixel_size_um or 1.0)
