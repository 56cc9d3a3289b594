"""Segmentation metrics: pure functions, each of one kind of evidence.

``counts`` scores pixels from confusion counts, ``probability`` the ranking of pixels by probability,
``calibration`` whether it means what it says, ``boundary`` outlines, ``objects`` label images; ``epoch``
holds the Keras metric of a training epoch. All but the last are numpy alone, so that outside predictions
are scored without a framework.

One convention holds for what is empty: where neither the truth nor the prediction has anything, nothing
is wrong, and a score is 1, a distance 0; where only one of them is empty, a score is 0 and a distance
the image's diagonal. Both-empty images are counted like any other.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

from microseg.metrics.boundary import boundary_f1, hausdorff95
from microseg.metrics.calibration import Calibration
from microseg.metrics.counts import (
    METRICS,
    Counts,
    accuracy,
    classify,
    confusion,
    dice,
    evaluate,
    iou,
    mcc,
    per_class,
    pooled,
    precision,
    recall,
    specificity,
)
from microseg.metrics.objects import average_precision, panoptic_quality
from microseg.metrics.probability import roc_auc

# Of all names that are reported, with or without a prefix such as "val/", those that improve downwards.
LOWER_IS_BETTER = frozenset({"loss", "hausdorff95", "hausdorff95_um", "inference_seconds"})

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "Calibration",
    "Counts",
    "PooledConfusion",
    "accuracy",
    "average_precision",
    "better",
    "boundary_f1",
    "classify",
    "confusion",
    "dice",
    "evaluate",
    "hausdorff95",
    "iou",
    "mcc",
    "panoptic_quality",
    "per_class",
    "pooled",
    "precision",
    "recall",
    "roc_auc",
    "specificity",
]


def better(metric: str) -> Literal["max", "min"]:
    """Return the better direction of a validation metric such as ``val/dice``."""
    return "min" if metric.removeprefix("val/") in LOWER_IS_BETTER else "max"


def __getattr__(name: str) -> Any:
    """Load the one metric that needs Keras when it is asked for: all others do without its seconds."""
    if name == "PooledConfusion":
        return importlib.import_module("microseg.metrics.epoch").PooledConfusion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
