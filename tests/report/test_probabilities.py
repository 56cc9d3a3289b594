"""Calibration and thresholds of the best trial, from what its folds have counted."""

import numpy as np
import pytest

from microseg.metrics.calibration import Calibration
from microseg.report import page, view
from microseg.report.probabilities import chart, probabilities


def counted(threshold, **bins):
    """A calibration with (pixels, foreground) in some bins."""
    table = np.zeros((2, 100), int)
    for place, counts in bins.items():
        table[:, int(place[1:])] = counts
    return Calibration(pixels=table[0].tolist(), foreground=table[1].tolist(), threshold=threshold)


@pytest.fixture
def study(client, start, request):
    """A study of one trial whose two folds have results with a calibration."""

    def build(*calibrations):
        study = start(request.node.name, folds=2)
        study.trial("trial-000", "completed", "all folds", (0.8, 0.9), 1)
        (row,) = view(client, study.read()).rows
        for run, found in zip(row.fold_runs, calibrations, strict=True):
            document = {"calibration": found and found.model_dump(), "metrics": {"val/loss": float("nan")}}
            client.log_dict(run, document, "result.json")
        return view(client, study.read())

    return build


def test_thresholds_of_all_folds_together_and_of_the_others(client, study):
    """The folds prefer 0.31 and 0.61 (the lowest of equals); each errs with the other's threshold."""
    first = counted(0.5, b10=(80, 0), b30=(10, 0), b60=(10, 10))
    second = counted(0.5, b10=(80, 0), b60=(10, 0), b80=(10, 10))
    found = probabilities(client, study(first, second))
    assert (found.trial, found.cut.used) == ("trial-000", 0.5)
    assert found.cut.used_dice == pytest.approx(2 * 20 / (20 + 30))
    assert (found.cut.best, found.cut.best_dice) == (0.31, pytest.approx(0.8))
    # The first fold cut at 0.61 finds nothing, the second one at 0.31 finds 10 pixels too many.
    assert found.cut.others == pytest.approx(2 * 10 / (20 + 20))
    assert "<svg" in chart(found)


def test_several_classes_have_a_calibration_and_no_threshold(client, study):
    read = study(*[counted(None, b05=(90, 4), b90=(10, 9))] * 2)
    found = probabilities(client, read)
    assert found.cut is None
    # 0.055 is predicted where 4 / 90 are foreground, 0.905 where 9 / 10 are.
    assert found.error == pytest.approx(0.9 * abs(0.055 - 4 / 90) + 0.1 * 0.005)
    text = page(client, read)
    assert "Calibration of trial-000" in text and "threshold" not in text.split("Calibration of")[1]


def test_the_page_marks_a_chosen_threshold_as_a_selection_score(client, study):
    text = page(client, study(*[counted(0.5, b10=(80, 0), b60=(20, 20))] * 2))
    assert "Calibration and threshold of trial-000" in text
    assert "these folds prefer 0.11 with 1.0000, a selection score" in text


def test_without_counts_there_is_no_section(client, study, filled):
    read = study(None, None)
    assert probabilities(client, read) is None and "Calibration" not in page(client, read)
    assert probabilities(client, view(client, filled.read())) is None  # no result at all
