"""The words of a report say no more than was measured."""

import math

import pytest

from microseg.report import comparison, repetition, resolution, score, summary, verdict, view
from microseg.report.sentences import measured, state


def test_the_summary_tells_the_states_apart_and_names_the_faults(client, filled):
    first, second = summary(view(client, filled.read())).splitlines()
    assert first == (
        "14 trials: 4 with all folds, 2 pruned by ASHA, 2 raced out, 1 out of memory (trial-006), "
        "1 diverged (trial-009), 1 collapsed (trial-010), 1 failed (trial-002), 1 interrupted, 1 running"
    )
    # All folds 4 x 3, raced out 2 + 1, pruned 1 each; of 8 trials x 3 folds.
    assert second == "17 of 24 fold trainings of full cross-validation, 29 % saved"


def test_where_every_fold_was_trained_nothing_was_saved(row, board):
    assert summary(board(row(1, "one", (0.9, 0.8, 0.7)))) == "1 trial: 1 with all folds"


def test_many_faults_are_not_all_named(row, board):
    rows = [row(None, f"trial-{number:03d}", state="failed") for number in range(5)]
    assert summary(board(*rows)) == "5 trials: 5 failed (trial-000, trial-001, trial-002, ...)"


def test_a_state_of_a_later_version_is_counted_too(row, board):
    assert summary(board(row(None, "trial-000", state="put_aside"))) == "1 trial: 1 put aside"


def test_without_trials_the_summary_says_so(board):
    assert summary(board()) == "no trials yet"


@pytest.mark.parametrize(
    ("scores", "mode", "said"),
    [
        (((0.9, 0.8, 0.7), (0.8, 0.85, 0.6)), "max", "one is better than two in 2 of 3 folds."),
        (((0.2, 0.3, 0.4), (0.3, 0.2, 0.5)), "min", "one is better than two in 2 of 3 folds."),
        (((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), "max", "one is better than two in 0 of 3 folds."),
        (((0.6,), (0.5,)), "max", "one is better than two in 1 of 1 fold."),
        (((0.6, 0.5, 0.4),), "max", ""),
    ],
)
def test_the_two_best_are_compared_fold_by_fold(row, board, scores, mode, said):
    rows = [
        row(rank, name, values)
        for rank, (name, values) in enumerate(zip(("one", "two"), scores, strict=False), 1)
    ]
    assert comparison(board(*rows, mode=mode)) == said


def test_one_fold_decides_nothing_and_one_trial_has_no_rival(row, board):
    alone, other = row(1, "one", (0.9,)), row(2, "two", (0.1,))
    assert verdict(board(alone, other, folds=1)) == "One fold cannot say which differences are chance."
    assert resolution(board(alone, other, folds=1)) == ""
    assert verdict(board(alone, folds=1)) == verdict(board()) == ""


BEST, NEAR, FAR = (0.80, 0.85, 0.81), (0.79, 0.86, 0.80), (0.40, 0.45, 0.42)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"near": NEAR}, "near cannot be told apart from best on this data (p 0.78)."),
        ({"near": NEAR, "far": FAR}, "1 of 2 rivals of best differs from it at 0.05 after Holm's correction over "
         "2 comparisons: near cannot be told apart from best on this data."),
        ({"far": FAR, "away": FAR}, "far and away differ from best at 0.05 after Holm's correction over 2 comparisons."),
        ({"far": FAR}, "far differs from best at 0.05 (p < 0.001)."),
        ({"far": FAR, "away": FAR, "near": NEAR}, "2 of 3 rivals of best differ from it at 0.05 after Holm's correction "
         "over 3 comparisons: near cannot be told apart from best on this data."),
    ],
)  # fmt: skip
def test_who_cannot_be_told_apart_from_the_best_is_named(row, board, others, said, sign):
    scores = {"best": BEST} | others
    rows = [
        row(rank, name, tuple(sign * x for x in values))
        for rank, (name, values) in enumerate(scores.items(), 1)
    ]
    assert verdict(board(*rows, mode="max" if sign > 0 else "min")) == said


def test_of_many_that_cannot_be_told_apart_the_first_are_named(row, board):
    rows = [row(rank, f"trial-{rank:03d}", NEAR if rank % 2 else BEST) for rank in range(1, 31)]
    assert "trial-012, trial-013 and 17 more cannot be told apart from trial-001" in verdict(board(*rows))


def test_a_best_trial_that_lacks_scores_is_not_replaced_by_the_next(row, board):
    """Somebody's run with a mean and without folds: nothing can be compared with it."""
    rows = [row(1, "one", (), mean=0.9), row(2, "two", NEAR), row(3, "three", FAR)]
    assert verdict(board(*rows)) == ""


@pytest.mark.parametrize(("mode", "ahead"), [("max", "; two is ahead of it with 0.8000"), ("min", "")])
def test_repeats_say_what_is_left_of_the_best_and_how_far_a_seed_moves_it(row, board, mode, ahead):
    """Deviations of one from its mean 0.7: +-0.1, 0; of two from 0.85: +-0.05; over 2 + 1 degrees of freedom."""
    rows = [row(1, "one", (0.8, 0.8)), row(2, "two", (0.9, 0.9))]
    again = [("one", 0.7), ("one", 0.6), ("two", 0.8)]
    repeated = [row(None, f"{of}-again", (value, value), replicate_of=of) for of, value in again]
    pooled = math.sqrt((2 * 0.1**2 + 0.1**2 / 2) / 3)
    assert repetition(board(*rows, replicates=tuple(repeated), folds=2, mode=mode)) == (
        f"With other seeds one has 0.6500, in the search it had 0.8000{ahead}. "
        f"The seed alone moves a mean over folds by about {pooled:.2g} (standard deviation)."
    )


def test_repeats_that_all_failed_say_nothing(row, board):
    failed = row(None, "one-again", (), replicate_of="one", state="failed")
    assert repetition(board(row(1, "one", (0.8, 0.8)), replicates=(failed,), folds=2)) == ""


def test_how_far_apart_two_trials_must_be(row, board):
    """Differences of 0.1, 0 and 0.1: 4.303 * sqrt((1 / 3 + 1 / 2) * 0.00333) by the corrected t-test."""
    rows = [row(1, "one", (0.8, 0.7, 0.9)), row(2, "two", (0.7, 0.7, 0.8))]
    assert resolution(board(*rows)) == (
        "With these 3 folds a difference must exceed about 0.23 to be told from chance, even where only two are "
        "compared."
    )
    assert resolution(board(rows[0])) == ""


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("completed", "all folds", "completed"),
        ("raced_out", "fold 2: 0.021 below trial-003", "raced out (fold 2: 0.021 below trial-003)"),
        ("out_of_memory", "fold 1", "out of memory (fold 1)"),
        ("running", "", "running"),
        ("interrupted", "interrupted", "interrupted"),
    ],
)
def test_states_in_plain_words(row, name, reason, said):
    assert state(row(None, "trial-000", state=name, reason=reason)) == said


def test_a_mean_over_fewer_folds_is_told_from_a_score(row):
    ranked = row(1, "one", (0.8, 0.9, 1.0))
    assert measured(ranked) == score(ranked) == "0.9000 ± 0.1000"
    assert measured(row(None, "two", (0.8, 0.9), state="raced_out")) == "0.8500 (2 folds)"
    assert measured(row(None, "two", (0.8,), state="diverged")) == "0.8000 (1 fold)"
    assert measured(row(None, "two", state="pruned")) == ""
