"""The leaderboard as tables for people and for programs."""

import io

import pandas as pd
import pytest
from rich.console import Console

from microseg.report import frame, repeats_frame, repeats_table, terminal_table, view
from microseg.report.formats import cost, headings, number, rounded


@pytest.fixture(scope="module")
def read(client, filled):
    return view(client, filled.read())


def printed(table, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_the_csv_has_every_trial_with_folds_cost_front_and_what_was_varied(read):
    table = pd.read_csv(io.StringIO(frame(read).to_csv(index=False)))
    assert len(table) == 14
    assert list(table["rank"].dropna()) == [1, 2, 3, 4]
    best, raced = table.iloc[0], table.iloc[4]
    assert (best["trial"], best["parameters"], bool(best["pareto"])) == ("trial-003", 480_000, True)
    assert (best["fold 1"], best["fold 3"], best["model/params/depth"]) == (0.871, 0.865, 5)
    assert (raced["state"], raced["fold 2"], pd.isna(raced["fold 3"])) == ("raced_out", 0.859, True)
    assert "model/name" not in table  # it is the same in all


def test_a_rank_is_a_whole_number_also_in_text(read):
    assert frame(read).to_csv(index=False).splitlines()[1].startswith("1,trial-003,")


def test_a_study_without_trials_or_cost_has_an_empty_table(board):
    table = frame(board())
    assert len(table) == 0
    assert "pareto" not in table and "fold 3" in table


def test_the_terminal_shows_score_cost_front_and_reason(read):
    lines = printed(terminal_table(read)).splitlines()
    best = next(line for line in lines if "trial-003 " in line)
    assert "0.8720 ± 0.0075" in best and "480 000" in best and "●" in best
    assert "●" not in next(line for line in lines if "trial-007 " in line)
    raced = next(line for line in lines if "trial-008 " in line)
    assert "raced out (fold 2: 0.021 below trial-003 on average, margin 0.008)" in raced


def test_a_narrow_terminal_cuts_the_reason_before_anything_else(read):
    lines = printed(terminal_table(read), width=85).splitlines()
    raced = next(line for line in lines if "trial-008 " in line)
    assert "0.8545 (2 folds)" in raced and "0.01241" in raced and "raced out" in raced and "…" in raced


@pytest.mark.parametrize("width", [60, 80, 140])
def test_what_does_not_fit_as_columns_follows_for_the_best(row, board, width):
    """Folded into columns of one letter, the leaderboard of a large space filled pages."""
    params = [
        {f"part{part}/params/value_{part}": f"{number}[red]{part}" for part in range(12)} for number in (1, 2)
    ]
    best = row(1, "trial-000", (0.5, 0.6, 0.7), params=params[0])
    stopped = row(None, "trial-001", (0.4,), params=params[1], state="raced_out", reason="far below")
    lines = printed(terminal_table(board(best, stopped)), width).splitlines()
    assert max(map(len, lines)) <= width and len(lines) < 25
    text = " ".join(" ".join(lines).split())
    assert all(f"value {part} 1[red]{part}" in text for part in range(12))  # brackets are no markup
    assert "0.4000 (1 fold) raced out" in text and "2[red]" not in text


def test_what_the_terminal_leaves_out_is_counted(read, board, row):
    assert "10 more in leaderboard.csv" in printed(
        terminal_table(read, limit=3)
    )  # the fourth is on the front
    assert "more in" not in printed(terminal_table(read))
    assert "front" not in printed(terminal_table(board(row(1, "trial-000", (0.5, 0.6, 0.7)))))


def test_repeats_as_a_table_and_as_a_csv(read):
    table = pd.read_csv(io.StringIO(repeats_frame(read).to_csv(index=False)), keep_default_na=False)
    assert list(table["trial"]) == ["trial-003", "trial-007"]
    assert list(table["seeds"]) == [3, 2]
    assert list(table["incomplete"]) == ["", "trial-007-seed-2: diverged (fold 3 diverged)"]
    best = next(line for line in printed(repeats_table(read)).splitlines() if "trial-003" in line)
    assert best.split() == ["trial-003", "0.8720", "0.8657", "0.0038", "0.0069", "3"]


def test_without_repeats_the_tables_are_empty_but_have_their_columns(board):
    assert (len(repeats_frame(board())), repeats_table(board()).row_count) == (0, 0)
    assert "seed_sd" in repeats_frame(board())


@pytest.mark.parametrize(
    ("value", "said"), [(None, ""), (1_900_000.0, "1 900 000"), (999.0, "999"), (0.01234, "0.0123")]
)
def test_costs_are_readable(value, said):
    assert cost(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [("0.0012345", "0.001234"), ("16", "16"), ("true", "true"), ("1e-05", "1e-05")]
)
def test_parameters_are_rounded_to_four_digits(value, said):
    assert rounded(value) == said


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["model/params/depth", "loss/name", "batch_size"], ["depth", "loss", "batch size"]),
        (["loss/params/alpha", "optimizer/params/alpha", "tile"], ["loss alpha", "optimizer alpha", "tile"]),
    ],
)
def test_headings_are_as_short_as_tells_them_apart(paths, said):
    assert headings(paths) == said


def test_scores_have_four_decimals():
    assert (number(None), number(0.5)) == ("", "0.5000")
