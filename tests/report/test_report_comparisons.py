"""The published table of AFM networks, and what a report says of any trials: intervals, rivals, all pairs."""

import csv
import math
from statistics import fmean

import pytest

from microseg.report import interval, matrix, page, rivals, verdict
from microseg.report.fold_sizes import SizeRatio
from microseg.statistics import corrected_t, holm


@pytest.fixture(scope="module")
def published(shared_table, row, stored):
    """The 11 configurations on height images, the best first."""
    rows = [
        line for line in csv.DictReader(shared_table.read_text().splitlines()) if line["input"] == "height"
    ]
    scores = {
        f"{line['architecture']} {line['loss']} {line['depth']}": tuple(
            float(line[f"fold{fold}"]) for fold in range(1, 6)
        )
        for line in rows
    }
    ordered = sorted(scores, key=lambda name: -fmean(scores[name]))
    rows = [row(rank, name, scores[name], fold_runs=()) for rank, name in enumerate(ordered, 1)]
    return stored(*rows, folds=5)


def test_the_published_networks_compared_with_their_best(published):
    """Nadeau and Bengio's test on the fold differences to VGG19, as the table's own analysis gives them."""
    found = {rival.row.name: rival for rival in rivals(published)}
    expected = {
        "VGG16 dice_loss 5": 0.69,
        "Xception dice_loss 5": 0.16,
        "U-net log cosh dice 5": 0.18,
        "U-net dice_loss 5": 0.041,
        "U-net dice_loss 2": 0.014,
    }
    assert {name: float(f"{found[name].behind.p:.2g}") for name in expected} == expected
    assert published.ranked[0].name == "VGG19 dice_loss 5"
    assert len(found) == 10 and not any(rival.differs for rival in found.values())
    assert min(rival.corrected for rival in found.values()) == pytest.approx(10 * 0.014035, rel=1e-3)


def test_the_page_says_that_none_of_them_can_be_told_apart(client, published):
    text = page(client, published)
    said = "None of 10 rivals of VGG19 dice_loss 5 differs from it at 0.05"
    assert said in verdict(published)
    assert "Holm&#39;s correction over 10 comparisons" in text and said in text
    assert text.count('<td class="name">cannot be told apart</td>') == 10
    assert "over all 55 pairs shown" in text
    for p in ("0.69", "0.16", "0.18", "0.041", "0.014"):
        assert f'<td class="number">{p}</td>' in text


def test_an_interval_is_that_of_the_corrected_test_and_every_fold_must_be_there(row, board):
    whole, short = row(1, "one", (0.8, 0.9, 0.85)), row(2, "two", (0.8, 0.9))
    study = board(whole, short, row(3, "three", (0.8, math.nan, 0.9)))
    assert interval(whole, study) == corrected_t((0.8, 0.9, 0.85), 0.5)
    assert interval(short, study) is None and interval(study.rows[2], study) is None
    assert (rivals(study), matrix(study)) == ([], None)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_is_ahead_whichever_direction_is_better(row, board, mode):
    sign = 1 if mode == "max" else -1
    tables = [(0.9, 0.8, 0.85), (0.8, 0.75, 0.7), (0.5, 0.6, 0.55)]
    rows = [row(rank, str(rank), tuple(sign * x for x in values)) for rank, values in enumerate(tables, 1)]
    study = board(*rows, mode=mode)
    assert [rival.behind.difference for rival in rivals(study)] == pytest.approx([0.1, 0.3])
    assert matrix(study).pairs.difference[0, 2] == pytest.approx(0.3)
    assert [r.corrected for r in rivals(study)] == holm([r.behind.p for r in rivals(study)]).tolist()


def test_larger_validation_parts_make_a_test_more_careful(row, board):
    rows = [row(1, "one", (0.9, 0.8, 0.85)), row(2, "two", (0.8, 0.75, 0.7))]
    (few,), (many,) = (rivals(board(*rows, ratio=SizeRatio(value, ""))) for value in (0.25, 2.0))
    assert few.behind.p < many.behind.p


def test_all_pairs_are_those_of_the_first_only(row, board):
    rows = [row(rank, str(rank), (0.9, 0.8 - rank / 100, 0.85)) for rank in range(1, 20)]
    found = matrix(board(*rows))
    assert len(found.rows) == 12 and found.pairs.p.shape == (12, 12)
    assert matrix(board(*rows[:2])) is None  # the best and its rival are a table already


def test_one_fold_has_no_interval_and_nothing_to_compare(row, board):
    study = board(row(1, "one", (0.9,)), row(2, "two", (0.8,)), row(3, "three", (0.7,)), folds=1)
    assert interval(study.rows[0], study) is None
    assert (rivals(study), matrix(study)) == ([], None)
