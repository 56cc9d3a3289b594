"""Which configurations differ: a t-test for scores of overlapping training sets, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from microseg.errors import MicrosegError


class Comparison(NamedTuple):
    """A mean difference over folds with its confidence interval, and the two-sided p of no difference."""

    difference: float
    low: float
    high: float
    p: float


class Pairs(NamedTuple):
    """All pairs of a table's rows; members have shape (rows, rows).

    ``difference`` is the mean of row i less that of row j, ``p`` the test's own, ``corrected`` after Holm
    over all pairs. On the diagonal the difference is 0 and both p are 1.
    """

    difference: NDArray[np.float64]
    p: NDArray[np.float64]
    corrected: NDArray[np.float64]


def corrected_t(differences: ArrayLike, test_to_train: float, confidence: float = 0.95) -> Comparison:
    """Test the mean of paired differences over folds with the corrected resampled t-test.

    Scores of different folds are not independent, because their training sets overlap; the plain paired
    t-test promotes noise. Here the variance of the mean is ``(1 / J + test_to_train) * v`` with J folds and v
    the sample variance, and t has J - 1 degrees of freedom.

    Parameters
    ----------
    differences : array_like, shape (folds,)
        Score of one configuration less that of the other, fold by fold; two folds at least. The scores of a
        single configuration give the interval of its mean.
    test_to_train : float
        Size of a fold's validation part over that of its training part.
    confidence : float
        Of the interval.

    Returns
    -------
    Comparison
        The interval holds 0 exactly where p is above ``1 - confidence``.

    Raises
    ------
    MicrosegError
        For fewer than two folds, a score that is no number, or a ratio that is no finite number above 0.

    References
    ----------
    Nadeau and Bengio 2003, Inference for the generalization error, DOI 10.1023/A:1024068626366.
    """
    values = _finite(differences)
    check_ratio(test_to_train)
    folds, mean = values.size, float(values.mean())
    error = math.sqrt((1 / folds + test_to_train) * float(values.var(ddof=1)))
    reach = float(stdtrit(folds - 1, 0.5 + confidence / 2)) * error
    if error == 0:
        return Comparison(mean, mean, mean, 0.0 if mean else 1.0)
    return Comparison(mean, mean - reach, mean + reach, 2 * float(stdtr(folds - 1, -abs(mean) / error)))


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Return p-values corrected for their number by Holm's method, in the order given.

    The chance that any true null hypothesis among them falls below a level is at most that level, however
    they depend on each other.

    Parameters
    ----------
    p : array_like, shape (tests,)
        In [0, 1]; may be empty.

    References
    ----------
    Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(values.size, 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected


def against(table: Sequence[Sequence[float]], reference: int, test_to_train: float) -> list[Comparison]:
    """Compare every row with one of them, itself left out; a positive difference favours the reference.

    Parameters
    ----------
    table : sequence of rows
        Fold scores by configuration, all of the same length.
    reference : int
        Position of the row that the others are compared with.
    test_to_train : float
        See `corrected_t`.
    """
    rows = np.asarray(table, dtype=np.float64)
    rest = np.delete(rows, reference, axis=0)
    return [corrected_t(rows[reference] - row, test_to_train) for row in rest]


def pairs(table: Sequence[Sequence[float]], test_to_train: float) -> Pairs:
    """Compare every row with every other one; see `corrected_t`, and `holm` over all pairs.

    Parameters
    ----------
    table : sequence of rows
        Fold scores by configuration, all of the same length.
    test_to_train : float
        See `corrected_t`.
    """
    rows = np.asarray(table, dtype=np.float64)
    count = len(rows)
    difference, p, corrected = np.zeros((count, count)), np.ones((count, count)), np.ones((count, count))
    upper = np.triu_indices(count, 1)
    found = [corrected_t(rows[i] - rows[j], test_to_train) for i, j in zip(*upper, strict=True)]
    for target, values in (
        (difference, [one.difference for one in found]),
        (p, [one.p for one in found]),
        (corrected, holm([one.p for one in found])),
    ):
        target[upper] = values
    lower = upper[::-1]
    difference[lower], p[lower], corrected[lower] = -difference[upper], p[upper], corrected[upper]
    return Pairs(difference, p, corrected)


def check_ratio(test_to_train: float) -> None:
    """Refuse a ratio of validation to training items that is none.

    Raises
    ------
    MicrosegError
        If it is no finite number above 0.
    """
    if not (math.isfinite(test_to_train) and test_to_train > 0):
        raise MicrosegError(
            f"test_to_train must be a finite number above 0, validation items over training items; "
            f"got {test_to_train}"
        )


def _finite(differences: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise MicrosegError(
            f"a comparison needs the scores of at least two folds, all of them numbers; got {values.tolist()}"
        )
    return values
