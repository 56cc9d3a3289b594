"""Training of folds and trials on tiny images: reports, best weights, states, resuming, determinism."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from microseg.config import Component, TrialConfig
from microseg.data.images import write_image
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.data.pairs import load_pairs
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.losses import LOSSES
from microseg.metrics import METRICS, Counts
from microseg.training import (
    FoldResult,
    TrainingData,
    callbacks,
    finished_fold,
    fold,
    run_trial,
    train_fold,
)
from microseg.training.results import fingerprint
from microseg.training.validation import evaluate_images, is_collapsed, shown

SIDES = [(40, 33), (32, 48), (20, 40), (36, 36), (45, 31)]
NAMES = ("a0", "a1", "a2", "a3", "a4")
PIXELS = {"loss", *METRICS}


def write_set(folder, classes=False):
    """Write noisy images with one bright disc each; as classes, its centre is a class of its own."""
    rng = np.random.default_rng(0)
    for name, (height, width) in zip(NAMES, SIDES, strict=True):
        rows, columns = np.mgrid[:height, :width]
        distance = np.hypot(rows - height / 2, columns - width / 2)
        mask = (distance < 10).astype(np.uint8)
        image = rng.normal(60 + 120 * mask, 12).clip(0, 255).astype(np.uint8)
        if classes:
            mask[distance < 4] = 2
            mask[:2] = 255
        write_image(folder / "images" / f"{name}.png", image[..., None])
        write_image(folder / "masks" / f"{name}.png", mask)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_set(folder)
    return TrainingData(open_dataset(folder, DataOptions(), folder / "cache"), folder / "cache")


FOLD = Fold(index=1, train=NAMES[:3], valid=NAMES[3:])


def config(**changes):
    values = {
        "model": Component(name="unet", params={"depth": 2, "filters": 4, "normalisation": "none"}),
        "optimizer": Component(name="adam", params={"learning_rate": 0.01}),
        "tile": 16,
        "batch_size": 4,
        "epochs": 5,
        "precision": "float32",
    }
    return TrialConfig.model_validate(values | changes)


# Its moving averages are state that is no trainable weight.
WITH_BATCH = config(model=Component(name="unet", params={"depth": 2, "filters": 4}))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Train once for the tests that only look."""
    events, workdir = [], tmp_path_factory.mktemp("work")
    result = train_fold(WITH_BATCH, data, FOLD, workdir, events.append)
    return result, events, workdir


def test_every_epoch_is_reported_once_and_then_the_result(trained):
    result, events, _ = trained
    assert [event.epoch for event in events] == [1, 2, 3, 4, 5, result.best_epoch]
    assert [event.result for event in events] == [None] * 5 + [result]
    assert {event.fold for event in events} == {1}
    every = {f"{part}/{name}" for part in ("train", "val") for name in PIXELS} | {"train/learning_rate"}
    once = {"auc", "boundary_f1", "hausdorff95", "inference_seconds", *(f"pooled_{name}" for name in METRICS)}
    for event in events:
        assert event.metrics.keys() == (every | {f"val/{name}" for name in once} if event.result else every)
        assert all(isinstance(value, float) for value in event.metrics.values())
    assert result.history == [event.metrics for event in events[:-1]]
    assert (result.epochs, result.state) == (5, "completed")


def test_the_training_step_is_traced_once_and_does_the_same(data, tmp_path, monkeypatch):
    """One that makes the optimizer's variables is traced twice."""
    step, traced, histories = keras.Model.train_step, [], []

    def traced_step(model, batch):
        traced[-1] += 1
        return step(model, batch)

    monkeypatch.setattr(keras.Model, "train_step", traced_step)
    for name in ("before", "within"):
        traced.append(0)
        result = train_fold(config(epochs=2), data, FOLD, tmp_path / name, lambda event: None)
        histories.append([epoch["train/loss"] for epoch in result.history])
        monkeypatch.setattr(fold, "build_optimizer", lambda compiled: None)
    assert traced == [1, 2]
    assert histories[0] == pytest.approx(histories[1], abs=1e-5)


def test_it_learns_and_counts_what_it_cost(trained):
    result, _, _ = trained
    assert result.metrics["train/loss"] <= result.history[0]["train/loss"]
    assert result.metrics["val/dice"] > 0.6
    assert result.seconds > 0 and result.cpu_seconds > 0 and result.peak_memory_mib > 50
    assert result.metrics["val/inference_seconds"] > 0


