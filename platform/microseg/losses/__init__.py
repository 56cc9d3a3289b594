"""Losses: pure functions of targets and probabilities, by name.

Targets are float32 ``(batch, height, width, maps)``: 0 or 1 for one map, one-hot for several. A pixel
whose targets are negative is ignored: it adds nothing to any sum. Probabilities have the same shape.
The targets of `BORDER_LOSSES` have one more channel, the distance to the two nearest objects in pixels.
With several maps the losses of regions average over the foreground maps; map 0 is the background.
Everything is computed in float32, whatever the precision of the network.
"""

from microseg.components import Builder
from microseg.losses.overlap import (
    bce_dice,
    bce_iou,
    dice,
    focal_tversky,
    generalised_dice,
    iou,
    log_cosh_dice,
    tversky,
)
from microseg.losses.pixel import bce, bce_border, focal
from microseg.losses.structure import bce_ssim_iou, lovasz
from microseg.losses.weights import balance

LOSSES: dict[str, Builder] = {
    "bce": bce,
    "focal": focal,
    "bce_border": bce_border,
    "dice": dice,
    "generalised_dice": generalised_dice,
    "log_cosh_dice": log_cosh_dice,
    "bce_dice": bce_dice,
    "iou": iou,
    "bce_iou": bce_iou,
    "tversky": tversky,
    "focal_tversky": focal_tversky,
    "bce_ssim_iou": bce_ssim_iou,
    "lovasz": lovasz,
}

# Losses whose targets carry one more channel: d1 + d2 in pixels, see `bce_border`.
BORDER_LOSSES = frozenset({"bce_border"})

__all__ = [
    "BORDER_LOSSES",
    "LOSSES",
    "balance",
    "bce",
    "bce_border",
    "bce_dice",
    "bce_iou",
    "bce_ssim_iou",
    "dice",
    "focal",
    "focal_tversky",
    "generalised_dice",
    "iou",
    "log_cosh_dice",
    "lovasz",
    "tversky",
]
