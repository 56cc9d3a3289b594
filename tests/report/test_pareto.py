"""The Pareto front: no member is dominated, and all others are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.report import front

# Few different values, so that ties and equal points come often.
POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_no_member_is_dominated_and_a_member_dominates_each_other_point(points):
    chosen = front([score for score, _ in points], [cost for _, cost in points])
    members = [point for point, member in zip(points, chosen, strict=True) if member]
    for point, member in zip(points, chosen, strict=True):
        assert member == (not any(dominates(other, point) for other in points))
        assert member or any(dominates(other, point) for other in members)


@settings(max_examples=30, deadline=None)
@given(POINTS, st.randoms())
def test_the_order_and_the_units_do_not_matter(points, random):
    order = random.sample(range(len(points)), len(points))
    scores, costs = np.array(points, dtype=float).reshape(-1, 2).T
    chosen = front(list(scores), list(costs))
    again = front([10 * scores[place] - 3 for place in order], [0.1 * costs[place] for place in order])
    assert list(again) == [chosen[place] for place in order]


@pytest.mark.parametrize(
    ("scores", "costs", "members"),
    [
        ([], [], []),
        ([0.5], [7], [True]),
        ([0.5, 0.5], [7, 7], [True, True]),  # equal points: neither is worse
        ([0.5, 0.5], [7, 8], [True, False]),
        ([0.9, 0.8, 0.7], [30, 10, 20], [True, True, False]),
        ([math.nan, 0.5, 0.9], [1, 2, math.nan], [False, True, False]),  # what was not measured beats nobody
    ],
)
def test_known_fronts(scores, costs, members):
    assert list(front(scores, costs)) == members
