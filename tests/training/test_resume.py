"""A training that was interrupted ends as the one that was not: bit for bit, in all that it keeps."""

import os
import signal
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
from microseg.folds import Fold
from microseg.losses import LOSSES
from microseg.models import ARCHITECTURES, STRIDES
from microseg.training import TrainingData, finished_fold, run_trial, train_fold
from microseg.training.checkpoint import COURSE, FOLDER

NAMES = ("a0", "a1", "a2", "a3")
FOLD = Fold(index=1, train=NAMES[:2], valid=NAMES[2:])
HERE_AND_NOW = ("seconds", "cpu_seconds", "peak_memory_mib", "gpu_memory_mib", "model", "metrics")


def small(channels, classes, *, freeze: int | bool = False, heads: int = 0):
    """A network of all that has state: dropout, batch normalisation, a frozen encoder, supervised heads."""
    layers, image = keras.layers, keras.Input((None, None, channels))
    inner = keras.Input((None, None, channels))
    encoder = keras.Model(inner, layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(inner)))
    encoder.trainable = not freeze
    x = layers.Dropout(0.3)(layers.Activation("relu")(encoder(image)))
    maps = [layers.Conv2D(classes, 1, activation="sigmoid", dtype="float32")(x) for _ in range(max(heads, 1))]
    return keras.Model(image, [layers.Average()(maps), *maps] if heads else maps)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for name in NAMES:
        mask = (np.hypot(*(np.mgrid[:20, :24] - 11)) < 6).astype(np.uint8)
        image = rng.normal(60 + 120 * mask, 25).clip(0, 255).astype(np.uint8)
        write_image(folder / "images" / f"{name}.png", image[..., None])
        write_image(folder / "masks" / f"{name}.png", mask)
    return TrainingData(open_dataset(folder, DataOptions(), folder / "cache"), folder / "cache")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "small", small)
    monkeypatch.setitem(STRIDES, "small", lambda params: 1)


def config(model="small", params=None, **changes):
    values = {
        "model": Component(name=model, params=params or {}),
        "optimizer": Component(name="adam", params={"learning_rate": 0.03}),
        "tile": 16,
        "batch_size": 2,
        "epochs": 4,
        "precision": "float32",
    }
    return TrialConfig.model_validate(values | changes)


class Interruption(Exception):  # noqa: N818 - not an error: what a tuner raises to stop a trial
    pass


def train(config, data, workdir, until=None):
    """Train until an epoch is reported for the first time, or to the end; return what was reported."""
    events = []

    def report(progress):
        events.append(progress)
        if progress.epoch == until and not progress.replayed and progress.result is None:
            raise Interruption

    if until is None:
        return train_fold(config, data, FOLD, workdir, report), events
    with pytest.raises(Interruption):
        train_fold(config, data, FOLD, workdir, report)
    return None, events


def assert_equal(result, whole):
    """Compare two results in all but what is measured in time and memory."""
    kept, expected = (one.model_dump(exclude=set(HERE_AND_NOW)) for one in (result, whole))
    assert repr(kept) == repr(expected)  # a NaN equals itself, and no digit is lost
    speed = {"val/inference_seconds"}
    assert result.metrics.keys() == whole.metrics.keys()
    assert all(result.metrics[name] == whole.metrics[name] for name in whole.metrics.keys() - speed)
    weights = [keras.saving.load_model(one.model).get_weights() for one in (result, whole)]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


CASES = {
    "dropout, heads, an encoder that trains along later, warm-up and cosine": (
        config(
            params={"heads": 2, "freeze": 2},
            schedule=Component(name="cosine", params={"warmup": 1}),
            foreground=0.5,
        ),
        (1, 3),
    ),
    "plateau and patience, until nothing is left to train": (
        config(
            threshold=0.99999,  # collapsed: no epoch is better than the first
            optimizer=Component(name="adamw", params={"clipnorm": 1.0, "learning_rate": 0.01}),
            schedule=Component(name="plateau", params={"patience": 2}),
            epochs=9,
            patience=5,
            steps_per_epoch=1,
        ),
        (6,),
    ),
    "bfloat16, a plateau in parts": (
        config(
            threshold=0.99999,
            schedule=Component(name="plateau", params={"patience": 2}),
            precision="bfloat16",
            patience=4,
            epochs=6,
        ),
        (1, 2, 4),
    ),
    "float16 with its scale of the loss, steps, batches in parts, momentum": (
        config(
            params={"freeze": 1},
            optimizer=Component(name="sgd", params={"learning_rate": 0.1}),
            schedule=Component(name="step", params={"at": [1, 3], "factor": 0.5}),
            augment=Component(name="elastic"),
            precision="float16",
            accumulation=2,
            steps_per_epoch=3,
        ),
        (1, 2, 3),
    ),
}
QUICK = 1


def rows():
    """Return the first case as it is, the others for whoever has a minute."""
    return [pytest.param(case, marks=[pytest.mark.slow] * (n >= QUICK)) for n, case in enumerate(CASES)]


@pytest.mark.parametrize("case", rows())
def test_interrupted_trainings_end_as_the_whole_one(data, tmp_path, case):
    config, interruptions = CASES[case]
    whole, reported = train(config, data, tmp_path / "whole")
    before = 0
    for until in interruptions:
        _, events = train(config, data, tmp_path / "parts", until)
        assert [event.epoch for event in events] == list(range(1, until + 1))
        assert [event.replayed for event in events] == [True] * before + [False] * (until - before)
        before = until
    result, events = train(config, data, tmp_path / "parts")
    assert_equal(result, whole)
    assert [(event.epoch, event.metrics) for event in events[:-1]] == [
        (event.epoch, event.metrics) for event in reported[:-1]
    ]
    replayed = [event for event in events if event.replayed]
    assert len(replayed) == before and not any(event.samples for event in replayed)
    left = sorted(path.name for path in (tmp_path / "parts").rglob("*") if path.is_file())
    assert left == ["model.keras", "result.json"]


