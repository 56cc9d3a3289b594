"""Of the best trial's networks out of fold: what their probabilities mean, and which threshold suits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from mlflow import MlflowClient
from numpy.typing import NDArray

from microseg.metrics.calibration import (
    BINS,
    Calibration,
    Reliability,
    dice_by_threshold,
    expected_calibration_error,
    reliability,
    thresholds_of_others,
)
from microseg.pages import BLUE, GREY, ORANGE, svg
from microseg.report.leaderboard import StudyView
from microseg.tracking.artifacts import find_json


@dataclass(frozen=True)
class Cut:
    """Thresholds of a network's only map, and the Dice of all pixels of all folds' validation images.

    ``used`` is the network's own, ``best`` the one with the highest Dice here; ``others`` is the Dice when
    each fold takes the threshold that all other folds prefer, None with one fold.
    """

    used: float
    used_dice: float
    best: float
    best_dice: float
    others: float | None


@dataclass(frozen=True)
class Probabilities:
    """The calibration of a trial, its error, and its thresholds where it has one."""

    trial: str
    error: float
    reliability: Reliability
    curve: NDArray[np.float64]
    cut: Cut | None


def probabilities(client: MlflowClient, study: StudyView) -> Probabilities | None:
    """Read what the folds of the best trial counted; None where nothing was."""
    if not study.ranked:
        return None
    best = study.ranked[0]
    results = [find_json(client, run_id, "result.json") or {} for run_id in best.fold_runs]
    kept = [
        Calibration.model_validate(found) for found in (each.get("calibration") for each in results) if found
    ]
    if not kept:
        return None
    histograms = [np.array([one.pixels, one.foreground]) for one in kept]
    total, used = np.sum(histograms, axis=0), kept[0].threshold
    return Probabilities(
        trial=best.name,
        error=expected_calibration_error(total),
        reliability=reliability(total),
        curve=dice_by_threshold(total),
        cut=None if used is None else _cut(histograms, used),
    )


def _cut(histograms: list[NDArray[np.int64]], used: float) -> Cut:
    curve = dice_by_threshold(np.sum(histograms, axis=0))
    best = int(np.argmax(curve))
    return Cut(
        used=used,
        used_dice=float(curve[min(round(used * BINS), BINS - 1)]),
        best=best / BINS,
        best_dice=float(curve[best]),
        others=_with_thresholds_of_others(histograms) if len(histograms) > 1 else None,
    )


def _with_thresholds_of_others(histograms: list[NDArray[np.int64]]) -> float:
    """Return the Dice of all pixels when no fold has a say in its own threshold."""
    cut = np.zeros((2, BINS), np.int64)
    for histogram, place in zip(histograms, thresholds_of_others(histograms), strict=True):
        cut[:, 0] += histogram[:, :place].sum(axis=1)
        cut[:, -1] += histogram[:, place:].sum(axis=1)
    return float(dice_by_threshold(cut)[-1])


def chart(found: Probabilities) -> str:
    """Draw how often a probability is right and, for networks with a threshold, Dice against it."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    predicted, observed, share = found.reliability
    left.plot(predicted, observed, "-", color=BLUE, linewidth=1)
    left.scatter(predicted, observed, s=15 + 120 * share, color=BLUE)
    left.set_xlabel("predicted probability of foreground")
    left.set_ylabel("share that is foreground")
    left.set_aspect("equal")
    right.set_visible(found.cut is not None)
    if found.cut:
        right.plot(np.arange(1, BINS) / BINS, found.curve[1:], color=BLUE)
        right.axvline(found.cut.used, color=GREY, linestyle="--")
        right.plot([found.cut.best], [found.cut.best_dice], "D", color=ORANGE)
        right.set_xlabel("threshold (dashed: the network's own)")
        right.set_ylabel("Dice of all pixels together")
        right.set_ylim(max(0.0, found.cut.best_dice - 0.25), min(1.0, found.cut.best_dice + 0.02))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return svg(figure)
