"""How well objects are found and told apart: average precision and panoptic quality of label images.

Label images hold integers, 0 for background and a number of its own for every object; pass one image, or a
sequence of images whose sizes may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

Labels = NDArray[np.integer]
Images = Labels | Sequence[Labels]

THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
NAMED = {0.50: "ap50", 0.75: "ap75"}


class Overlaps(NamedTuple):
    """The pairs of a true and a predicted object that share pixels, and how many objects there are."""

    iou: NDArray[np.float64]
    true: NDArray[np.intp]
    predicted: NDArray[np.intp]
    shape: tuple[int, int]


def overlaps(truth: Labels, predicted: Labels) -> Overlaps:
    """Return the overlapping pairs of one image; objects are counted from 0 in the order of their labels."""
    true_labels, true_area = np.unique(truth[truth > 0], return_counts=True)
    found_labels, found_area = np.unique(predicted[predicted > 0], return_counts=True)
    both = (truth > 0) & (predicted > 0)
    codes = (truth[both].astype(np.int64) << 32) + predicted[both]
    codes, shared = np.unique(codes, return_counts=True)
    rows = np.searchsorted(true_labels, codes >> 32)
    columns = np.searchsorted(found_labels, codes & 0xFFFFFFFF)
    iou = shared / (true_area[rows] + found_area[columns] - shared)
    return Overlaps(iou, rows, columns, (true_labels.size, found_labels.size))


def _true_positives(pairs: Overlaps, threshold: float) -> int:
    """Return how many pairs can be matched, one to one, whose IoU reaches the threshold.

    Above 0.5 no object has two candidates; at and below it the matching with the most pairs is taken.
    """
    good = pairs.iou >= threshold
    if not good.any():
        return 0
    graph = csr_array((np.ones(good.sum()), (pairs.true[good], pairs.predicted[good])), shape=pairs.shape)
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))


def _compare(truth: Images, predicted: Images) -> list[Overlaps]:
    if isinstance(truth, np.ndarray) and truth.ndim == 2:
        truth, predicted = [truth], [predicted]  # type: ignore[list-item] # one image, as the truth is
    return [overlaps(t, p) for t, p in zip(truth, predicted, strict=True)]


def _precision(tp: NDArray[np.intp], objects: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return TP / (TP + FP + FN); true and predicted objects together are 2 TP + FP + FN."""
    return np.where(objects > 0, tp / np.maximum(objects - tp, 1), 1.0)


def average_precision(
    truth: Images,
    predicted: Images,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    per_image: bool = False,
) -> dict[str, float]:
    """Average precision of instance segmentation: TP / (TP + FP + FN) at thresholds of the IoU.

    This is the definition of the 2018 Data Science Bowl, StarDist and Cellpose; it is no area under a
    precision-recall curve, since objects have no confidence here. An object is found where the IoU of its
    pair reaches the threshold; pairs are one to one.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (height, width), or a sequence of such
        Label images.
    thresholds : sequence of float
        In (0, 1].
    per_image : bool
        Average the precision of the images, as the Data Science Bowl did; an image without objects in
        truth and prediction has 1. Otherwise the objects of all images are counted together.

    Returns
    -------
    dict
        ``ap``, the mean over the thresholds, in [0, 1]; ``ap50`` and ``ap75`` where their thresholds are
        among those given.

    References
    ----------
    Caicedo et al. 2019, DOI 10.1038/s41592-019-0612-7; Schmidt et al. 2018,
    DOI 10.1007/978-3-030-00934-2_30.
    """
    images = _compare(truth, predicted)
    tp = np.array([[_true_positives(pairs, level) for level in thresholds] for pairs in images])
    objects = np.array([sum(pairs.shape) for pairs in images])[:, None]
    if per_image:
        scores = _precision(tp, objects).mean(axis=0)
    else:
        scores = _precision(tp.sum(axis=0), objects.sum(axis=0))
    named = {NAMED[level]: float(x) for level, x in zip(thresholds, scores, strict=True) if level in NAMED}
    return named | {"ap": float(scores.mean())}


def panoptic_quality(truth: Images, predicted: Images) -> dict[str, float]:
    """Panoptic quality of one class of objects, counted over all images together.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (height, width), or a sequence of such
        Label images.

    Returns
    -------
    dict
        ``sq``, segmentation quality: the mean IoU of the matched pairs (IoU > 0.5); ``rq``, recognition
        quality: TP / (TP + FP / 2 + FN / 2); and ``pq``, their product. All in [0, 1]; 1 where there
        are no objects at all, 0 where none is matched.

    References
    ----------
    Kirillov et al. 2019, DOI 10.1109/CVPR.2019.00963.
    """
    images = _compare(truth, predicted)
    objects = sum(sum(pairs.shape) for pairs in images)
    if not objects:
        return {"pq": 1.0, "sq": 1.0, "rq": 1.0}
    matched = np.concatenate([pairs.iou[pairs.iou > 0.5] for pairs in images])
    sq, rq = float(matched.mean()) if matched.size else 0.0, 2.0 * matched.size / objects
    return {"pq": sq * rq, "sq": sq, "rq": rq}
