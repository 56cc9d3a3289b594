"""What a trial's run says: mean and spread over completed folds, and what it cost."""

from pathlib import Path

import pytest

from microseg.tracking.recorder import final_metrics, summary
from microseg.training import FoldResult


def result(fold: int, dice: float, state: str = "completed") -> FoldResult:
    return FoldResult(
        fold=fold, state=state, best_epoch=2, epochs=3, metrics={"val/dice": dice, "val/iou": dice / 2, "train/dice": 1.0},
        per_image={"a": dice}, seconds=10.0, parameters=77, peak_memory_mib=500.0 + fold, model=Path("m.keras"),
        history=[], fingerprint="f",
    )  # fmt: skip


def test_mean_and_sample_deviation_over_folds():
    found = summary([result(0, 0.6), result(1, 0.8)])
    assert found["cv/dice_mean"] == pytest.approx(0.7)
    assert found["cv/dice_std"] == pytest.approx(0.1414213562)
    assert found["cv/iou_mean"] == pytest.approx(0.35)
    assert (found["folds_done"], found["seconds"], found["parameters"], found["peak_memory_mib"]) == (
        2,
        20,
        77,
        501,
    )
    assert not [name for name in found if "train" in name]


def test_one_fold_has_no_spread():
    assert "cv/dice_std" not in summary([result(0, 0.6)])


def test_a_fold_that_collapsed_or_diverged_is_no_number_in_a_mean():
    found = summary([result(0, 0.6), result(1, 0.0, "collapsed"), result(2, float("nan"), "diverged")])
    assert found["cv/dice_mean"] == 0.6
    assert found["folds_done"] == 1


def test_the_final_metrics_are_those_of_the_saved_model():
    assert final_metrics(result(0, 0.6)) == {
        "final/dice": 0.6,
        "final/iou": 0.3,
        "best_epoch": 2.0,
        "seconds": 10.0,
    }