def test_samples_come_at_powers_of_two_at_the_last_epoch_and_with_the_result(trained):
    _, events, _ = trained
    assert [bool(event.samples) for event in events] == [True, True, False, True, True, True]
    for event in (event for event in events if event.samples):
        assert [sample.name for sample in event.samples] == ["a3", "a4"]
        for sample in event.samples:
            assert sample.image.dtype == sample.probability.dtype == np.float32
            assert sample.truth.dtype == np.uint8
            assert sample.probability.shape == (*sample.truth.shape, 1) == sample.image.shape
            assert sample.whole.shape == sample.image.shape and sample.whole.dtype == np.float32


def test_per_image_dice_averages_to_the_metric(trained):
    result, _, _ = trained
    assert result.per_image.keys() == set(FOLD.valid)
    assert np.mean(list(result.per_image.values())) == pytest.approx(result.metrics["val/dice"], abs=1e-6)


def test_saved_model_is_the_best_epoch_for_inference_only(trained, data):
    result, _, workdir = trained
    values = [epoch["val/dice"] for epoch in result.history]
    assert result.best_epoch == 1 + int(np.argmax(values))
    assert result.model == workdir / "fold-1" / "model.keras"
    model = keras.saving.load_model(result.model, safe_mode=True)
    assert not model.compiled
    assert model.count_params() == result.parameters
    pairs = load_pairs(FOLD.valid, data.manifest, data.cache, config().preprocess)
    again = evaluate_images(model, pairs, config(), LOSSES["bce_dice"])
    assert again.metrics["val/dice"] == pytest.approx(max(values), abs=1e-6)
    assert again.metrics["val/loss"] == pytest.approx(result.metrics["val/loss"], abs=1e-5)


def test_nothing_but_the_model_and_the_result_is_left(trained):
    result, _, workdir = trained
    files = sorted(path.name for path in workdir.rglob("*") if path.is_file())
    assert files == ["model.keras", "result.json"]
    assert json.loads((workdir / "fold-1" / "result.json").read_text())["best_epoch"] == result.best_epoch


