"""What is measured once, of a network that answers its own input: every value is known."""

from pathlib import Path

import keras
import numpy as np
import pytest

from microseg import metrics
from microseg.config import Component, TrialConfig
from microseg.data.manifest import Manifest
from microseg.data.pairs import Pair
from microseg.training import TrainingData, measurement
from microseg.training.measurement import measure

CONFIG = TrialConfig(model=Component(name="unet"), tile=16, overlap=0.0)


def echo(maps):
    """A network whose probabilities are the channels of its image."""
    image = keras.Input((None, None, maps))
    return keras.Model(image, keras.layers.Activation("linear")(image))


def known(classes=("cell",)):
    kind = "binary" if len(classes) == 1 else "classes"
    manifest = Manifest(name="s", source="s", items=(), classes=classes, channels=1, mask_kind=kind)
    return TrainingData(manifest, Path())


def noisy(seed, size=16):
    """A disc, and probabilities that rank most of its pixels above the others."""
    rng = np.random.default_rng(seed)
    mask = (np.hypot(*(np.mgrid[:size, :size] - size / 2)) < 5).astype(np.uint8)
    chance = np.clip(rng.normal(0.4 + 0.2 * mask, 0.15), 0, 1).astype(np.float32)
    return Pair(str(seed), chance[..., None], mask)


@pytest.mark.parametrize(("most", "step"), [(2**20, 1), (100, 6)])
def test_auc_ranks_every_pixel_or_of_many_every_nth(monkeypatch, most, step):
    monkeypatch.setattr(measurement, "RANKED", most)
    pairs = [noisy(0), noisy(1)]
    found = measure(echo(1), pairs, CONFIG, known()).metrics
    masks = [pair.mask.reshape(-1, 1)[::step] for pair in pairs]
    maps = [pair.image.reshape(-1, 1, 1)[::step] for pair in pairs]
    assert found["val/auc"] == pytest.approx(metrics.roc_auc(masks, maps), abs=1e-6)
    assert 0.6 < found["val/auc"] < 1.0


def test_of_a_prediction_only_what_is_needed_stays_in_memory():
    pair = Pair("a", np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8))
    kept = measurement._see(echo(3), pair, CONFIG, 4, False)
    assert kept.ranked.base is None or kept.ranked.base.nbytes == kept.ranked.nbytes  # no view of the map
    assert kept.ranked.shape == (16, 1, 3)
    assert (kept.classes.dtype, kept.objects) == (np.uint8, None)


def test_classes_are_named_as_mlflow_takes_them_and_the_background_is_none():
    mask = np.zeros((16, 16), np.uint8)
    mask[:8, :8], mask[8:, 8:] = 1, 2
    maps = np.eye(3, dtype=np.float32)[mask]
    maps[:4, :8] = [1, 0, 0]  # half of class 1 is missed
    classes = ("background", "axon [thin]", "soma")
    found, calibration = measure(echo(3), [Pair("a", maps, mask)], CONFIG, known(classes))
    assert calibration.threshold is None  # the likeliest class is taken
    assert found["val/iou/axon _thin_"] == 0.5
    assert found["val/iou/soma"] == 1.0
    assert found["val/mean_iou"] == 0.75
    assert found["val/pooled_recall"] == 0.75
    assert "val/iou/background" not in found and "val/ap" not in found


def test_the_calibration_is_that_of_all_images_together():
    pairs = [noisy(0), noisy(1)]
    found = measure(echo(1), pairs, CONFIG, known()).calibration
    assert sum(found.pixels) == 2 * 16 * 16
    assert sum(found.foreground) == sum(int(pair.mask.sum()) for pair in pairs)
    assert sum(found.pixels[50:]) == sum(int((pair.image >= CONFIG.threshold).sum()) for pair in pairs)
    assert found.threshold == CONFIG.threshold
