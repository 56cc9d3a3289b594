import itertools
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from replay import best, replay, shuffled

from microseg.errors import MicrosegError
from microseg.statistics import decide, incumbent, noise, race

ORDERS = 2_000


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_replayed_study_saves_trainings_and_keeps_its_winner(published, concurrency, say):
    trainings = kept = 0
    for seed in range(ORDERS):
        rng = random.Random(seed)
        table = shuffled(published, rng)
        done = replay(table, rng, concurrency=concurrency)
        trainings += done.trainings
        kept += best(table) in done.finished
    saved = 1 - trainings / (ORDERS * sum(map(len, published)))
    say(f"concurrency {concurrency}: {saved:.1%} of trainings saved, winner kept in {kept / ORDERS:.2%}")
    assert saved >= 0.45
    assert kept >= 0.99 * ORDERS


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_decisions_do_not_depend_on_the_unit_of_the_score(published, scale, concurrency):
    for seed in range(100):
        table = shuffled(published, random.Random(seed))
        scaled = [tuple(scale * score for score in row) for row in table]
        plain = replay(table, random.Random(seed), concurrency=concurrency)
        assert any(plain.drops)
        assert replay(scaled, random.Random(seed), concurrency=concurrency) == plain


def test_known_truth_regret_and_saving_against_full_cross_validation(say):
    """Scores are a configuration's effect, a fold's effect and noise; regret is what the choice lacks."""
    studies, shape = 300, (40, 5)
    regret = {"race": 0.0, "all folds": 0.0, "first fold": 0.0}
    trainings = 0
    for seed in range(studies):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0.8, 0.02, shape[0])
        scores = truth[:, None] + rng.normal(0.0, 0.03, shape[1]) + rng.normal(0.0, 0.02, shape)
        done = replay([tuple(row) for row in scores.tolist()], random.Random(seed))
        means = scores.mean(axis=1)
        trainings += done.trainings
        regret["race"] += truth.max() - truth[max(done.finished, key=means.__getitem__)]
        regret["all folds"] += truth.max() - truth[means.argmax()]
        regret["first fold"] += truth.max() - truth[scores[:, 0].argmax()]
    mean = {name: total / studies for name, total in regret.items()}
    saved = 1 - trainings / (studies * math.prod(shape))
    figures = ", ".join(f"{name} {value:.4f}" for name, value in mean.items())
    say(f"known truth: {saved:.1%} of trainings saved; mean regret: {figures}")
    assert saved >= 0.5
    assert mean["race"] - mean["all folds"] <= 0.1 * mean["all folds"]
    assert mean["race"] <= 0.6 * mean["first fold"]


@st.composite
def races(draw):
    """A table of complete rows, a candidate with some of the folds, and a factor; multiples of 1/64 add exactly."""
    score = st.integers(0, 64).map(lambda n: n / 64)
    folds = draw(st.integers(2, 5))
    row = st.lists(score, min_size=folds, max_size=folds)
    table = draw(st.lists(row, min_size=3, max_size=7))
    return draw(row)[: draw(st.integers(1, folds))], table, draw(st.sampled_from([0.5, 1.0, 2.0]))


def clear(verdict):
    """Whether rounding cannot turn the verdict."""
    return abs(verdict.difference + verdict.margin) > 1e-9


