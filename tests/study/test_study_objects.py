"""The objects of a study: every image is predicted by the network that did not train on it."""

import keras
import numpy as np
import pytest
from keras import layers

from microseg.config import Component, TrialConfig
from microseg.data.open import DataOptions
from microseg.data.synthetic import write_demo
from microseg.folds import Fold
from microseg.study import Request, objects, prepare, single

CONFIG = {"model": {"name": "unet", "params": {"depth": 2}}, "tile": 64}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("desk")
    patch = pytest.MonkeyPatch()
    patch.setenv("MICROSEG_HOME", str(folder / "home"))
    write_demo(folder / "cells", images=8, sessions=4, size=64)
    yield folder
    patch.undo()


def prepared(desk, kind):
    options = DataOptions(mask_kind=kind) if kind == "instance" else DataOptions(mask_kind=kind, threshold=1)
    search = single(CONFIG, "test").model_copy(update={"folds": 2})
    return prepare(Request(name="s", data=desk / "cells", options=options, config=search))


def constant(path, value):
    """A network that answers one probability everywhere, saved."""
    image = keras.Input((None, None, 1))
    bias = keras.initializers.Constant(np.log(value / (1 - value)))
    conv = layers.Conv2D(1, 1, activation="sigmoid", kernel_initializer="zeros", bias_initializer=bias)
    keras.Model(image, conv(image)).save(path)
    return path


def test_every_image_is_predicted_out_of_fold_and_compared_with_its_own_truth(desk, tmp_path, monkeypatch):
    data = prepared(desk, "instance")
    members = [constant(tmp_path / f"{index}.keras", value) for index, value in enumerate((0.25, 0.75))]
    seen = {}

    def capture(probabilities, truths, tried):
        seen["values"] = [float(np.round(map_.mean(), 3)) for map_ in probabilities]
        seen["objects"] = [int(truth.max()) for truth in truths]
        return tried[0], 0.5

    monkeypatch.setattr(objects, "search_instances", capture)
    found = objects.search_objects(data, TrialConfig.model_validate(CONFIG), members)
    assert found == (Component(name="components", params={"threshold": 0.5}), 0.5)
    first, second = (len(fold.valid) for fold in data.folds)
    assert seen["values"] == [0.25] * first + [0.75] * second
    assert all(seen["objects"])


def test_masks_that_tell_no_objects_apart_give_no_parameters_and_load_nothing(desk, tmp_path):
    none, ap = objects.search_objects(
        prepared(desk, "binary"), TrialConfig.model_validate(CONFIG), [tmp_path / "absent.keras"] * 2
    )
    assert none is None
    assert np.isnan(ap)


def test_of_many_pixels_evenly_spaced_images_of_all_folds_are_used(desk):
    manifest = prepared(desk, "instance").development
    names = [item.name for item in manifest.items]
    folds = [Fold(index=0, train=(), valid=tuple(names[:3])), Fold(index=1, train=(), valid=tuple(names[3:]))]
    every = objects._sampled(folds, manifest)
    assert every == [names[:3], names[3:]]
    half = objects._sampled(folds, manifest, most=3 * 64 * 64)
    assert [len(part) for part in half] == [2, 1]
    assert sum(map(len, objects._sampled(folds, manifest, most=1))) == 1
