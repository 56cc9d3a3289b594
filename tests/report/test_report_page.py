"""One HTML page with all that a reader needs, which opens without a network."""

import re
from pathlib import Path

import pytest

from microseg.cli.studies import write_report
from microseg.report import page, view
from microseg.report.html import ROWS
from microseg.tracking import store


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
        "CPU-seconds",
        "trial-003: depth 5, learning rate 0.002571.",
        "<td>learning rate 0.009058</td>",
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


def test_many_parameters_are_told_in_words_and_many_ranked_trials_unfold(client, stored, row):
    rows = [
        row(
            rank,
            f"trial-{rank:03d}",
            (0.9, 0.8, 0.7 - rank / 1000),
            fold_runs=(),
            params={f"part/value_{n}": f"{rank * n}" for n in range(1, 8)},
        )
        for rank in range(1, 31)
    ]
    plain = page(client, stored(*rows))
    assert "<th>value 1</th>" not in plain and "<th>what differs between trials</th>" in plain
    assert "value 1 1, value 2 2, value 3 3" in plain
    assert "<summary>10 more with all folds</summary>" in plain
    assert "9 more are in <code>leaderboard.csv</code>" in plain  # of 29 rivals


def test_importance_and_slices_are_drawn_where_they_are_given(client, filled):
    read = view(client, filled.read())
    plain = page(client, read, {"model/params/depth": 0.7, "optimizer/params/learning_rate": 0.3})
    assert "PED-ANOVA" in plain and "Too few trials" not in plain
    assert plain.count("<svg") == 5


def test_a_page_never_calls_a_score_of_folds_unbiased(text):
    assert text.count("unbiased") == 1 and "the hold-out) give an unbiased figure" in text


def test_the_command_writes_the_page_and_mlflow_keeps_it(client, filled, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(store, "connect", lambda: client)
    write_report("filled", tmp_path / "page.html")
    assert "cannot be told apart from trial-003" in capsys.readouterr().out
    kept = Path(client.download_artifacts(filled.parent, "report.html", str(tmp_path))).read_text()
    assert kept == (tmp_path / "page.html").read_text() and kept.startswith("<!doctype html>")
