"""The gate on the hold-out: how often it lets through what is not better, and what it finds."""

import math

import numpy as np
import pytest
from scipy import stats

from microseg.errors import MicrosegError
from microseg.statistics import gate, group_means, level

SPREAD = 0.05  # standard deviation of a paired difference, image by image
LAYOUTS = {
    "6 groups": [5] * 6,
    "12 groups": [5] * 12,
    "unequal groups": [1, 2, 3, 5, 9, 20],
    "unequal, many": [1] * 6 + [20] * 6,
}


def promoted(sizes, effect, correlation, runs, seed):
    """How many of so many challengers pass whose true gain is ``effect``, at the first use."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    found = 0
    for _ in range(runs):
        shared = rng.normal(0.0, SPREAD * math.sqrt(correlation), len(sizes))[groups]
        own = rng.normal(0.0, SPREAD * math.sqrt(1 - correlation), groups.size)
        found += bool(gate(effect + shared + own, groups.tolist(), use=1).passed)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5])
def test_equals_are_hardly_ever_promoted(layout, correlation, say):
    found = promoted(LAYOUTS[layout], 0.0, correlation, 1_000, seed=0)
    say(f"{layout}, correlation {correlation}: {found} of 1,000 equals promoted")
    assert found <= 40


@pytest.mark.parametrize(("groups", "effect"), [(12, 0.03), (24, 0.02)])
def test_what_is_better_is_found(groups, effect, say):
    found = promoted([5] * groups, effect, 0.3, 1_000, seed=1) / 1_000
    say(f"{groups} groups of 5, true gain {effect}: promoted in {found:.1%}")
    assert found >= 0.75


def test_images_that_count_as_independent_would_promote_equals():
    """What the groups are for: the same images, taken one by one."""
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(6), 20)
    differences = rng.normal(0, SPREAD, (1_000, 6))[:, groups] + rng.normal(0, SPREAD, (1_000, groups.size))
    one_by_one = stats.ttest_1samp(differences, 0.0, axis=1, alternative="greater").pvalue < level(1)
    by_group = [bool(gate(row, groups.tolist(), use=1).passed) for row in differences]
    assert np.mean(one_by_one) > 0.2 > 0.04 >= np.mean(by_group)


def test_known_decision():
    means = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    low = stats.ttest_1samp(means, 0.0, alternative="greater").confidence_interval(0.975).low
    found = gate(
        [mean for mean in means for _ in range(3)], [group for group in "abcdef" for _ in range(3)], 1
    )
    assert (found.groups, found.images, found.level, found.passed) == (6, 18, 0.025, True)
    assert (found.estimate, found.low) == pytest.approx((0.035, low))
    assert found.resolvable == pytest.approx(found.estimate - found.low)


def test_groups_count_alike_whatever_their_size():
    assert group_means([1.0, 0.0, 0.5, 1.0], ["b", "a", "b", "b"]).tolist() == [2.5 / 3, 0.0]


def test_a_gain_too_small_to_matter_does_not_pass():
    tiny = [0.004, 0.0041, 0.0039, 0.004, 0.0042, 0.0038]
    found = gate(tiny, list(range(6)), use=1)
    assert (found.passed, found.resolvable) == (False, 0.005) and found.low > 0
    assert gate(tiny, list(range(6)), use=1, least=0.003).passed


@pytest.mark.parametrize("groups", [1, 5])
def test_few_groups_decide_nothing(groups):
    found = gate([0.5] * groups, list(range(groups)), use=1)
    assert (found.estimate, found.groups) == (0.5, groups)
    assert found.passed is found.low is found.resolvable is None


def test_the_levels_of_all_uses_add_up_to_5_per_cent():
    assert (level(1), level(2)) == (0.025, pytest.approx(0.05 / 6))
    assert sum(level(use) for use in range(1, 100_001)) == pytest.approx(0.05, abs=1e-6)


def test_each_further_use_asks_for_more():
    means = np.random.default_rng(3).normal(0.02, 0.02, 12)
    lows = [gate(means, list(range(12)), use).low for use in (1, 2, 10)]
    assert lows == sorted(lows, reverse=True)


@pytest.mark.parametrize(
    ("differences", "groups"), [([], []), ([0.1], ["a", "b"]), ([math.nan], ["a"]), ([[0.1]], ["a"])]
)
def test_a_hold_out_that_is_none_is_refused(differences, groups):
    with pytest.raises(
        MicrosegError, match=r"^a hold-out needs one finite difference and one group per image"
    ):
        gate(differences, groups, 1)


def test_uses_count_from_1():
    with pytest.raises(MicrosegError, match="count from 1; got 0"):
        gate([0.1] * 6, list("abcdef"), 0)
