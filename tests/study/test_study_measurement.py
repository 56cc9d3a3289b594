"""The tiling of a candidate is measured on a few images of its folds, as its networks see them."""

import keras
import numpy as np
import pytest

from microseg.config import TrialConfig
from microseg.data.open import DataOptions
from microseg.data.synthetic import write_demo
from microseg.study import Request, measurement, prepare, single

CONFIG = {"model": {"name": "unet", "params": {"depth": 2}}, "tile": 32, "preprocess": {"name": "scale"}}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    write_demo(tmp_path / "cells", images=8, sessions=4, size=64)
    search = single(CONFIG, "test").model_copy(update={"folds": 2})
    options = DataOptions(mask_kind="instance")
    return prepare(Request(name="s", data=tmp_path / "cells", options=options, config=search))


def blur(path, radius, sign):
    """A network that averages a square, saved."""
    image = keras.Input((None, None, 1))
    layer = keras.layers.Conv2D(1, 2 * radius + 1, padding="same", activation="sigmoid")
    network = keras.Model(image, layer(image))
    layer.set_weights([np.full((2 * radius + 1, 2 * radius + 1, 1, 1), sign * 0.1, np.float32), np.zeros(1)])
    network.save(path)
    return path


def test_the_halo_and_the_seams_are_those_of_the_networks(prepared, tmp_path):
    config = TrialConfig.model_validate(CONFIG)
    members = [blur(tmp_path / "a.keras", 3, 1), blur(tmp_path / "b.keras", 5, -1)]
    measured = measurement.measure_tiling(prepared, config, members)
    assert measured.halo == 5
    assert 0 <= measured.seam_mean <= measured.seam_worst < 1e-5
    measured = measurement.measure_tiling(prepared, config, [blur(tmp_path / "c.keras", 12, 1)])
    assert measured.halo == 8  # a quarter of the tile
    assert 1e-4 < measured.seam_mean < measured.seam_worst


def test_few_images_of_the_folds_are_looked_at_preprocessed(prepared, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(measurement, "measured_halo", lambda _, images, tile: seen.extend(images) or 4)
    measurement.measure_tiling(
        prepared, TrialConfig.model_validate(CONFIG), [blur(tmp_path / "a.keras", 1, 1)]
    )
    assert [image.shape for image in seen] == [(64, 64, 1)] * 4
    assert all(image.dtype == np.float32 and image.max() <= 1 for image in seen)


def test_of_a_network_that_takes_one_size_nothing_is_measured(prepared, tmp_path):
    image = keras.Input((32, 32, 1))
    keras.Model(image, keras.layers.Conv2D(1, 3, padding="same")(image)).save(tmp_path / "fixed.keras")
    config = TrialConfig.model_validate(CONFIG)
    assert measurement.measure_tiling(prepared, config, [tmp_path / "fixed.keras"]) is None
