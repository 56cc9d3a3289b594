"""A study is read from MLflow with two searches: ranked, told apart, in an order that helps to choose."""

import pytest

from microseg.errors import MicrosegError
from microseg.report import find_study, view


@pytest.fixture(scope="module")
def read(client, filled):
    return view(client, filled.read())


def test_ranked_then_raced_out_by_folds_then_pruned_by_epoch_then_the_rest(read):
    assert [row.name[-2:] for row in read.rows] == [
        "03", "07", "13", "00",  # all folds, the best first
        "08", "04",  # raced out, with 2 folds and with 1
        "05", "01",  # pruned at epoch 27 and at epoch 2: as numbers
        "02", "06", "09", "10", "11", "12",
    ]  # fmt: skip
    assert [row.rank for row in read.rows] == [1, 2, 3, 4] + [None] * 10


def test_every_state_is_told_apart_with_its_reason(read):
    states = {row.name: (row.state, row.reason) for row in read.rows}
    assert len({state for state, _ in states.values()}) == 9
    assert states["trial-008"] == ("raced_out", "fold 2: 0.021 below trial-003 on average, margin 0.008")
    assert states["trial-012"] == ("running", "")


def test_repeats_are_no_trials_and_enter_no_rank(read):
    assert [(row.name, row.replicate_of, row.rank) for row in read.replicates] == [
        ("trial-003-seed-1", "trial-003", None),
        ("trial-003-seed-2", "trial-003", None),
        ("trial-007-seed-1", "trial-007", None),
        ("trial-007-seed-2", "trial-007", None),
    ]
    assert not [row for row in read.rows if row.replicate_of]


def test_only_completed_folds_have_scores_but_every_begun_one_is_known(read):
    rows = {row.name: row for row in read.rows}
    assert rows["trial-003"].scores == (0.871, 0.880, 0.865)
    assert (rows["trial-009"].scores, len(rows["trial-009"].fold_runs)) == ((0.790,), 2)
    assert (rows["trial-010"].scores, len(rows["trial-010"].fold_runs)) == ((), 1)  # collapsed, with a score


def test_the_cost_is_that_which_the_study_searches_to_be_low(client, filled, read):
    assert (read.against, read.price, read.rows[0].costs["parameters"]) == (
        "parameters",
        "parameters",
        480_000,
    )
    assert read.front == {"trial-003", "trial-013", "trial-000"}  # 007 is worse and larger than 003


def test_a_study_is_read_with_two_searches_however_many_trials_it_has(client, filled, monkeypatch):
    asked = []
    search = client.search_runs
    monkeypatch.setattr(
        client, "search_runs", lambda *args, **more: (asked.append(args), search(*args, **more))[1]
    )
    view(client, filled.read())
    assert len(asked) == 2


def test_folds_are_in_the_order_of_their_numbers(client, start):
    study = start("many-folds", folds=11)
    scores = tuple(0.5 + 0.01 * fold for fold in range(11))
    study.trial("trial-000", "completed", "all folds", scores, 1)
    (only,) = view(client, study.read()).rows
    assert only.scores == scores  # as text, fold-10 comes before fold-2


def test_a_low_score_leads_where_low_is_better(client, start):
    study = start("low", **{"microseg.mode": "min", "microseg.against": "inference_seconds"})
    for number, (score, size) in enumerate([(0.5, 10), (0.3, 900), (0.4, 10)]):
        study.trial(f"trial-{number:03d}", "completed", "all folds", (score,) * 3, size)
    study.trial("trial-003", "raced_out", "fold 1: ...", (0.9,), 1)
    study.trial("trial-004", "raced_out", "fold 1: ...", (0.7,), 1)
    read = view(client, study.read())
    assert [row.name for row in read.rows] == [f"trial-{number:03d}" for number in (1, 2, 0, 4, 3)]
    assert read.front == {"trial-001", "trial-002"}
    assert read.rows[0].costs["inference_seconds"] == pytest.approx(0.002 * 900**0.3)


def test_a_mean_that_is_no_number_is_not_ranked(client, start):
    study = start("nan")
    study.trial("trial-000", "completed", "all folds", (float("nan"),) * 3, 1)
    study.trial("trial-001", "completed", "all folds", (0.1,) * 3, 1)
    assert [(row.name, row.rank) for row in view(client, study.read()).rows] == [
        ("trial-001", 1),
        ("trial-000", None),
    ]


def test_studies_of_one_name_keep_their_trials_apart_and_the_newest_is_found(client, start):
    for score in (0.9, 0.2):
        study = start("twin")
        study.trial("trial-000", "completed", "all folds", (score,) * 3, 1)
    found = find_study(client, "twin")
    assert found.info.run_id == study.parent
    (only,) = view(client, found).rows
    assert only.scores == (0.2, 0.2, 0.2)


def test_a_study_without_trials_has_no_rows(client, start):
    read = view(client, start("empty").read())
    assert (read.rows, read.varied, read.front, read.against) == ((), [], frozenset(), "")


def test_a_study_that_is_not_there_is_one_line_with_those_that_are(client, filled):
    with pytest.raises(MicrosegError, match=r"there is no study 'none' in sqlite.*; studies: .*filled"):
        find_study(client, "none")


def test_the_front_is_shown_however_low_it_ranks(row, board):
    def shown(costs, against):
        rows = [
            row(rank, f"{rank}", (1.0 - rank / 10,) * 3, costs={"parameters": cost} if cost else {})
            for rank, cost in enumerate(costs, 1)
        ]
        return "".join(row.name for row in board(*rows, against=against).first(2))

    assert shown([9, 9, 9, 1], "parameters") == "124"
    assert shown([None] * 4, "parameters") == "12"
    assert shown([9, 9, 9, 1], "") == "12"  # where nobody asked for a low cost, a cheap network is no result


def test_what_only_one_branch_has_is_varied_but_not_shared(row, board):
    """Parallel coordinates of MLflow leave out a run without one of the parameters that are drawn."""
    first = row(1, "one", params={"model/name": "unet", "model/params/depth": "3", "tile": "64"})
    second = row(2, "two", params={"model/name": "u2net", "tile": "64"})
    study = board(first, second)
    assert study.varied == ["model/name", "model/params/depth"]
    assert study.shared == ["model/name"]
