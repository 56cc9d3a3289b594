"""What repeats and folds can tell apart: the spread of seeds, and the smallest difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from microseg.errors import MicrosegError
from microseg.statistics.comparison import check_ratio
from microseg.statistics.racing import Row, pair_spreads


class SeedSpread(NamedTuple):
    """Standard deviations of one configuration's scores, None where there is nothing to compare.

    ``seeds`` is between seeds, of the mean over folds; ``seeds_per_fold`` between seeds within a fold,
    pooled over folds; ``folds`` between folds, of the mean over seeds.
    """

    seeds: float | None
    seeds_per_fold: float | None
    folds: float | None


def smallest_difference(table: Sequence[Row], test_to_train: float) -> float | None:
    """Return the smallest difference of two means over folds that these folds can tell from chance at 0.05.

    It is ``t(0.975, J - 1) * sqrt((1 / J + test_to_train) * v)`` with J folds and v the median, over pairs of
    configurations, of the sample variance of their paired fold differences: the critical value of the
    corrected resampled t-test for a typical pair. The second term stands for training sets that overlap, and
    no number of repeats takes it away.

    Parameters
    ----------
    table : sequence of rows
        As for `noise`.
    test_to_train : float
        Size of a fold's validation part over that of its training part: ``1 / (J - 1)`` for J equal folds.

    Returns
    -------
    float or None
        In units of the score; None with one fold, or fewer than 2 complete rows.

    Raises
    ------
    MicrosegError
        If ``test_to_train`` is no finite number above 0.

    Notes
    -----
    Limits: a true difference just so large is found only half of the time; the best of many differs from the
    rest by more than a typical pair does, and no correction for many comparisons is made here; the scores
    are selection scores, and a hold-out is the proof.

    References
    ----------
    Nadeau and Bengio 2003, DOI 10.1023/A:1024068626366.
    """
    check_ratio(test_to_train)
    spreads, folds = pair_spreads(table)
    if not spreads.size:
        return None
    variance = float(np.median(spreads**2))
    return float(stdtrit(folds - 1, 0.975)) * math.sqrt((1 / folds + test_to_train) * variance)


class Interval(NamedTuple):
    """The two ends of an interval."""

    low: float
    high: float


def next_score(scores: ArrayLike, fold: int) -> Interval | None:
    """Return where the score of a fold trained with yet another seed lies, in 95 % of cases.

    It is the prediction interval of a further observation, ``mean +- t(0.975, df) * s * sqrt(1 + 1 / R)``:
    the mean is over the R replicates of this fold, s is ``seeds_per_fold`` of `seed_spread`, pooled over J
    folds, with ``J * (R - 1)`` degrees of freedom.

    Parameters
    ----------
    scores : array_like, shape (replicates, folds)
        As for `seed_spread`.
    fold : int
        The column.

    Returns
    -------
    Interval or None
        In units of the score; None with one replicate.

    Raises
    ------
    MicrosegError
        As `seed_spread`.

    References
    ----------
    Meeker, Hahn and Escobar 2017, Statistical Intervals, chapter 4, DOI 10.1002/9781118594841.
    """
    spread = seed_spread(scores).seeds_per_fold
    if spread is None:
        return None
    table = np.asarray(scores, dtype=np.float64)
    replicates, folds = table.shape
    mean = float(table[:, fold].mean())
    half = float(stdtrit(folds * (replicates - 1), 0.975)) * spread * math.sqrt(1 + 1 / replicates)
    return Interval(mean - half, mean + half)


def seed_spread(scores: ArrayLike) -> SeedSpread:
    """Return how much the scores of one configuration vary between seeds, beside how much between folds.

    Parameters
    ----------
    scores : array_like, shape (replicates, folds)
        Finite scores; each replicate has another seed and the same folds.

    Returns
    -------
    SeedSpread
        Sample standard deviations; those between seeds are None with one replicate, that between folds is
        None with one fold. ``folds`` holds what the seeds leave after averaging, ``seeds_per_fold**2 /
        replicates`` of its square.

    Raises
    ------
    MicrosegError
        If the scores are no finite table of at least one replicate and one fold.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise MicrosegError(
            "scores of repeats must be a table (replicates, folds) of finite numbers; "
            f"got shape {table.shape}: leave out replicates that lack a fold"
        )
    replicates, folds = table.shape
    return SeedSpread(
        seeds=float(table.mean(axis=1).std(ddof=1)) if replicates > 1 else None,
        seeds_per_fold=math.sqrt(table.var(axis=0, ddof=1).mean()) if replicates > 1 else None,
        folds=float(table.mean(axis=0).std(ddof=1)) if folds > 1 else None,
    )
