"""Segmentation metrics from confusion counts: pure functions, and the counts themselves.

Counts are pixels, per foreground class: true positives, false positives, false negatives, true
negatives. One convention holds where a fraction is 0 / 0: it is 1 where prediction and truth agree
(both empty, so nothing is wrong), else 0. Both-empty images thus have Dice = IoU = 1 and are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
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
    agree = ops.cast(counts.fp + counts.fn == 0, "float32")
    return ops.where(denominator > 0, numerator / ops.where(denominator > 0, denominator, 1.0), agree)


def dice(counts: Counts) -> Tensor:
    """Dice coefficient, also F1: 2 TP / (2 TP + FP + FN), in [0, 1]."""
    return _ratio(2.0 * counts.tp, 2.0 * counts.tp + counts.fp + counts.fn, counts)


def iou(counts: Counts) -> Tensor:
    """Intersection over union, also Jaccard: TP / (TP + FP + FN), in [0, 1]."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, counts)


def precision(counts: Counts) -> Tensor:
    """Share of the predicted foreground that is true: TP / (TP + FP), in [0, 1]."""
    return _ratio(counts.tp, counts.tp + counts.fp, counts)


def recall(counts: Counts) -> Tensor:
    """Share of the true foreground that is predicted: TP / (TP + FN), in [0, 1]."""
    return _ratio(counts.tp, counts.tp + counts.fn, counts)


def mcc(counts: Counts) -> Tensor:
    """Matthews correlation coefficient in [-1, 1] (Matthews 1975, DOI 10.1016/0005-2795(75)90109-9).

    The product of the four marginals overflows float32 on large images, that of their roots does not.
    """
    tp, fp, fn, tn = counts
    scale = ops.sqrt(tp + fp) * ops.sqrt(tp + fn) * ops.sqrt(tn + fp) * ops.sqrt(tn + fn)
    a, b = ops.sqrt(tp) * ops.sqrt(tn), ops.sqrt(fp) * ops.sqrt(fn)
    return _ratio((a - b) * (a + b), scale, counts)


METRICS: dict[str, Score] = {"dice": dice, "iou": iou, "mcc": mcc, "precision": precision, "recall": recall}


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
    return {name: float(np.mean(ops.convert_to_numpy(score(counts)))) for name, score in METRICS.items()}


class PooledConfusion(keras.metrics.Metric):  # type: ignore[misc] # Keras has no types
    """All metrics from the confusion counts pooled over an epoch's training patches.

    Negative targets are ignored. The mean over the foreground classes is reported. Counts are float32:
    past 16.7 million pixels a batch's count is rounded to some pixels, which no metric shows.
    """

    def __init__(self, maps: int, threshold: float) -> None:
        super().__init__(name="pooled", dtype="float32")
        self.maps, self.threshold = maps, threshold
        shape = (4, max(maps - 1, 1))
        self.counts = self.add_variable(shape, initializer="zeros", name="counts")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Add a batch of targets and probabilities, shape (batch, height, width, maps)."""
        valid = ops.cast(y_true[..., :1] >= 0, "float32")
        if self.maps == 1:
            truth = ops.cast(y_true > 0.5, "float32")
            found = ops.cast(y_pred >= self.threshold, "float32")
        else:
            truth = ops.cast(y_true[..., 1:] > 0.5, "float32")
            found = ops.one_hot(ops.argmax(y_pred, axis=-1), self.maps, dtype="float32")[..., 1:]
        truth, found = truth * valid, found * valid
        total, true, positive, tp = (ops.sum(x, axis=(0, 1, 2)) for x in (valid, truth, found, truth * found))
        self.counts.assign_add(ops.stack([tp, positive - tp, true - tp, total - true - positive + tp]))

    def result(self) -> dict[str, Tensor]:
        """Return every metric of ``METRICS`` by name."""
        counts = Counts(*ops.unstack(self.counts, 4))
        return {name: ops.mean(score(counts)) for name, score in METRICS.items()}
