"""Repeats: the spread between seeds beside that between folds, and what the folds can tell apart."""

import math

import pytest

from microseg.report import repeats, resolvable
from microseg.statistics import smallest_difference

# Means over folds 0.5, 0.6 and 0.4 with three seeds; over seeds 0.4, 0.5 and 0.6 in the folds.
FIRST, SECOND, THIRD = (0.4, 0.5, 0.6), (0.5, 0.6, 0.7), (0.3, 0.4, 0.5)


@pytest.fixture
def again(row):
    """Return a function that builds a repeat of trial-000."""
    return lambda seed, scores, **more: row(
        None, f"trial-000-seed-{seed}", scores, replicate_of="trial-000", **more
    )


def test_known_spreads_and_a_mean_that_leaves_out_the_seed_that_was_chosen_by(row, board, again):
    study = board(row(1, "trial-000", FIRST), replicates=(again(1, SECOND), again(2, THIRD)))
    (entry,) = repeats(study)
    assert (entry.trial, entry.seeds, entry.incomplete) == ("trial-000", 3, ())
    assert entry.chosen == pytest.approx(0.5)
    assert entry.mean == pytest.approx((0.6 + 0.4) / 2)
    assert entry.seed_sd == pytest.approx(0.1)
    assert entry.fold_sd == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("scores", "state"),
    [(SECOND[:2], "diverged"), (SECOND[:2], "running"), ((), "failed"), ((0.5, 0.6, math.nan), "completed")],
)
def test_a_repeat_that_lacks_a_fold_does_not_enter_but_is_named(row, board, again, scores, state):
    lacking = again(2, scores, state=state)
    (entry,) = repeats(board(row(1, "trial-000", FIRST), replicates=(again(1, SECOND), lacking)))
    assert (entry.seeds, entry.incomplete) == (2, (lacking,))
    assert entry.mean == pytest.approx(0.6)


def test_without_a_repeat_that_is_done_there_is_no_spread_between_seeds(row, board, again):
    (entry,) = repeats(board(row(1, "trial-000", FIRST), replicates=(again(1, (), state="failed"),)))
    assert (entry.mean, entry.seed_sd, entry.seeds) == (None, None, 1)
    assert entry.fold_sd == pytest.approx(0.1)


def test_finalists_come_in_the_order_of_their_ranks_and_others_not_at_all(row, board, again):
    ranked = [row(1, "trial-001", SECOND), row(2, "trial-000", FIRST), row(3, "trial-002", THIRD)]
    other = row(None, "trial-001-seed-1", SECOND, replicate_of="trial-001")
    found = repeats(board(*ranked, replicates=(again(1, FIRST), other)))
    assert [entry.trial for entry in found] == ["trial-001", "trial-000"]


def test_the_smallest_difference_is_that_of_the_trials_with_all_folds(row, board):
    tables = [(0.80, 0.85, 0.81), (0.79, 0.83, 0.82), (0.70, 0.78, 0.69)]
    ranked = [row(rank, f"trial-{rank:03d}", scores) for rank, scores in enumerate(tables, 1)]
    study = board(*ranked, row(None, "trial-009", (0.1,), state="raced_out"))
    assert resolvable(study) == smallest_difference(tables, 1 / 2)  # three folds: one part tests, two train
    assert resolvable(board(ranked[0])) is None
    assert resolvable(board(*(row(rank, str(rank), (0.5,)) for rank in (1, 2)), folds=1)) is None
