"""What repeats and folds can tell apart."""

import math

import numpy as np
import pytest
from scipy import stats

from microseg.errors import MicrosegError
from microseg.statistics import next_score, seed_spread, smallest_difference


def test_known_smallest_difference():
    # The differences -1 and -3 have variance 2; with equal halves the factor is 1/2 + 1.
    assert smallest_difference([[0.0, 0.0], [1.0, 3.0]], 1.0) == pytest.approx(12.7062047 * math.sqrt(3.0))


@pytest.mark.parametrize("table", [[], [[0.5, 0.6]], [[0.5], [0.6], [0.7]], [[0.5, 0.6], [0.7, math.nan]]])
def test_nothing_can_be_resolved_with_one_fold_or_one_configuration(table):
    assert smallest_difference(table, 0.25) is None


@pytest.mark.parametrize("ratio", [0.0, -0.25, math.inf, math.nan])
def test_a_ratio_that_is_none_is_refused(ratio):
    with pytest.raises(MicrosegError, match=r"^test_to_train must be a finite number above 0, .*; got "):
        smallest_difference([[0.5, 0.6], [0.6, 0.6]], ratio)


@pytest.mark.parametrize("folds", [3, 5, 10])
def test_equal_networks_differ_by_more_in_one_of_twenty_studies(folds):
    """Training sets that overlap correlate the differences by test / (train + test), here 1 / folds."""
    rng = np.random.default_rng(folds)
    studies, rho = 3_000, 1 / folds
    common = rng.normal(0.0, math.sqrt(rho), (studies, 1))
    differences = common + rng.normal(0.0, math.sqrt(1 - rho), (studies, folds))
    ratio = 1 / (folds - 1)
    found = [abs(row.mean()) > smallest_difference([row, np.zeros(folds)], ratio) for row in differences]
    assert np.mean(found) == pytest.approx(0.05, abs=0.015)
    plain = stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05
    assert np.mean(plain) > 0.1  # what the correction is for


def test_known_spreads_of_seeds_and_folds():
    # Means over folds 2 and 4; within folds variances 2 and 2; means over seeds 2 and 4.
    assert seed_spread([[1.0, 3.0], [3.0, 5.0]]) == pytest.approx((math.sqrt(2), math.sqrt(2), math.sqrt(2)))
    # Seeds that exchange the folds' scores leave both means as they are.
    assert seed_spread([[1.0, 3.0], [3.0, 1.0]]) == pytest.approx((0.0, math.sqrt(2), 0.0))


def test_spreads_that_were_put_in_are_found():
    rng = np.random.default_rng(0)
    scores = 0.8 + rng.normal(0.0, 0.03, 400) + rng.normal(0.0, 0.01, (500, 400))
    assert seed_spread(scores) == pytest.approx((0.01 / math.sqrt(400), 0.01, 0.03), rel=0.1)


@pytest.mark.parametrize(
    ("scores", "none"), [([[0.5]], (1, 1, 1)), ([[0.5, 0.6]], (1, 1, 0)), ([[0.5], [0.6]], (0, 0, 1))]
)
def test_where_nothing_can_be_compared_there_is_no_spread(scores, none):
    assert [spread is None for spread in seed_spread(scores)] == list(map(bool, none))


@pytest.mark.parametrize("scores", [[0.5, 0.6], [[]], [[0.5, math.nan]], [[[0.5]]]])
def test_a_table_of_repeats_that_is_none_is_refused(scores):
    with pytest.raises(
        MicrosegError, match=r"^scores of repeats must be a table .*; got shape \(.*\): leave out"
    ):
        seed_spread(scores)


def test_known_interval_of_the_next_score():
    # Within folds the variance is 2 with 2 degrees of freedom, t(0.975, 2) is 4.3027, the first mean is 2.
    low, high = next_score([[1.0, 3.0], [3.0, 5.0]], 0)
    assert (low + high) / 2 == pytest.approx(2.0)
    assert high - low == pytest.approx(2 * 4.30265273 * math.sqrt(2 * 1.5))
    assert next_score([[1.0, 3.0]], 0) is None


@pytest.mark.parametrize(("replicates", "folds"), [(2, 2), (3, 5)])
def test_the_next_score_lies_in_its_interval_in_95_of_100_cases(replicates, folds):
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(4_000):
        scores = rng.normal(rng.normal(0.0, 5.0, folds), 1.0, (replicates + 1, folds))
        low, high = next_score(scores[1:] + 0.7, 1)
        inside.append(low <= scores[0, 1] + 0.7 <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
