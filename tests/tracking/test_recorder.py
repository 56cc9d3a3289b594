"""What a trial's runs say: every epoch once and in few batches, mean and spread over folds, what it cost."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from PIL import Image

from microseg.config import Component, TrialConfig
from microseg.folds import Fold
from microseg.tracking import fold as fold_run
from microseg.tracking import tree
from microseg.tracking.figures import panels
from microseg.tracking.fold import as_metrics, batches
from microseg.tracking.recorder import Recorder, final_metrics, summary
from microseg.tracking.tree import TrialRun
from microseg.training import FoldResult, Progress, Sample, State


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


def test_work_of_processors_is_added_up_where_it_was_measured():
    one = result(0, 0.6).model_copy(update={"cpu_seconds": 15.0})
    assert summary([one, one])["cpu_seconds"] == 30
    assert "cpu_seconds" not in summary([result(0, 0.6)])


def test_memory_of_a_gpu_is_told_where_one_was_used():
    used = result(0, 0.6).model_copy(update={"gpu_memory_mib": 900.0})
    assert summary([used, result(1, 0.8)])["gpu_memory_mib"] == 900
    assert "gpu_memory_mib" not in summary([result(0, 0.6)])


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


CONFIG = TrialConfig(model=Component(name="unet"))
FOLDS = [Fold(index=number, train=("a",), valid=("b",)) for number in range(3)]


@pytest.fixture
def trial(client, request) -> TrialRun:
    study = tree.open_study(client, request.node.name)
    return tree.open_trial(client, study, "trial-000", {}, 0)


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The names of all runs' batches of metrics, as they are written."""
    names: list[str] = []
    original = MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), **others):
        names.extend([run_id] * bool(metrics))
        return original(self, run_id, metrics=metrics, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    return names


def fold_of(client: MlflowClient, trial: TrialRun, fold: int = 0) -> Run:
    return client.get_run(tree.open_fold(client, trial, fold).info.run_id)


def steps(client: MlflowClient, run: Run, name: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, name)]


def epoch(number: int, fold: int = 0, **more: float) -> Progress:
    return Progress(fold, number, {"train/loss": 1.0 / number, "val/dice": number / 100, **more})


def test_a_fast_fold_is_one_batch(client, trial, written):
    record = Recorder(trial, CONFIG, FOLDS)
    for number in range(1, 31):
        record(epoch(number))
    assert not written
    record(Progress(0, 30, {}, (), result(0, 0.3)))
    run = fold_of(client, trial)
    assert written == [run.info.run_id, trial.run_id]
    assert steps(client, run, "val/dice") == list(range(1, 31))
    assert (run.data.metrics["final/dice"], run.info.status) == (0.3, "FINISHED")


def test_a_slow_fold_is_seen_while_it_trains(client, trial, written, monkeypatch):
    monkeypatch.setattr(fold_run, "FLUSH", 0.0)
    record = Recorder(trial, CONFIG, FOLDS)
    record(epoch(1))
    assert fold_of(client, trial).data.metrics["val/dice"] == 0.01


def test_what_is_kept_is_written_when_the_training_is_stopped(client, trial):
    """ASHA stops a trial by a SystemExit that is raised between two reports."""
    record = Recorder(trial, CONFIG, FOLDS)
    with pytest.raises(SystemExit):
        try:
            record(epoch(1))
            raise SystemExit
        finally:
            record.flush()
    assert steps(client, fold_of(client, trial), "val/dice") == [1]


def test_a_batch_that_failed_is_written_later_and_once(client, trial, monkeypatch):
    record = Recorder(trial, CONFIG, FOLDS)
    record(epoch(1))
    original = MlflowClient.log_batch

    def unanswered(*args, **kwargs):
        original(*args, **kwargs)
        raise MlflowException("no answer")

    monkeypatch.setattr(MlflowClient, "log_batch", unanswered)
    with pytest.raises(MlflowException, match="no answer"):
        record.flush()
    monkeypatch.undo()
    record(epoch(2))
    record.flush()
    assert steps(client, fold_of(client, trial), "val/dice") == [1, 2]


