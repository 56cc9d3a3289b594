"""Paired comparisons over folds, and their correction for their number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from microseg.errors import MicrosegError
from microseg.statistics import against, corrected_t, holm, pairs, smallest_difference

FOLDS = [f"fold{k}" for k in range(1, 6)]


@pytest.fixture(scope="module")
def height(results):
    """The 11 published configurations on height images."""
    return results[results["input"] == "height"].reset_index(drop=True)


def place(table, **wanted):
    """The row that a few columns name."""
    (found,) = table.index[np.logical_and.reduce([table[name] == value for name, value in wanted.items()])]
    return found


def test_published_networks_cannot_be_told_apart_from_the_best(height):
    scores = height[FOLDS].to_numpy()
    best = int(scores.mean(axis=1).argmax())
    assert (len(height), height["architecture"][best]) == (11, "VGG19")
    rivals = height.drop(index=best).reset_index(drop=True)
    found = against(scores, best, 0.25)
    expected = {
        "VGG16": (place(rivals, architecture="VGG16"), 0.69),
        "Xception": (place(rivals, architecture="Xception"), 0.16),
        "log-cosh": (place(rivals, loss="log cosh dice"), 0.18),
        "dice 5L": (place(rivals, architecture="U-net", loss="dice_loss", depth=5), 0.041),
        "dice 2L": (place(rivals, architecture="U-net", loss="dice_loss", depth=2), 0.014),
    }
    for row, p in expected.values():
        assert found[row].p == pytest.approx(p, abs=0.005 if p > 0.1 else 0.0005)
    assert all(one.difference > 0 for one in found)
    assert min(holm([one.p for one in found])) > 0.05


def test_a_pair_of_a_table_is_the_comparison_of_its_rows(height):
    scores = height[FOLDS].to_numpy()
    found, single = pairs(scores, 0.25), corrected_t(scores[3] - scores[7], 0.25)
    assert found.difference[3, 7] == pytest.approx(single.difference)
    assert found.p[3, 7] == pytest.approx(single.p)
    assert np.array_equal(found.p, found.p.T) and np.array_equal(found.corrected, found.corrected.T)
    assert np.array_equal(found.difference, -found.difference.T)
    upper = np.triu_indices(11, 1)
    assert found.corrected[upper] == pytest.approx(holm(found.p[upper]))
    assert (np.diag(found.p) == 1).all() and (np.diag(found.corrected) == 1).all()


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_without_overlap_it_is_the_paired_t_test(folds):
    """The smallest ratio leaves the variance of independent samples."""
    values = np.random.default_rng(folds).normal(0.3, 1.0, folds)
    found, plain = corrected_t(values, 1e-15), stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(plain.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval(0.95)))


def test_known_comparison():
    # Mean 2, variance 2, error sqrt((1/2 + 1/2) * 2); with one degree of freedom t is the tangent.
    found = corrected_t([1.0, 3.0], 0.5)
    reach = math.sqrt(2) * math.tan(math.pi * 0.475)
    assert found[:3] == pytest.approx((2.0, 2.0 - reach, 2.0 + reach))
    assert found.p == pytest.approx(1 - 2 * math.atan(math.sqrt(2)) / math.pi)


def test_differences_without_spread():
    assert corrected_t([0.0, 0.0], 0.25) == (0.0, 0.0, 0.0, 1.0)
    assert corrected_t([0.5, 0.5], 0.25) == (0.5, 0.5, 0.5, 0.0)


scores = st.lists(st.integers(-512, 512).map(lambda n: n / 1024), min_size=2, max_size=8)


@given(scores, st.sampled_from([0.1, 0.25, 1.0]), st.sampled_from([0.5, 0.9, 0.95]))
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_nothing_where_p_is_small(values, ratio, confidence):
    found = corrected_t(values, ratio, confidence)
    mirrored = corrected_t([-value for value in values], ratio, confidence)
    assert (found.low <= 0 <= found.high) == (found.p >= 1 - confidence)
    assert (mirrored.difference, mirrored.low, mirrored.high) == (-found.difference, -found.high, -found.low)
    assert mirrored.p == found.p


def test_the_smallest_difference_is_where_p_is_5_per_cent():
    table = [[0.8, 0.7, 0.75], [0.72, 0.68, 0.7]]
    values = np.subtract(*table)
    spread = values - values.mean()
    assert corrected_t(spread + smallest_difference(table, 0.5), 0.5).p == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.9, 0.7], [1.0, 1.0, 1.0]),
    ],
)
def test_known_corrections(p, expected):
    assert holm(p) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_correction_keeps_order_and_lowers_nothing(p, rng):
    corrected = holm(p)
    assert all(p <= c <= 1 for p, c in zip(p, corrected, strict=True))
    assert sorted(corrected) == [c for _, c in sorted(zip(p, corrected, strict=True))]
    order = rng.sample(range(len(p)), len(p))
    assert holm([p[i] for i in order]) == pytest.approx([corrected[i] for i in order])


def test_equal_networks_are_told_apart_in_one_of_twenty_studies():
    """Of ten comparisons with one reference, corrected for their number."""
    rng = np.random.default_rng(0)
    folds, studies = 5, 1_000
    shared = rng.normal(0, math.sqrt(1 / folds), (studies, 11, 1))
    tables = shared + rng.normal(0, math.sqrt(1 - 1 / folds), (studies, 11, folds))
    found = [min(holm([one.p for one in against(table, 0, 1 / (folds - 1))])) < 0.05 for table in tables]
    assert np.mean(found) < 0.07


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan], [[0.5, 0.6]]])
def test_what_cannot_be_compared_is_refused(values):
    with pytest.raises(MicrosegError, match=r"^a comparison needs the scores of at least two folds.*got \["):
        corrected_t(values, 0.25)


def test_a_ratio_that_is_none_is_refused():
    with pytest.raises(MicrosegError, match=r"^test_to_train must be a finite number above 0, .*; got 0"):
        corrected_t([0.1, 0.2], 0.0)
