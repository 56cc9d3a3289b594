"""Training once more on all images: as the folds were trained, up to the epoch that was asked for."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from microseg.config import TrialConfig
from microseg.data.images import write_image
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.training import TrainingData, retrain, retraining, train_fold
from microseg.training.network import Networks

NAMES = ("a0", "a1", "a2", "a3")
FOLD = Fold(index=1, train=NAMES[:3], valid=NAMES[3:])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four noisy images of a bright disc."""
    folder, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    mask = (np.hypot(*(np.mgrid[:32, :36] - 16)) < 10).astype(np.uint8)
    for name in NAMES:
        image = rng.normal(60 + 120 * mask, 12).clip(0, 255).astype(np.uint8)
        write_image(folder / "images" / f"{name}.png", image)
        write_image(folder / "masks" / f"{name}.png", mask)
    return TrainingData(open_dataset(folder, DataOptions(), folder / "cache"), folder / "cache")


def config(rate=0.01, **changes):
    values = {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "optimizer": {"name": "adam", "params": {"learning_rate": rate}},
        "schedule": {"name": "cosine"},
        "tile": 16, "batch_size": 4, "epochs": 5, "steps_per_epoch": 3, "patience": 1, "precision": "float32",
    }  # fmt: skip
    return TrialConfig.model_validate(values | changes)


def weights(file):
    return keras.saving.load_model(file, compile=False).get_weights()


@pytest.mark.slow
def test_on_the_images_of_a_fold_it_is_the_network_of_that_fold(data, tmp_path):
    """Only what validation decides is left out: images, order, learning rates and seeds are the same."""
    result = train_fold(config(), data, FOLD, tmp_path, lambda progress: None)
    same = FOLD.model_copy(update={"valid": ()})
    file = retrain(config(), data, same, result.best_epoch, tmp_path)
    for one, other in zip(weights(file), weights(result.model), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_exactly_this_training_is_not_repeated(data, tmp_path, monkeypatch):
    trained = []

    def train(config, data, fold, epochs, path):
        trained.append(epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    monkeypatch.setattr(retraining, "_train", train)
    everything = Fold(index=2, train=NAMES, valid=())
    asked = [
        (config(), everything, 3),
        (config(), everything, 4),
        (config(rate=0.02), everything, 4),
        (config(), FOLD, 4),
    ]
    files = [retrain(one, data, fold, epochs, tmp_path) for one, fold, epochs in asked]
    assert [retrain(one, data, fold, epochs, tmp_path) for one, fold, epochs in asked] == files
    assert trained == [3, 4, 4, 4] and len(set(files)) == 4


@pytest.fixture
def dot(monkeypatch):
    """Train one pixel's weight in place of a network, which is compiled in no time; return its loss, to be set."""
    loss = {"factor": 1.0}

    def networks(*_):
        inputs = keras.Input((None, None, 1))
        model = keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(inputs))
        model.compile("sgd", lambda truth, predicted: keras.ops.mean(predicted) * loss["factor"])
        return Networks(model, model)

    monkeypatch.setattr(retraining, "build_networks", networks)
    return loss


def test_the_network_can_be_loaded_and_nothing_else_is_left(data, dot, tmp_path):
    file = retrain(config(), data, Fold(index=2, train=NAMES, valid=()), 2, tmp_path)
    assert keras.saving.load_model(file, safe_mode=True)(np.zeros((1, 8, 8, 1), np.float32)).shape == (
        1,
        8,
        8,
        1,
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_loss_that_is_no_number_is_refused_and_leaves_nothing(data, dot, tmp_path):
    dot["factor"] = np.nan
    with pytest.raises(MicrosegError, match=r"on all 4 images diverged in 2 epochs.*candidate: ensemble"):
        retrain(config(), data, Fold(index=2, train=NAMES, valid=()), 2, tmp_path)
    assert not list(tmp_path.rglob("*.keras"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("monitor", "scores", "kept"),
    [
        ("val/dice", (0.9, 0.5), 5),
        ("val/dice", (0.5, 0.9), 6),
        ("val/loss", (0.9, 0.5), 6),
        ("val/dice", (np.nan, 0.5), 6),
    ],
)
def test_an_unsteady_last_epoch_is_passed_over(data, dot, monkeypatch, tmp_path, monitor, scores, kept):
    """Of 6 epochs the last third is looked at, 5 and 6."""

    def trained(epochs, scores):
        left = iter(scores)
        monkeypatch.setattr(
            retraining, "evaluate_images", lambda *_: SimpleNamespace(metrics={monitor: next(left)})
        )
        asked = config(epochs=8, monitor=monitor)
        file = retrain(asked, data, Fold(index=2, train=NAMES, valid=()), epochs, tmp_path / f"{epochs}")
        assert not list(left)
        return weights(file)[0].item()

    fifth = trained(5, [0.1])
    assert (trained(6, scores) == pytest.approx(fifth, rel=1e-4)) == (kept == 5)