@pytest.mark.slow
def test_the_rate_falls_twice_before_patience_ends_it(data, tmp_path):
    """Else the case of the plateau would show nothing."""
    config, _ = CASES["plateau and patience, until nothing is left to train"]
    result, _ = train(config, data, tmp_path)
    rates = [epoch["train/learning_rate"] for epoch in result.history]
    assert (result.state, result.best_epoch, result.epochs) == ("collapsed", 1, 6)
    assert np.allclose(rates, [0.01, 0.01, 0.01, 0.001, 0.001, 0.0001])


@pytest.mark.slow
def test_a_torn_or_foreign_checkpoint_means_from_the_start(data, tmp_path):
    short = config(epochs=2)
    whole, _ = train(short, data, tmp_path / "whole")
    train(short, data, tmp_path / "parts", until=1)
    (tmp_path / "parts" / "fold-1" / FOLDER / COURSE).write_bytes(b'{"identity": "')
    _, events = train(short.model_copy(update={"accumulation": 2}), data, tmp_path / "parts", until=1)
    assert [event.replayed for event in events] == [False]
    result, events = train(short, data, tmp_path / "parts")
    assert [event.replayed for event in events] == [False] * 3
    assert_equal(result, whole)


@pytest.mark.slow
def test_seconds_are_those_of_all_parts(data, tmp_path):
    train(config(), data, tmp_path, until=1)
    course = tmp_path / "fold-1" / FOLDER / COURSE
    text = course.read_text()
    spent = text[text.index('"seconds":') :].split(",")[0]
    worked = text[text.index('"cpu_seconds":') :].split(",")[0]
    course.write_text(text.replace(spent, '"seconds":5000.0').replace(worked, '"cpu_seconds":7000.0'))
    result, _ = train(config(), data, tmp_path)
    assert 5000 < result.seconds < 9000 and 7000 < result.cpu_seconds < 9000


@pytest.mark.slow
def test_a_diverged_loss_is_not_trained_further(data, tmp_path, monkeypatch):
    def no_number(y_true, y_pred):
        return keras.ops.sqrt(0.0 * keras.ops.sum(y_pred) - 1.0)

    monkeypatch.setitem(LOSSES, "bce", no_number)
    hopeless = config(loss=Component(name="bce"), monitor="val/loss")
    train(hopeless, data, tmp_path, until=1)
    result, events = train(hopeless, data, tmp_path)
    assert [event.replayed for event in events] == [True, False]
    assert (result.state, result.epochs) == ("diverged", 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from microseg.config import TrialConfig
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.folds import Fold
from microseg.training import TrainingData, train_fold

source, work, config, fold, epoch = sys.argv[1:]
cache = Path(source) / "cache"
data = TrainingData(open_dataset(Path(source), DataOptions(), cache), cache)

def report(progress):
    if progress.epoch == int(epoch):
        os.kill(os.getpid(), signal.SIGKILL)

config, fold = TrialConfig.model_validate_json(config), Fold.model_validate_json(fold)
train_fold(config, data, fold, Path(work), report)
"""


def killed(config, data, workdir, epoch):
    """Train in a process that is killed when it reports an epoch."""
    arguments = [str(data.cache.parent), str(workdir), config.model_dump_json(), FOLD.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "platform")}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments, str(epoch)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
def test_another_process_goes_on_after_a_kill(data, tmp_path):
    unet = config("unet", {"depth": 2, "filters": 2, "dropout": 0.2})
    killed(unet, data, tmp_path / "parts", 2)
    whole, _ = train(unet, data, tmp_path / "whole")
    result, events = train(unet, data, tmp_path / "parts")
    assert [event.replayed for event in events] == [True] * 2 + [False] * 3
    assert_equal(result, whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("unet_plus_plus", {"depth": 3, "filters": 4, "deep_supervision": True, "dropout": 0.2}),
        (
            "encoder_unet",
            {"encoder": "mobilenet_v3_small", "depth": 2, "freeze": 1, "filters": 2, "dropout": 0.2},
        ),
        ("swin_unet", {"depth": 2, "filters": 8, "patch": 2, "heads": 2}),
    ],
)
def test_networks_of_every_kind_go_on_after_a_kill(data, tmp_path, model, params):
    network = config(model, params, tile=32, epochs=3)
    killed(network, data, tmp_path / "parts", 2)
    whole, _ = train(network, data, tmp_path / "whole")
    assert_equal(train(network, data, tmp_path / "parts")[0], whole)


@pytest.mark.slow
def test_a_trial_that_was_interrupted_in_its_second_fold_tells_all_again(data, tmp_path):
    folds = [Fold(index=0, train=NAMES[2:], valid=NAMES[:2]), FOLD]
    short = config(epochs=2, steps_per_epoch=30)  # enough to see an object in both folds

    def stop(progress):
        if progress.fold == 1 and progress.result is None:
            raise Interruption

    with pytest.raises(Interruption):
        run_trial(short, data, folds, tmp_path, stop)
    events = []
    results = run_trial(short, data, folds, tmp_path, events.append)
    told = [(event.fold, event.epoch, event.result is not None, event.replayed) for event in events]
    assert told == [
        (0, 1, False, True),
        (0, 2, False, True),
        (0, results[0].best_epoch, True, True),
        (1, 1, False, True),
        (1, 2, False, False),
        (1, results[1].best_epoch, True, False),
    ]
    assert results == tuple(finished_fold(short, data, fold, tmp_path) for fold in folds)
    assert not list(tmp_path.rglob(FOLDER))
