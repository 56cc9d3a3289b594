"""Is a challenger better than the champion on images that no search has seen? By groups, not by images.

Images of one group (specimen, session, slide) resemble each other, so that the groups are what was sampled:
tests that count images, and percentile bootstraps of few groups, call 13 to 24 % of equal models better.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from microseg.errors import MicrosegError

ALPHA = 0.05  # chance, over all uses of a hold-out together, of promoting what is not better
FEWEST_GROUPS = 6  # with fewer, a standard deviation of group means is hardly known
LEAST = 0.005  # a smaller gain in Dice is not worth a change of model


class Gate(NamedTuple):
    """What a hold-out says of a challenger.

    ``estimate`` is the mean over groups of a group's mean paired difference, challenger less champion;
    ``low`` the lower bound of its one-sided interval at ``level``; ``resolvable`` the smallest estimate that
    would have passed with this spread. ``passed`` is None, and the bounds are, where too few groups leave
    nothing to decide.
    """

    estimate: float
    groups: int
    images: int
    level: float
    low: float | None
    resolvable: float | None
    passed: bool | None


def level(use: int) -> float:
    """Return the one-sided level at which the use number ``use`` (from 1) of a hold-out is tested.

    ``0.05 / (k (k + 1))``: over any number of uses these levels add up to 0.05 at most.

    Raises
    ------
    MicrosegError
        For a use before the first.
    """
    if use < 1:
        raise MicrosegError(f"the uses of a hold-out count from 1; got {use}")
    return ALPHA / (use * (use + 1))


def group_means(differences: ArrayLike, groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """Return the mean difference of each group, in order of first appearance.

    Parameters
    ----------
    differences : array_like, shape (images,)
        Score of one model less that of the other, image by image.
    groups : sequence, length images
        Which group each image belongs to.

    Raises
    ------
    MicrosegError
        If the lengths differ, there is no image, or a difference is no finite number.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(groups) != values.size or not values.size or not np.isfinite(values).all():
        raise MicrosegError(
            f"a hold-out needs one finite difference and one group per image; got shape {values.shape}, "
            f"{int(np.isfinite(values).sum())} finite values and {len(groups)} groups"
        )
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    index = [places[group] for group in groups]
    means: NDArray[np.float64] = np.bincount(index, weights=values) / np.bincount(index)
    return means


def half_width(means: NDArray[np.float64], tail: float) -> float:
    """Return how far the bound of a t interval of the mean of group means lies from it.

    Parameters
    ----------
    means : ndarray of float, shape (groups,)
        Two groups at least; groups - 1 are the degrees of freedom.
    tail : float
        The chance beyond the bound.
    """
    return float(stdtrit(len(means) - 1, 1 - tail)) * float(means.std(ddof=1)) / math.sqrt(len(means))


def gate(differences: ArrayLike, groups: Sequence[Hashable], use: int, least: float = LEAST) -> Gate:
    """Decide whether a challenger is better than the champion.

    It passes when the lower bound of a t interval on the group means, with groups - 1 degrees of freedom, is
    above 0, and the estimate is at least ``least``.

    Parameters
    ----------
    differences, groups
        As for `group_means`; positive differences favour the challenger.
    use : int
        Which use of this hold-out it is, from 1; see `level`.
    least : float
        The smallest gain that is worth a change, in units of the score.

    Returns
    -------
    Gate
        With fewer than 6 groups no test is made.

    Raises
    ------
    MicrosegError
        As `group_means` and `level` do.
    """
    means, chance = group_means(differences, groups), level(use)
    estimate, count, images = float(means.mean()), len(means), len(groups)
    if count < FEWEST_GROUPS:
        return Gate(estimate, count, images, chance, None, None, None)
    reach = half_width(means, chance)
    low = estimate - reach
    return Gate(estimate, count, images, chance, low, max(reach, least), low > 0 and estimate >= least)
