"""What the charts of a report draw, read from the axes, and that they are empty where there is nothing."""

import pytest

from microseg.report import figures


@pytest.fixture
def drawn(monkeypatch):
    """Return the figures in place of their SVG text."""
    monkeypatch.setattr(figures, "svg", lambda figure: figure)


def lines(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker]


def test_points_interval_and_repeats_of_a_trial(drawn, row, board):
    again = row(None, "one-again", (0.6, 0.6, 0.6), replicate_of="one")
    (axes,) = figures.fold_points(board(row(1, "one", (0.7, 0.8, 0.9)), replicates=(again,))).axes
    assert lines(axes, "o")[0].get_xdata().tolist() == [0.7, 0.8, 0.9]
    assert lines(axes, "D")[0].get_xdata().tolist() == [pytest.approx(0.6)]
    reach = 4.3027 * ((1 / 3 + 1 / 2) * 0.01) ** 0.5
    assert lines(axes, "None")[0].get_xdata() == pytest.approx([0.8 - reach, 0.8 + reach], abs=1e-4)


def test_a_slice_has_numbers_in_order_and_names_as_they_are(drawn, row, board):
    rows = [
        row(rank, str(rank), (1 - rank / 10,) * 3, params={"rate": rate, "model/name": name} | more)
        for rank, (rate, name, more) in enumerate(
            [("0.001", "unet", {"model/depth": "3"}), ("1e-05", "a network with a long name", {})], 1
        )
    ]
    importance = {"rate": 0.6, "model/name": 0.3, "model/depth": 0.1}
    rate, model, depth = figures.slices(board(*rows), importance).axes
    assert (rate.get_xscale(), rate.lines[0].get_xdata().tolist()) == ("log", [0.001, 1e-05])
    assert [label.get_text() for label in model.get_xticklabels()] == ["a network with …", "unet"]
    assert model.lines[0].get_xdata().tolist() == [1, 0]
    assert (depth.get_xscale(), depth.lines[0].get_xdata().tolist()) == ("linear", [3.0])  # only one has it


def test_a_cost_that_was_measured_is_shown_also_where_it_was_not_searched(drawn, row, board):
    rows = [row(r, str(r), (1 - r / 10,) * 3, costs={"inference_seconds": 0.1 / r}) for r in (1, 2)]
    (axes,) = figures.pareto(board(*rows)).axes
    assert (axes.get_xlabel(), axes.get_xscale()) == ("seconds to predict a megapixel", "linear")
    large = row(3, "3", (0.4,) * 3, costs={"inference_seconds": 2.0})
    assert figures.pareto(board(*rows, large)).axes[0].get_xscale() == "log"
    assert figures.pareto(board(*rows[:1])) == figures.pareto(board(row(1, "one", (0.5,) * 3))) == ""


def test_without_importance_or_curves_there_is_no_chart(client, filled, row, board):
    assert figures.importances({}) == figures.slices(board(row(1, "one", (0.5,) * 3)), {}) == ""
    assert figures.curves(client, board(row(1, "one", (0.5,) * 3, fold_runs=(filled.parent,)))) == ""