def test_brief_curves_are_losses_dice_and_the_metric(client, trial):
    record = Recorder(trial, CONFIG, FOLDS, "brief", "val/boundary")
    everything = {"train/dice": 0.1, "val/loss": 1.0, "val/iou": 0.1, "val/boundary": 0.2}
    record(epoch(1, **everything))
    record.flush()
    kept = {"train/loss", "val/loss", "train/dice", "val/dice", "val/boundary"}
    assert set(fold_of(client, trial).data.metrics) == kept


@given(st.lists(st.integers(0, 400), max_size=40))
@settings(max_examples=30, deadline=None)
def test_a_batch_holds_whole_steps_and_no_more_than_mlflow_takes(sizes):
    made = [
        as_metrics({f"m{number}": 0.0 for number in range(size)}, step) for step, size in enumerate(sizes)
    ]
    found = batches(made)
    assert [metric for batch in found for metric in batch] == [
        metric for metrics in made for metric in metrics
    ]
    assert all(len(batch) <= 998 for batch in found)  # and two tags
    homes = [
        {number for number, batch in enumerate(found) if metrics[0] in batch} for metrics in made if metrics
    ]
    assert all(len(home) == 1 for home in homes)


def test_a_finished_fold_is_left_alone_but_enters_the_summary(client, trial):
    Recorder(trial, CONFIG, FOLDS)(Progress(0, 3, {}, (), result(0, 0.6)))
    before = fold_of(client, trial).to_dictionary()
    record = Recorder(trial, CONFIG, FOLDS)
    for event in (epoch(1), Progress(0, 3, {}, (), result(0, 0.6)), Progress(1, 3, {}, (), result(1, 0.8))):
        record(event)
    assert fold_of(client, trial).to_dictionary() == before
    run = client.get_run(trial.run_id)
    assert run.data.metrics["cv/dice_mean"] == pytest.approx(0.7)
    assert steps(client, run, "cv/dice_mean") == [1, 2]


@pytest.mark.parametrize("state", get_args(State))
def test_a_fold_that_ended_in_any_outcome_of_training_is_not_reopened(client, trial, state):
    for _ in range(2):
        Recorder(trial, CONFIG, FOLDS)(Progress(0, 3, {}, (), result(0, 0.6, state)))
    run = fold_of(client, trial)
    assert (run.data.tags[tree.STATE], run.info.status) == (state, tree.STATUS[state])
    assert steps(client, run, "best_epoch") == [0]


def test_a_fold_that_was_stopped_goes_on_with_the_epochs_it_lacks(client, trial):
    record = Recorder(trial, CONFIG, FOLDS)
    for number in (1, 2):
        record(epoch(number))
    record.flush()
    tree.end_children(client, trial.experiment_id, trial.run_id, "interrupted", "the study stopped")
    record = Recorder(trial, CONFIG, FOLDS)
    for number in (1, 2, 3):
        record(epoch(number))
    assert fold_of(client, trial).info.status == "RUNNING"
    record.flush()
    assert steps(client, fold_of(client, trial), "val/dice") == [1, 2, 3]


def test_pictures_lie_where_and_are_named_as_those_of_mlflow(client, trial):
    image = np.zeros((16, 16, 1), np.float32)
    sample = Sample("well 1/cell", image, np.zeros((16, 16), np.uint8), image)
    Recorder(trial, CONFIG, FOLDS)(Progress(0, 4, {"val/dice": 0.1}, (sample,)))
    ours = fold_of(client, trial)
    theirs = client.create_run(trial.experiment_id)
    client.log_image(theirs.info.run_id, panels(sample, 0.5), key="validation/well 1_cell", step=4)
    theirs = client.get_run(theirs.info.run_id)
    assert pictures(ours) == pictures(theirs)
    preview, picture = sorted(Path(ours.info.artifact_uri).rglob("*.*"), key=lambda path: path.stat().st_size)
    with Image.open(picture) as large, Image.open(preview) as small:
        assert np.array_equal(np.asarray(large), panels(sample, 0.5))
        assert max(small.size) == fold_run.PREVIEW
    (tag,) = (name for name in theirs.data.tags if "Images" in name)
    assert ours.data.tags[tag] == theirs.data.tags[tag]


def pictures(run: Run) -> list[str]:
    """Return the names of a run's pictures; of time and random number only the form."""
    found = sorted(path.name for path in Path(run.info.artifact_uri, "images").iterdir())
    number = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return [re.sub(number, "NUMBER", re.sub(r"\d{13}", "TIME", name)) for name in found]
