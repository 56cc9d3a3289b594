"""Losses of regions: Dice, Jaccard and Tversky are one function of soft counts, and others follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from keras import ops
from pydantic import Field

from microseg.losses.pixel import bce
from microseg.losses.targets import (
    AXES,
    EPSILON,
    Fraction,
    Reduction,
    Smooth,
    Tensor,
    labelled_foreground,
    mean_where_labelled,
)


def _unchanged(loss: Tensor) -> Tensor:
    return loss


def _soft_counts(truth: Tensor, p: Tensor, labelled: Tensor, reduction: Reduction) -> tuple[Tensor, ...]:
    """Return true positives, false negatives and false positives, in pixels per map and image (or batch)."""
    products = truth * p, truth * (1.0 - p), (labelled - truth) * p
    return tuple(ops.sum(product, axis=AXES[reduction]) for product in products)


def _overlap(
    y_true: Tensor,
    y_pred: Tensor,
    weights: tuple[float, float],
    smooth: float,
    reduction: Reduction,
    shape: Callable[[Tensor], Tensor] = _unchanged,
) -> Tensor:
    """One minus TP / (TP + a FN + b FP) with soft counts, where ``weights`` is ``(a, b)``.

    ``shape`` is applied to the loss of each image and map before their mean. A smaller ``smooth`` than
    1 pixel makes the gradient of an empty image steep, never infinite.
    """
    truth, p, labelled = labelled_foreground(y_true, y_pred)
    tp, fn, fp = _soft_counts(truth, p, labelled, reduction)
    wrong = weights[0] * fn + weights[1] * fp
    return mean_where_labelled(shape(wrong / (tp + wrong + smooth)), labelled, reduction)


def dice(y_true: Tensor, y_pred: Tensor, *, smooth: Smooth = 1.0, reduction: Reduction = "image") -> Tensor:
    """Soft Dice loss in [0, 1]: 1 - (2 TP + smooth) / (2 TP + FN + FP + smooth).

    Parameters
    ----------
    y_true, y_pred : tensor, shape (batch, height, width, maps)
        Targets and probabilities.
    smooth : float
        Pixels added to both sides of the fraction: an empty image predicted empty has loss 0.
    reduction : str
        ``image`` averages over the images, ``batch`` pools the batch's pixels first.

    References
    ----------
    Milletari, Navab and Ahmadi 2016, DOI 10.1109/3DV.2016.79.
    """
    return _overlap(y_true, y_pred, (0.5, 0.5), smooth / 2.0, reduction)


def log_cosh_dice(
    y_true: Tensor, y_pred: Tensor, *, smooth: Smooth = 1.0, reduction: Reduction = "image"
) -> Tensor:
    """Log-cosh Dice loss: log(cosh(Dice loss)), in [0, 0.434]; parameters as in `dice`.

    References
    ----------
    Jadon 2020, DOI 10.1109/CIBCB48159.2020.9277638.
    """
    return _overlap(y_true, y_pred, (0.5, 0.5), smooth / 2.0, reduction, _log_cosh)


def _log_cosh(x: Tensor) -> Tensor:
    """As cosh x = 1 + 2 sinh(x / 2) ** 2, nothing cancels near 0, where x ** 2 / 2 is left."""
    return ops.log1p(2.0 * ops.square(ops.sinh(x / 2.0)))


def iou(y_true: Tensor, y_pred: Tensor, *, smooth: Smooth = 1.0, reduction: Reduction = "image") -> Tensor:
    """Soft Jaccard loss in [0, 1]: 1 - (TP + smooth) / (TP + FN + FP + smooth); parameters as in `dice`.

    References
    ----------
    Rahman and Wang 2016, DOI 10.1007/978-3-319-50835-1_22.
    """
    return _overlap(y_true, y_pred, (1.0, 1.0), smooth, reduction)


def tversky(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    alpha: Fraction = 0.7,
    smooth: Smooth = 1.0,
    reduction: Reduction = "image",
) -> Tensor:
    """Tversky loss in [0, 1]: 1 - (TP + smooth) / (TP + alpha FN + (1 - alpha) FP + smooth).

    Parameters
    ----------
    y_true, y_pred : tensor, shape (batch, height, width, maps)
        Targets and probabilities.
    alpha : float
        Weight of the FALSE NEGATIVES; false positives weigh ``1 - alpha``. Above 0.5 it favours recall.
        At 0.5 it is the Dice loss with twice the ``smooth``.
    smooth, reduction
        As in `dice`.

    References
    ----------
    Salehi, Erdogmus and Gholipour 2017, arXiv:1706.05721 (where alpha weighs the false positives).
    """
    return _overlap(y_true, y_pred, (alpha, 1.0 - alpha), smooth, reduction)


def focal_tversky(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    alpha: Fraction = 0.7,
    gamma: Annotated[float, Field(ge=0.3, le=5.0)] = 0.75,
    smooth: Smooth = 1.0,
    reduction: Reduction = "image",
) -> Tensor:
    """Focal Tversky loss in [0, 1]: (1 - Tversky index) ** gamma, per image and map.

    Parameters
    ----------
    y_true, y_pred, alpha, smooth, reduction
        As in `tversky`: ``alpha`` weighs the FALSE NEGATIVES.
    gamma : float
        Below 1 the loss stays steep where the overlap is already good; above 1 it flattens there.

    References
    ----------
    Abraham and Khan 2019, DOI 10.1109/ISBI.2019.8759329 (whose gamma is 1 / gamma here: 4/3 is 0.75).
    """

    def focus(loss: Tensor) -> Tensor:
        # The power alone has an infinite slope at 0, a perfect prediction, for every gamma below 1.
        return ops.power(loss + EPSILON, gamma) - EPSILON**gamma

    return _overlap(y_true, y_pred, (alpha, 1.0 - alpha), smooth, reduction, focus)


def generalised_dice(y_true: Tensor, y_pred: Tensor, *, reduction: Reduction = "image") -> Tensor:
    """Generalised Dice loss in [0, 1]: every class, background too, weighs 1 / (its pixels) ** 2.

    1 - 2 sum(w TP) / sum(w (2 TP + FN + FP)), both sums over the classes. A class that the truth lacks
    would weigh infinitely; it weighs as much as the rarest one that is there.

    Parameters
    ----------
    y_true, y_pred : tensor, shape (batch, height, width, maps)
        Targets and probabilities; one map stands for background and foreground.
    reduction : str
        As in `dice`.

    References
    ----------
    Sudre et al. 2017, DOI 10.1007/978-3-319-67558-9_28.
    """
    truth, p = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    labelled = ops.cast(truth[..., :1] >= 0, "float32")
    if p.shape[-1] == 1:
        truth, p = (ops.concatenate([1.0 - x, x], axis=-1) for x in (truth, p))
    tp, fn, fp = _soft_counts(truth * labelled, p, labelled, reduction)
    pixels = ops.sum(truth * labelled, axis=AXES[reduction])
    present = pixels > 0
    rarest = ops.min(ops.where(present, pixels, float("inf")), axis=-1, keepdims=True)
    weights = ops.where(present, ops.square(rarest / ops.where(present, pixels, rarest)), 1.0)
    wrong, all_of_it = (ops.sum(weights * x, axis=-1, keepdims=True) for x in (fn + fp, 2.0 * tp + fn + fp))
    return mean_where_labelled(wrong / ops.maximum(all_of_it, EPSILON), labelled, reduction)


def bce_dice(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    weight: Fraction = 0.5,
    smooth: Smooth = 1.0,
    reduction: Reduction = "image",
) -> Tensor:
    """Weighted sum of cross-entropy and Dice loss: ``weight * bce + (1 - weight) * dice``."""
    overlap = dice(y_true, y_pred, smooth=smooth, reduction=reduction)
    return weight * bce(y_true, y_pred) + (1.0 - weight) * overlap


def bce_iou(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    weight: Fraction = 0.5,
    smooth: Smooth = 1.0,
    reduction: Reduction = "image",
) -> Tensor:
    """Weighted sum of cross-entropy and Jaccard loss: ``weight * bce + (1 - weight) * iou``."""
    overlap = iou(y_true, y_pred, smooth=smooth, reduction=reduction)
    return weight * bce(y_true, y_pred) + (1.0 - weight) * overlap
