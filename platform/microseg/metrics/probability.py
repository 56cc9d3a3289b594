"""How well probabilities rank the pixels, whatever the threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microseg.data.masks import IGNORE


def roc_auc(truths: Sequence[NDArray[np.uint8]], probabilities: Sequence[NDArray[np.floating]]) -> float:
    """Area under the ROC curve, pooled over the images; mean over the foreground classes.

    The probability that a pixel of the class is given a higher probability than a pixel of another, ties
    counting half: exact, and never computed from thresholded masks, which would give a single point of
    the curve.

    Parameters
    ----------
    truths : sequence of ndarray of uint8, each (height, width)
        Class index per pixel; 255 is ignored.
    probabilities : sequence of ndarray of float, each (height, width, maps)
        Probabilities: of the foreground for one map, of every class for several, background first.

    Returns
    -------
    float
        In [0, 1]. NaN where it is not defined: no class both occurs and is missing somewhere, or a
        probability is NaN. A class that every pixel has, or none, has no say in the mean.

    References
    ----------
    Hanley and McNeil 1982, DOI 10.1148/radiology.143.1.7063747.
    """
    truth = np.concatenate([image.ravel() for image in truths])
    probability = np.concatenate([image.reshape(-1, image.shape[-1]) for image in probabilities])
    labelled = truth != IGNORE
    truth, probability = truth[labelled], probability[labelled]
    foreground = range(1, max(probability.shape[1], 2))
    areas = [_area(truth == label, probability[:, label - probability.shape[1]]) for label in foreground]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else float("nan")


def _area(is_class: NDArray[np.bool_], probability: NDArray[np.floating]) -> float | None:
    """Count, for every pixel of the class, the others below it and half of those beside it."""
    inside, outside = np.sort(probability[is_class]), np.sort(probability[~is_class])
    if not (inside.size and outside.size):
        return None
    if np.isnan(inside[-1]) or np.isnan(outside[-1]):  # a sort puts them last, as if they were the highest
        return float("nan")
    below = np.searchsorted(outside, inside, "left").sum()
    not_above = np.searchsorted(outside, inside, "right").sum()
    return float((below + not_above) / 2 / (inside.size * outside.size))
