"""What MLflow's tables show of trials and studies: the figures of the report, and none where it has none."""

import pytest

from microseg.report import interval, mark, view
from microseg.report.marks import mean_and_interval
from microseg.tracking.views import BEST, COST, INTERVAL, RANK, TRIALS


@pytest.fixture(scope="module")
def marked(client, filled):
    """The runs of a study by name, once they are marked, twice as after a resume; and its view."""
    seen = view(client, filled.read())
    for _ in range(2):
        mark(client, seen)
    rows = (*seen.rows, *seen.replicates)
    return {row.name: client.get_run(row.run_id).data for row in rows} | {"": filled.read().data}, seen


def test_the_interval_is_that_of_the_report(marked):
    runs, seen = marked
    best = seen.ranked[0]
    within = interval(best, seen)
    mean, _, half = runs[best.name].tags[INTERVAL].partition(" ± ")
    assert float(mean) == pytest.approx(best.mean, abs=1e-4)
    assert float(half) == pytest.approx((within.high - within.low) / 2, abs=1e-4)
    assert within.low == pytest.approx(best.mean - float(half), abs=1e-4)


def test_ranks_count_from_one_and_only_trials_with_all_folds_have_one(marked):
    runs, seen = marked
    assert [runs[row.name].metrics[RANK] for row in seen.ranked] == [1, 2, 3, 4]
    others = [row.name for row in (*seen.rows, *seen.replicates) if row.rank is None]
    assert not any(RANK in runs[name].metrics for name in others)
    assert not any(INTERVAL in runs[row.name].tags for row in seen.rows if row.rank is None)


def test_a_repeat_has_its_own_interval_and_an_incomplete_one_none(marked):
    runs, _ = marked
    assert runs["trial-003-seed-1"].tags[INTERVAL].startswith("0.8667 ± ")
    assert INTERVAL not in runs["trial-007-seed-2"].tags


def test_the_study_has_its_best_trial_and_what_all_cost(marked):
    runs, seen = marked
    tags = runs[""].tags
    assert (tags[BEST], tags[INTERVAL]) == ("trial-003", runs["trial-003"].tags[INTERVAL])
    assert tags[TRIALS] == "14, 4 with all folds"
    assert runs["trial-003"].tags[COST] == "90 s, 480 000 parameters"
    timed = (row.costs.get("seconds", row.seconds) for row in (*seen.rows, *seen.replicates))
    assert float(tags[COST].removesuffix(" s").replace(" ", "")) == pytest.approx(sum(timed), abs=1)


def test_with_one_fold_there_is_a_mean_and_no_interval(board, row):
    seen = board(row(1, "trial-000", (0.5,)), folds=1)
    assert mean_and_interval(seen.rows[0], seen) == "0.5000"
