"""Whether a foreground probability means what it says, and what another threshold would give.

A histogram of probability against truth answers both, for any number of images, without their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from microseg.config import Strict
from microseg.data.masks import IGNORE
from microseg.metrics.counts import Counts, dice

BINS = 100
Histogram = NDArray[np.int64]


class Calibration(Strict):
    """Pixels by foreground probability, in `BINS` bins of equal width from 0 to 1.

    ``pixels`` counts all labelled pixels of a bin, ``foreground`` those among them that are foreground in
    truth. ``threshold`` is the cut that the network is used with, None where the likeliest of several
    classes is taken.
    """

    pixels: tuple[NonNegativeInt, ...]
    foreground: tuple[NonNegativeInt, ...]
    threshold: float | None


class Reliability(NamedTuple):
    """Groups of pixels with like probabilities: the mean of these, how often they are right, their share."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    share: NDArray[np.float64]


def probability_histogram(truth: NDArray[np.uint8], probability: NDArray[np.floating]) -> Histogram:
    """Count the pixels of one image by probability of any foreground.

    Parameters
    ----------
    truth : ndarray of uint8, shape (height, width)
        Class index per pixel; 255 is ignored.
    probability : ndarray, shape (height, width, maps)
        In [0, 1]: of the foreground for one map, of every class for several, background first.

    Returns
    -------
    ndarray of int64, shape (2, BINS)
        All labelled pixels, and those of them that are foreground in truth.
    """
    chance = probability[..., 0] if probability.shape[-1] == 1 else 1.0 - probability[..., 0]
    labelled = truth != IGNORE
    # What is no number is not at or above any threshold.
    places = np.clip(np.nan_to_num(chance[labelled]) * BINS, 0, BINS - 1).astype(np.intp)
    true = places[truth[labelled] > 0]
    return np.stack([np.bincount(places, minlength=BINS), np.bincount(true, minlength=BINS)])


def calibration(histograms: Sequence[Histogram], threshold: float | None) -> Calibration:
    """Add up the histograms of images."""
    pixels, foreground = np.sum(histograms, axis=0)
    return Calibration(pixels=pixels.tolist(), foreground=foreground.tolist(), threshold=threshold)


def reliability(histogram: Histogram, groups: int = 10) -> Reliability:
    """Compare probabilities with frequencies, in groups of equal width; a group without pixels is left out.

    Parameters
    ----------
    histogram : ndarray of int64, shape (2, BINS)
        As `probability_histogram` counts.
    groups : int
        A divisor of `BINS`.
    """
    centres = (np.arange(BINS) + 0.5) / BINS
    parts = np.stack([*histogram, histogram[0] * centres]).reshape(3, groups, -1).sum(axis=2)
    pixels, foreground, chance = parts[:, parts[0] > 0]
    return Reliability(chance / pixels, foreground / pixels, pixels / pixels.sum())


def expected_calibration_error(histogram: Histogram, groups: int = 10) -> float:
    """Return the mean distance of probability and frequency, each group of `reliability` by its share.

    References
    ----------
    Naeini, Cooper and Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian binning, AAAI
    29; Guo et al. 2017, arXiv:1706.04599.
    """
    predicted, observed, share = reliability(histogram, groups)
    return float(np.sum(share * np.abs(predicted - observed)))


def dice_by_threshold(histogram: Histogram) -> NDArray[np.float64]:
    """Return the Dice of all pixels together when foreground is what has at least the probability i / BINS.

    Returns
    -------
    ndarray, shape (BINS,)
        At the thresholds 0, 1 / BINS, ... 1 - 1 / BINS.
    """
    found, true = (np.cumsum(row[::-1])[::-1].astype(np.float64) for row in histogram)
    missed, outside = true[0] - true, found[0] - true[0]
    scores: NDArray[np.float64] = dice(Counts(true, found - true, missed, outside - (found - true)))
    return scores


def thresholds_of_others(histograms: Sequence[Histogram]) -> NDArray[np.intp]:
    """Return, for each histogram, the place of the threshold with the best Dice in all others together."""
    total = np.sum(histograms, axis=0)
    return np.array([np.argmax(dice_by_threshold(total - one)) for one in histograms])
