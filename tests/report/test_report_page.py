"""One HTML page with all that a reader needs, which opens without a network."""

import re

import pytest

from microseg.report import page, view
from microseg.report.html import ROWS


@pytest.fixture(scope="module")
def text(client, filled):
    return page(client, view(client, filled.read()))


def test_the_page_needs_no_network(text):
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)|url\((?!#)|@import|<script""", text)


@pytest.mark.parametrize(
    "said",
    [
        "14 trials: 4 with all folds",
        "17 of 24 fold trainings",
        "1 of 3 rivals of trial-003 differs from it at 0.05 after Holm&#39;s correction over 3 comparisons: "
        "trial-007 and trial-013 cannot be told apart from trial-003 on this data.",
        "With these 3 folds a difference must exceed about",
        "Compared with the best",
        "over all 6 pairs shown",
        "CPU wall seconds",
        "Too few trials: 4 with all folds",
        "0.8423 to 0.9017",
        "selection scores",
        "raced out (fold 2: 0.021 below trial-003 on average, margin 0.008)",
        "pruned (ASHA at epoch 27)",
        "1 900 000",
        "Score against cost",
        "Repeats with other seeds",
        "Without trial-007-seed-2: diverged (fold 3 diverged).",
        "a processor, 2 cores",
    ],
)
def test_the_page_says(text, said):
    assert said in text


def test_the_page_has_its_charts_and_marks_the_front(text):
    assert text.count("<svg") == 3
    assert text.count("<td>●</td>") == 3


def test_what_was_not_measured_has_no_section(client, stored, row):
    plain = page(client, stored(row(None, "trial-000", state="failed", reason="it broke")))
    assert not any(
        said in plain
        for said in ("<svg", "Repeats", "Score against cost", "Compared", "Really", "Calibration")
    )
    assert "failed (it broke)" in plain


def test_a_study_without_trials_has_a_page(client, stored):
    assert "no trials yet" in page(client, stored())


def test_text_of_others_is_escaped(client, stored, row):
    plain = page(client, stored(row(None, "trial-000", state="failed", reason="<script>alert(1)</script>")))
    assert "<script>" not in plain and "&lt;script&gt;" in plain


def test_a_long_study_is_cut_and_says_how_much_more_there_is(client, stored, row):
    rows = [row(None, f"trial-{number:04d}", state="pruned") for number in range(ROWS + 30)]
    plain = page(client, stored(*rows))
    assert plain.count('<td class="name">') == ROWS
    assert "30 more trials are in <code>leaderboard.csv</code>" in plain


def test_curves_are_read_for_the_best_three_only(client, filled, monkeypatch):
    asked = []
    history = client.get_metric_history
    monkeypatch.setattr(
        client, "get_metric_history", lambda run, key: (asked.append(run), history(run, key))[1]
    )
    read = view(client, filled.read())
    page(client, read)
    assert asked == [run for row in read.rows[:3] for run in row.fold_runs]