def test_patience_ends_a_decline_and_the_best_weights_return(data, tmp_path, monkeypatch):
    weights = []

    def scripted(model, *arguments):
        evaluation = evaluate_images(model, *arguments)
        weights.append([value.copy() for value in model.get_weights()])
        return evaluation._replace(
            metrics=evaluation.metrics | {"val/dice": [0.2, 0.6, 0.5, 0.6, 0.4][len(weights) - 1]}
        )

    monkeypatch.setattr(callbacks, "evaluate_images", scripted)
    result = train_fold(config(epochs=9, patience=3), data, FOLD, tmp_path, lambda _: None)
    assert (result.best_epoch, result.epochs, result.metrics["val/dice"]) == (2, 5, 0.6)
    saved = keras.saving.load_model(result.model).get_weights()
    assert all(np.array_equal(x, y) for x, y in zip(saved, weights[1], strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(saved, weights[-1], strict=True))


def test_a_network_that_enlarges_bilinearly_shows_images_of_several_sizes(data, tmp_path):
    """A trap of Keras 3.15: `UpSampling2D` has no bilinear form for a size that is not known."""
    gated = {"depth": 2, "filters": 4, "normalisation": "none", "attention": True}
    events = []
    train_fold(
        config(model=Component(name="unet", params=gated), epochs=1), data, FOLD, tmp_path, events.append
    )
    assert [sample.whole.shape for sample in events[-1].samples] == [(36, 36, 1), (45, 31, 1)]


def test_stop_from_the_report_passes_and_leaves_nothing_finished(data, tmp_path):
    def stop(progress):
        if progress.epoch == 2:
            raise SystemExit(0)

    with pytest.raises(SystemExit):
        train_fold(config(), data, FOLD, tmp_path, stop)
    assert not list(tmp_path.rglob("result.json"))
    assert finished_fold(config(), data, FOLD, tmp_path) is None


def test_nan_is_a_state_that_survives_the_file(data, tmp_path, monkeypatch):
    def nan_from_the_second_epoch(y_true, y_pred):
        return LOSSES["dice"](y_true, y_pred) + keras.ops.sqrt(0.0 * keras.ops.sum(y_pred) - 1.0)

    monkeypatch.setitem(LOSSES, "bce", nan_from_the_second_epoch)
    result = train_fold(config(loss=Component(name="bce")), data, FOLD, tmp_path, lambda _: None)
    assert (result.state, result.epochs) == ("diverged", 1)
    assert np.isnan(result.metrics["train/loss"])
    stored = finished_fold(config(loss=Component(name="bce")), data, FOLD, tmp_path)
    assert stored.state == "diverged" and np.isnan(stored.metrics["train/loss"])


def test_all_background_is_a_state(data, tmp_path):
    result = train_fold(config(threshold=0.99999, epochs=1), data, FOLD, tmp_path, lambda _: None)
    assert result.state == "collapsed"
    assert result.metrics["val/dice"] == 0.0


def counts(tp, fp, fn, tn):
    return Counts(*(np.array(member, float) for member in (tp, fp, fn, tn)))


def test_collapse_is_one_class_everywhere_although_the_truth_has_several():
    assert is_collapsed(counts([[0], [0]], [[0], [0]], [[4], [0]], [[5], [9]]))  # all background
    assert is_collapsed(counts([[4], [1]], [[5], [8]], [[0], [0]], [[0], [0]]))  # all foreground
    assert not is_collapsed(counts([[0], [1]], [[0], [0]], [[4], [0]], [[5], [8]]))
    assert not is_collapsed(counts([[0]], [[0]], [[0]], [[9]]))  # truly empty
    assert is_collapsed(counts([[3, 0]], [[6, 0]], [[0, 3]], [[0, 6]]))  # one foreground class of two
    assert not is_collapsed(counts([[3, 3]], [[3, 0]], [[0, 0]], [[3, 6]]))


def test_finished_folds_are_not_trained_again(data, trained, tmp_path):
    shutil.copytree(trained[2], tmp_path / "moved")
    folds = [FOLD, Fold(index=2, train=NAMES[2:], valid=NAMES[:2])]
    events = []
    both = run_trial(WITH_BATCH, data, folds, tmp_path / "moved", events.append)
    moved = {"model": tmp_path / "moved" / "fold-1" / "model.keras"}
    assert both[0] == trained[0].model_copy(update=moved)
    assert [(event.fold, event.result is None, event.replayed) for event in events] == [
        *[(1, True, True)] * 5,
        (1, False, True),
        *[(2, True, False)] * 5,
        (2, False, False),
    ]
    assert [event.metrics for event in events[:5]] == trained[0].history
    assert not any(event.samples for event in events[:6])
    assert finished_fold(WITH_BATCH, data, folds[1], tmp_path / "moved") == both[1]


def test_result_of_something_else_or_half_a_result_does_not_count(data, trained, tmp_path):
    result, _, workdir = trained
    assert finished_fold(WITH_BATCH, data, FOLD, workdir) == result
    assert finished_fold(WITH_BATCH.model_copy(update={"seed": 1}), data, FOLD, workdir) is None
    assert finished_fold(WITH_BATCH, data, FOLD.model_copy(update={"train": NAMES[:2]}), workdir) is None
    assert finished_fold(WITH_BATCH, data, FOLD, tmp_path) is None
    half = tmp_path / "fold-1"
    half.mkdir()
    text = (workdir / "fold-1" / "result.json").read_text()
    (half / "result.json").write_text(text)
    assert finished_fold(WITH_BATCH, data, FOLD, tmp_path) is None  # no model beside it
    (half / "model.keras").touch()
    (half / "result.json").write_text(text[:100])
    assert finished_fold(WITH_BATCH, data, FOLD, tmp_path) is None


def test_a_fold_that_was_finished_with_whole_batches_counts_for_batches_in_parts(data):
    known = [fingerprint(config(accumulation=parts), data, FOLD) for parts in (1, 2)]
    assert known[0] == known[1] != fingerprint(config(batch_size=8), data, FOLD)


@pytest.mark.slow  # test_network.py compares the steps themselves
def test_batches_in_parts_train_as_whole_ones_do(data, tmp_path):
    """On the same patches; a fold that was finished with the one counts for the other."""
    plain = config(epochs=2, loss=Component(name="bce"))
    parts = plain.model_copy(update={"accumulation": 2})
    results = [
        train_fold(one, data, FOLD, tmp_path / str(one.accumulation), lambda _: None)
        for one in (plain, parts)
    ]
    whole, accumulated = (keras.saving.load_model(one.model).get_weights() for one in results)
    for a, b in zip(whole, accumulated, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert results[1].history[0]["train/dice"] == pytest.approx(results[0].history[0]["train/dice"], abs=0.05)
    assert finished_fold(parts, data, FOLD, tmp_path / "1").best_epoch == results[0].best_epoch


def test_weights_to_start_from_are_known_by_their_content(data, tmp_path):
    file = tmp_path / "encoder.weights.h5"

    def known():
        return fingerprint(
            config(model=Component(name="encoder_unet", params={"weights": str(file)})), data, FOLD
        )

    absent = known()
    file.write_bytes(b"one")
    first = known()
    file.write_bytes(b"two")
    assert len({absent, first, known()}) == 3
    file.write_bytes(b"one")
    assert known() == first


def test_a_result_survives_its_file(trained):
    assert FoldResult.model_validate_json(trained[0].model_dump_json()) == trained[0]


def test_classes_with_ignored_pixels(tmp_path):
    write_set(tmp_path, classes=True)
    options = DataOptions(mask_kind="classes", classes=("background", "rim", "centre"))
    data = TrainingData(open_dataset(tmp_path, options, tmp_path / "cache"), tmp_path / "cache")
    events = []
    result = train_fold(config(epochs=2), data, FOLD, tmp_path / "work", events.append)
    assert keras.saving.load_model(result.model).output_shape == (None, None, None, 3)
    sample = events[-1].samples[0]
    assert sample.probability.shape == (*sample.truth.shape, 3)
    assert 255 in sample.truth
    assert np.all(np.isfinite(list(result.metrics.values())))


@pytest.mark.slow
def test_heads_borders_and_balanced_weights_train_together_on_instances(tmp_path):
    """What needs more than images, classes and one output: all of it in one training."""
    write_set(tmp_path)
    options = DataOptions(mask_kind="instance", pixel_size_um=0.5)
    data = TrainingData(open_dataset(tmp_path, options, tmp_path / "cache"), tmp_path / "cache")
    everything = config(
        model=Component(name="unet_plus_plus", params={"depth": 3, "filters": 4, "deep_supervision": True}),
        loss=Component(name="bce_border", params={"class_weights": "balanced"}),
        schedule=Component(name="plateau", params={"patience": 1}),
        monitor="val/loss",
        foreground=0.5,
    )
    result = train_fold(everything, data, FOLD, tmp_path / "work", lambda _: None)
    assert result.state == "completed"
    losses = [epoch["val/loss"] for epoch in result.history]
    assert result.best_epoch == 1 + int(np.argmin(losses)) and losses[-1] < losses[0]
    model = keras.saving.load_model(result.model)
    assert len(model.outputs) == 1 and model.count_params() == result.parameters
    assert 0.0 < result.metrics["val/ap50"] <= 1.0
    assert result.metrics["val/hausdorff95_um"] == 0.5 * result.metrics["val/hausdorff95"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_serves_float32(data, tmp_path, precision):
    result = train_fold(config(precision=precision, epochs=1), data, FOLD, tmp_path, lambda _: None)
    model = keras.saving.load_model(result.model)
    assert model.predict_on_batch(np.zeros((1, 16, 16, 1), np.float32)).dtype == np.float32
    assert np.isfinite(result.metrics["val/loss"])


def test_fold_without_validation_images_is_refused(data, tmp_path):
    with pytest.raises(MicrosegError, match="fold 0 needs images to train and to validate"):
        train_fold(config(), data, Fold(index=0, train=NAMES, valid=()), tmp_path, lambda _: None)


def test_shown_images_are_few_fixed_and_spread():
    assert shown(list("abcdefghi")) == ["a", "d", "g"]
    assert shown(["a"]) == ["a"]


DETERMINISM = """
import sys
from pathlib import Path
import keras, numpy as np
from microseg import runtime
from microseg.config import TrialConfig
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.folds import Fold
from microseg.training import TrainingData, train_fold

runtime.threads(1)
source, work, config, fold = sys.argv[1:]
cache = Path(source) / "cache"
data = TrainingData(open_dataset(Path(source), DataOptions(), cache), cache)
config, fold = TrialConfig.model_validate_json(config), Fold.model_validate_json(fold)
runs = [train_fold(config, data, fold, Path(work) / run, lambda _: None) for run in "ab"]
first, second = (keras.saving.load_model(run.model).get_weights() for run in runs)
assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
assert runs[0].history == runs[1].history
"""


@pytest.mark.slow
def test_two_trainings_on_one_thread_end_in_the_same_weights(data, tmp_path):
    elastic = WITH_BATCH.model_copy(update={"augment": Component(name="elastic"), "epochs": 2})
    folder = data.cache.parent
    arguments = [str(folder), str(tmp_path), elastic.model_dump_json(), FOLD.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "platform")}
    done = subprocess.run(
        [sys.executable, "-c", DETERMINISM, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
