"""Metrics of pixels from confusion counts: per image, pooled over images, and per class.

Counts are pixels, per foreground class against all others: true positives, false positives, false
negatives, true negatives. Where a fraction is 0 / 0 it is 1 if prediction and truth agree (both empty, so
nothing is wrong), else 0. The scores use arithmetic only and take numpy arrays and tensors alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microseg.data.masks import IGNORE

Tensor = Any


class Counts(NamedTuple):
    """Pixels of a confusion table; the members have one shape, such as (images, foreground classes)."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor


Score = Callable[[Counts], Tensor]


def _ratio(numerator: Tensor, denominator: Tensor, counts: Counts) -> Tensor:
    # 0 ** n is 1 for n = 0 and 0 for every other count, in numpy and in every backend of Keras
    undefined, agree = 0.0**denominator, 0.0 ** (counts.fp + counts.fn)
    return (numerator + undefined * agree) / (denominator + undefined)


def accuracy(counts: Counts) -> Tensor:
    """Share of the pixels that are right: (TP + TN) / all, in [0, 1]; high wherever objects are rare."""
    return _ratio(counts.tp + counts.tn, counts.tp + counts.fp + counts.fn + counts.tn, counts)


def precision(counts: Counts) -> Tensor:
    """Share of the predicted foreground that is true: TP / (TP + FP), in [0, 1]."""
    return _ratio(counts.tp, counts.tp + counts.fp, counts)


def recall(counts: Counts) -> Tensor:
    """Share of the true foreground that is predicted, also sensitivity: TP / (TP + FN), in [0, 1]."""
    return _ratio(counts.tp, counts.tp + counts.fn, counts)


def specificity(counts: Counts) -> Tensor:
    """Share of the true background that is predicted as such: TN / (TN + FP), in [0, 1]."""
    return _ratio(counts.tn, counts.tn + counts.fp, counts)


def dice(counts: Counts) -> Tensor:
    """Dice coefficient, also F1: 2 TP / (2 TP + FP + FN), in [0, 1]."""
    return _ratio(2.0 * counts.tp, 2.0 * counts.tp + counts.fp + counts.fn, counts)


def iou(counts: Counts) -> Tensor:
    """Intersection over union, also Jaccard: TP / (TP + FP + FN), in [0, 1]."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, counts)


def mcc(counts: Counts) -> Tensor:
    """Matthews correlation coefficient in [-1, 1] (Matthews 1975, DOI 10.1016/0005-2795(75)90109-9).

    The product of the four marginals overflows float32 on large images, that of their roots does not.
    """
    tp, fp, fn, tn = counts
    scale = (tp + fp) ** 0.5 * (tp + fn) ** 0.5 * (tn + fp) ** 0.5 * (tn + fn) ** 0.5
    a, b = tp**0.5 * tn**0.5, fp**0.5 * fn**0.5
    return _ratio((a - b) * (a + b), scale, counts)


METRICS: dict[str, Score] = {
    "accuracy": accuracy,
    "dice": dice,
    "iou": iou,
    "mcc": mcc,
    "precision": precision,
    "recall": recall,
    "specificity": specificity,
}


def classify(probability: NDArray[np.floating], threshold: float) -> NDArray[np.uint8]:
    """Return the class index per pixel: at or above the threshold for one map, the likeliest of several.

    Parameters
    ----------
    probability : ndarray, shape (..., maps)
        Probabilities in [0, 1].
    threshold : float
        Used for one map only.

    Returns
    -------
    ndarray of uint8, shape (...)
    """
    if probability.shape[-1] == 1:
        return (probability[..., 0] >= threshold).astype(np.uint8)
    classes: NDArray[np.uint8] = np.argmax(probability, axis=-1).astype(np.uint8)
    return classes


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> Counts:
    """Count the pixels of one image, one entry per foreground class.

    Parameters
    ----------
    truth, predicted : ndarray of uint8, shape (height, width)
        Class index per pixel; truth 255 is ignored.
    classes : int
        Number of foreground classes: 1, 2, ...

    Returns
    -------
    Counts
        Members are float64 arrays of shape (classes,).
    """
    valid = truth != IGNORE
    size = classes + 1
    pairs = truth[valid].astype(np.intp) * size + predicted[valid]
    table = np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.float64)
    tp = np.diag(table)
    fp, fn = table.sum(axis=0) - tp, table.sum(axis=1) - tp
    counts = Counts(tp, fp, fn, table.sum() - tp - fp - fn)
    return Counts(*(member[1:] for member in counts))


def evaluate(counts: Counts) -> dict[str, float]:
    """Return every metric, averaged over all entries of the counts (images and foreground classes)."""
    return {name: float(np.mean(score(counts))) for name, score in METRICS.items()}


def _sum_over_images(counts: Counts) -> Counts:
    return Counts(*(np.sum(member, axis=0) for member in counts))


def pooled(counts: Counts) -> dict[str, float]:
    """Return every metric of the counts summed over the images, averaged over the foreground classes.

    Large objects weigh more than in `evaluate`, and empty images count only by their false positives.

    Parameters
    ----------
    counts : Counts
        Members of shape (images, foreground classes).
    """
    return evaluate(_sum_over_images(counts))


def per_class(counts: Counts, classes: Sequence[str]) -> dict[str, float]:
    """Return the pooled IoU of every foreground class as ``iou/<name>``, and their mean as ``mean_iou``.

    Parameters
    ----------
    counts : Counts
        Members of shape (images, foreground classes).
    classes : sequence of str
        Names of the foreground classes.
    """
    scores = iou(_sum_over_images(counts))
    named = {f"iou/{name}": float(score) for name, score in zip(classes, scores, strict=True)}
    return named | {"mean_iou": float(np.mean(scores))}
