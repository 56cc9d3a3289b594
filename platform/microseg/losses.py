"""Losses: pure functions of targets and probabilities, by name.

Targets are float32 ``(batch, height, width, maps)``: 0 or 1 for one map, one-hot for several. A pixel
whose targets are negative is ignored: it adds nothing to any sum. Probabilities have the same shape.
With several maps the overlap losses average over the foreground maps; map 0 is the background.
Everything is computed in float32, whatever the precision of the network.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from keras import ops
from pydantic import Field

from microseg.components import Builder

Tensor = Any
Reduction = Literal["image", "batch"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Smooth = Annotated[float, Field(gt=0.0)]

EPSILON = 1e-7  # keeps the logarithm and its gradient finite at probabilities 0 and 1


def _float32(y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
    return ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")


def bce(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Cross-entropy, mean over the pixels: binary for one map, categorical for several (nats)."""
    y_true, y_pred = _float32(y_true, y_pred)
    valid = ops.cast(y_true[..., 0] >= 0, "float32")
    p = ops.clip(y_pred, EPSILON, 1.0 - EPSILON)
    surprise = -y_true * ops.log(p)
    if y_true.shape[-1] == 1:
        surprise -= (1.0 - y_true) * ops.log(1.0 - p)
    return ops.sum(valid * ops.sum(surprise, axis=-1)) / ops.maximum(ops.sum(valid), 1.0)


def _overlap(
    y_true: Tensor, y_pred: Tensor, weights: tuple[float, float], smooth: float, reduction: Reduction
) -> Tensor:
    """One minus TP / (TP + a FN + b FP) with soft counts, where ``weights`` is ``(a, b)``.

    A smaller ``smooth`` than 1 pixel makes the gradient of an empty image steep, never infinite.
    """
    y_true, y_pred = _float32(y_true, y_pred)
    valid = ops.cast(y_true >= 0, "float32")
    if y_true.shape[-1] > 1:
        y_true, y_pred, valid = y_true[..., 1:], y_pred[..., 1:], valid[..., 1:]
    axes = (1, 2) if reduction == "image" else (0, 1, 2)
    tp = ops.sum(valid * y_true * y_pred, axis=axes)
    fn = ops.sum(valid * y_true * (1.0 - y_pred), axis=axes)
    fp = ops.sum(valid * (1.0 - y_true) * y_pred, axis=axes)
    loss = (weights[0] * fn + weights[1] * fp) / (tp + weights[0] * fn + weights[1] * fp + smooth)
    seen = ops.cast(ops.any(valid > 0, axis=axes), "float32")  # an image without any label has no say
    return ops.sum(loss * seen) / ops.maximum(ops.sum(seen), 1.0)


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


LOSSES: dict[str, Builder] = {"bce": bce, "dice": dice, "bce_dice": bce_dice, "tversky": tversky}
