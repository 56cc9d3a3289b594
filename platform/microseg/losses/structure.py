"""Losses of structure: the similarity of windows, and the Lovász extension of the Jaccard loss."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from keras import ops
from pydantic import Field

from microseg.losses.overlap import iou
from microseg.losses.pixel import bce
from microseg.losses.targets import (
    AXES,
    EPSILON,
    Reduction,
    Smooth,
    Tensor,
    labelled_foreground,
    mean_where_labelled,
)

# Structural similarity as published: 11 x 11 Gaussian window, constants (0.01 L)^2 and (0.03 L)^2, L = 1
RADIUS, SIGMA = 5, 1.5
C1, C2 = 0.01**2, 0.03**2

Share = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


def _gaussian(x: Tensor) -> Tensor:
    """Sum over the Gaussian window of every pixel, channel by channel; nothing lies beyond the border."""
    line = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    line = np.repeat((line / line.sum())[:, None], x.shape[-1], axis=1).astype(np.float32)
    for kernel in (line[:, None, :, None], line[None, :, :, None]):  # a Gaussian is the product of two lines
        x = ops.depthwise_conv(x, ops.convert_to_tensor(kernel), padding="same", data_format="channels_last")
    return x


def _similarity(x: Tensor, y: Tensor, labelled: Tensor) -> Tensor:
    """Return the structural similarity of the window around every pixel, in [-1, 1].

    A window's statistics are those of its labelled pixels: neither what is ignored nor the padding enters.
    """
    x, y = x * labelled, y * labelled
    sums = _gaussian(ops.concatenate([labelled, x, y, x * x, y * y, x * y], axis=-1))
    weight, *moments = ops.split(sums, 6, axis=-1)
    mx, my, xx, yy, xy = (moment / ops.maximum(weight, EPSILON) for moment in moments)
    luminance = (2.0 * mx * my + C1) / (mx * mx + my * my + C1)
    return luminance * (2.0 * (xy - mx * my) + C2) / (xx - mx * mx + yy - my * my + C2)


def bce_ssim_iou(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    weights: tuple[Share, Share, Share] = (1.0, 1.0, 1.0),
    smooth: Smooth = 1.0,
    reduction: Reduction = "image",
) -> Tensor:
    """Hybrid loss of BASNet: cross-entropy, 1 - structural similarity, and Jaccard loss, summed.

    Parameters
    ----------
    y_true, y_pred : tensor, shape (batch, height, width, maps)
        Targets and probabilities.
    weights : three floats
        Factors of the three; published 1, 1, 1.
    smooth, reduction
        As in `dice`; the similarity is averaged over the labelled pixels of an image (or of the batch).

    References
    ----------
    Qin et al. 2019, DOI 10.1109/CVPR.2019.00766. Structural similarity: Wang et al. 2004,
    DOI 10.1109/TIP.2003.819861.
    """
    truth, p, labelled = labelled_foreground(y_true, y_pred)
    different = ops.sum(labelled * (1.0 - _similarity(truth, p, labelled)), axis=AXES[reduction])
    different /= ops.maximum(ops.sum(labelled, axis=AXES[reduction]), 1.0)
    ssim = mean_where_labelled(different, labelled, reduction)
    overlap = iou(y_true, y_pred, smooth=smooth, reduction=reduction)
    return weights[0] * bce(y_true, y_pred) + weights[1] * ssim + weights[2] * overlap


def lovasz(
    y_true: Tensor,
    y_pred: Tensor,
    *,
    variant: Literal["hinge", "softmax"] | None = None,
    reduction: Reduction = "image",
) -> Tensor:
    """Lovász loss: the convex extension of the Jaccard loss, of the sorted errors of the pixels.

    Parameters
    ----------
    y_true, y_pred : tensor, shape (batch, height, width, maps)
        Targets and probabilities.
    variant : str, optional
        What the error of a pixel is. ``softmax``: the difference of target and probability; it lies in
        [0, 1] and equals the Jaccard loss where the probabilities are 0 and 1. ``hinge``: the hinge loss
        of the logit, each map on its own; it is never below the Jaccard loss at threshold 0.5. Without
        it as published: hinge for one map, softmax for several.
    reduction : str
        ``image`` averages over the images, ``batch`` sorts the batch's pixels together.

    References
    ----------
    Berman, Triki and Blaschko 2018, DOI 10.1109/CVPR.2018.00464.
    """
    truth, p, labelled = labelled_foreground(y_true, y_pred)
    if (variant or ("hinge" if y_pred.shape[-1] == 1 else "softmax")) == "hinge":
        p = ops.clip(p, EPSILON, 1.0 - EPSILON)
        errors = ops.relu(1.0 - (2.0 * truth - 1.0) * (ops.log(p) - ops.log(1.0 - p)))
    else:
        errors = ops.abs(truth - p)
    rows = (ops.shape(p)[0] if reduction == "image" else 1, -1, p.shape[-1])
    losses = _lovasz_extension(*(ops.reshape(x, rows) for x in (errors * labelled, truth, labelled)))
    return mean_where_labelled(losses, labelled, reduction)


def _lovasz_extension(errors: Tensor, truth: Tensor, labelled: Tensor) -> Tensor:
    """Return the Lovász extension of the Jaccard loss, shape (rows, maps), from (rows, pixels, maps).

    Every error, the largest first, is weighed by what the Jaccard loss gains when its pixel turns wrong:
    1 / U for a pixel of the object, I / (U (U - 1)) for one outside, I and U the pixels of intersection
    and union afterwards. (The difference of two losses would be lost to rounding in large images.)
    """
    order = ops.argsort(-errors, axis=1)
    errors, truth, labelled = (ops.take_along_axis(x, order, axis=1) for x in (errors, truth, labelled))
    outside = labelled - truth
    objects = ops.sum(truth, axis=1, keepdims=True)
    intersection = objects - ops.cumsum(truth, axis=1)
    union = ops.maximum(objects + ops.cumsum(outside, axis=1), 1.0)
    # Without an object the first wrong pixel turns the loss from 0 to 1, and no other matters.
    gain = ops.where(union > 1.0, intersection / (union * ops.maximum(union - 1.0, 1.0)), 1.0)
    return ops.sum(errors * (truth / union + outside * gain), axis=1)