@given(races(), st.lists(st.integers(-256, 256), min_size=5, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_harder_fold_changes_no_decision(case, shifts):
    candidate, table, factor = case
    before = decide(candidate, table, factor)
    assume(clear(before))

    def shift(row):
        return [score + by / 64 for score, by in zip(row, shifts, strict=False)]

    after = decide(shift(candidate), [shift(row) for row in table], factor)
    assert after.drop == before.drop
    assert after == pytest.approx(before, abs=1e-9)


@given(races(), st.sampled_from([1e-3, 0.1, 0.5, 3.0, 10.0, 1e4]))
@settings(max_examples=60, deadline=None)
def test_another_unit_changes_no_decision(case, unit):
    candidate, table, factor = case
    before = decide(candidate, table, factor)
    assume(clear(before))
    after = decide([unit * x for x in candidate], [[unit * x for x in row] for row in table], factor)
    assert after.drop == before.drop
    assert after.margin == pytest.approx(unit * before.margin)


@given(races(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_configurations_does_not_matter(case, rng):
    candidate, table, factor = case
    assert decide(candidate, rng.sample(table, len(table)), factor) == decide(candidate, table, factor)


@given(races(), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_who_equals_the_incumbent_is_never_dropped(case, folds):
    _, table, factor = case
    verdict = decide(table[incumbent(table)][:folds], table, factor)
    assert not verdict.drop
    assert verdict.difference == 0.0


@given(races())
@settings(max_examples=60, deadline=None)
def test_a_larger_factor_drops_no_more(case):
    candidate, table, factor = case
    assert decide(candidate, table, factor).drop >= decide(candidate, table, 2 * factor).drop


@given(races())
@settings(max_examples=60, deadline=None)
def test_the_noise_is_the_median_over_pairs_of_the_spread_of_paired_differences(case):
    _, table, _ = case
    pairs = itertools.combinations(table, 2)
    spreads = [statistics.stdev(x - y for x, y in zip(a, b, strict=True)) for a, b in pairs]
    assert noise(table) == pytest.approx(statistics.median(spreads), abs=1e-12)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([], None),
        ([[], []], None),
        ([[0.0, 0.0], [1.0, 3.0]], None),  # one pair
        ([[0.1], [0.2], [0.3]], None),  # one fold
        ([[0.0, 0.0], [1.0, 3.0], [2.0, 2.0]], math.sqrt(2)),  # differences spread by sqrt 2, 0 and sqrt 2
        ([[0.0, 0.0], [1.0, 3.0], [2.0, 2.0], [9.0]], math.sqrt(2)),  # raced out after one fold
        ([[0.0, 0.0], [1.0, 3.0], [2.0, 2.0], [9.0, math.nan]], math.sqrt(2)),  # collapsed in the second
        ([[0.0, 0.0], [1.0, 3.0], [math.inf, 2.0]], None),
    ],
)
def test_known_noise(table, expected):
    assert noise(table) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("candidate", "factor", "drop", "difference", "margin"),
    [
        ([0.5], 1.0, False, -0.5, 0.5),  # on the margin
        ([0.375], 1.0, True, -0.625, 0.5),
        ([0.375], 1.25, False, -0.625, 0.625),
        ([0.5, 0.75, 0.75, 0.875], 1.0, False, -0.03125, 0.25),
        ([0.25, 0.75, 0.5, 0.375], 1.0, True, -0.28125, 0.25),  # four folds: half of the margin
        ([2.0, 2.0], 1.0, False, 1.25, 0.5 / math.sqrt(2)),
    ],
)
def test_known_races(candidate, factor, drop, difference, margin):
    verdict = race(candidate, [1.0, 0.5, 0.75, 0.75], 0.5, factor)
    assert verdict == (drop, pytest.approx(difference), pytest.approx(margin))


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        ([], None),
        ([[math.nan, 0.9]], None),
        ([[0.5, 0.6], [0.7, 0.7], [0.6, 0.6]], 1),
        ([[0.5, 0.6], [0.9]], 0),  # 0.9 lacks a fold
        ([[0.5, 0.6], [0.9, math.nan]], 0),
        ([[0.25, 0.75], [0.75, 0.25]], 1),  # equal means
        ([[0.75, 0.25], [0.25, 0.75]], 0),
        ([[1.0, 2.0, 6.0], [2.0, 6.0, 1.0]], 1),
        ([[0.4, 0.8, 0.9], [0.7, 0.7, 0.7]], 1),  # equal but for rounding
    ],
)
def test_known_incumbents(finished, expected):
    assert incumbent(finished) == expected


def test_no_race_before_three_pairs_and_each_configuration_that_finishes_counts_at_once():
    finished = [[0.5, 0.5], [0.6, 0.7]]
    assert decide([0.0], finished) is None
    finished.append([0.8, math.nan])
    assert decide([0.0], finished) is None
    finished.append([0.7, 0.6])
    assert decide([0.6], finished).difference == pytest.approx(-0.1)
    finished[-1][:] = [0.9, 0.8]
    assert decide([0.6], finished).difference == pytest.approx(-0.3)


def test_only_rivals_end_a_candidate_and_all_that_finished_measure_the_noise():
    finished = [[0.9, 0.9], [0.5, 0.5625], [0.25, 0.5]]
    verdict = decide([0.5], finished, rivals=finished[1:])
    assert verdict == race([0.5], [0.5, 0.5625], noise(finished))
    assert not verdict.drop
    assert decide([0.5], finished).drop
    assert decide([0.5], finished, rivals=[]) is None
    assert decide([0.5], finished[:2], rivals=finished[:1]) is None


@pytest.mark.parametrize("candidate", [[], [0.5, 0.5, 0.5], [math.nan], [0.5, -math.inf]])
def test_what_cannot_be_raced_is_refused(candidate):
    with pytest.raises(
        MicrosegError, match=r"^a race needs 1 to 2 finite fold scores, .*; got \[.*: end a trial"
    ):
        decide(candidate, [[0.5, 0.5], [0.6, 0.7], [0.7, 0.6]])
