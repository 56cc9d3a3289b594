"""The trials that no other trial beats in both score and cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def front(scores: Sequence[float], costs: Sequence[float]) -> NDArray[np.bool_]:
    """Say which points no other point dominates.

    A point dominates another when it is at least as good in both and better in one. Equal points do not
    dominate each other, so both may be on the front.

    Parameters
    ----------
    scores : sequence of float, length n
        Larger is better; whoever minimises negates.
    costs : sequence of float, length n
        Smaller is better.

    Returns
    -------
    ndarray (n,) of bool
        A point with a NaN is never on the front, and dominates none.
    """
    score, cost = np.asarray(scores, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    as_good = (score[:, None] >= score) & (cost[:, None] <= cost)
    better = (score[:, None] > score) | (cost[:, None] < cost)
    dominated = np.asarray((as_good & better).any(axis=0), dtype=np.bool_)
    return ~dominated & np.isfinite(score) & np.isfinite(cost)
