"""Example images: chosen over all folds, drawn from what the network of their own fold predicts."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from microseg.config import TrialConfig
from microseg.data.open import DataOptions
from microseg.data.synthetic import write_demo
from microseg.search.records import TrialRecord
from microseg.storage import cache
from microseg.study import Request, examples, prepare, single
from microseg.study.examples import Example, choose
from microseg.study.request import folder
from microseg.tracking import store, tree
from microseg.tracking.figures import overlay
from microseg.training import FoldResult, TrainingData
from microseg.training.results import MODEL, fingerprint, fold_folder, write_result

CONFIG = TrialConfig.model_validate({"model": {"name": "unet", "params": {"depth": 2}}, "tile": 64})


def result(fold, per_image, **more):
    known = {
        "state": "completed",
        "best_epoch": 1,
        "epochs": 1,
        "metrics": {},
        "seconds": 1.0,
        "parameters": 1,
    }
    known |= {"peak_memory_mib": 1.0, "model": "m.keras", "history": [], "fingerprint": ""}
    return FoldResult(fold=fold, per_image=per_image, **(known | more))


def test_the_extremes_and_the_middle_of_all_folds_together():
    first = result(0, {"a": 0.1, "b": 0.5, "c": 0.9})
    second = result(1, {"d": 0.2, "e": 0.6, "f": 0.8, "g": 0.55})
    assert choose([first, second], each=1) == [
        Example("worst", 0, "a", 0.1),
        Example("median", 1, "g", 0.55),
        Example("best", 0, "c", 0.9),
    ]
    assert [(one.kind, one.image) for one in choose([first, second], each=2)] == [
        ("worst", "a"), ("worst", "d"), ("median", "b"), ("median", "g"), ("best", "f"), ("best", "c"),
    ]  # fmt: skip


@pytest.mark.parametrize(("count", "kinds"), [(0, []), (1, ["worst"]), (3, ["worst", "worst", "best"])])
def test_few_images_are_shown_once(count, kinds):
    assert [one.kind for one in choose([result(0, {str(n): n / 10 for n in range(count)})])] == kinds


def constant(path, value):
    """A network that answers one probability everywhere, saved."""
    image = keras.Input((None, None, 1))
    bias = keras.initializers.Constant(np.log(value / (1 - value)))
    conv = layers.Conv2D(1, 1, activation="sigmoid", kernel_initializer="zeros", bias_initializer=bias)
    path.parent.mkdir(parents=True)
    keras.Model(image, conv(image)).save(path)


def test_pictures_come_from_the_network_of_their_fold(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    write_demo(tmp_path / "cells", images=8, sessions=4, size=64)
    search = single(CONFIG.model_dump(mode="json"), "test").model_copy(update={"folds": 2})
    options = DataOptions(mask_kind="binary", threshold=1)
    prepared = prepare(Request(name="s", data=tmp_path / "cells", options=options, config=search))
    data = TrainingData(prepared.development, cache())
    dice = iter(np.linspace(0.1, 0.9, len(data.manifest.items)))
    scores = {}
    for fold, value in zip(prepared.folds, (0.1, 0.9), strict=True):
        place = fold_folder(folder("s") / "trial-000", fold)
        constant(place / MODEL, value)
        scores[fold.index] = {name: float(next(dice)) for name in fold.valid}
        marked = {"model": place / MODEL, "fingerprint": fingerprint(CONFIG, data, fold)}
        write_result(result(fold.index, scores[fold.index], **marked), place)
    client = store.connect(f"sqlite:///{tmp_path}/mlflow.db")
    run = tree.open_study(client, "s")
    best = TrialRecord(number=0, name="trial-000", state="completed", config=CONFIG)
    drawn = {}

    def watched(sample, threshold):
        drawn[sample.name] = round(float(sample.probability.mean()), 2)
        return overlay(sample, threshold)

    monkeypatch.setattr(examples, "overlay", watched)
    examples.log_examples(client, run, prepared, best)
    there = Path(client.download_artifacts(run.run_id, "examples", str(tmp_path)))
    listed = json.loads((there / "examples.json").read_text())["examples"]
    assert len(listed) == len(drawn) and {one["kind"] for one in listed} == {"worst", "median", "best"}
    assert [one["dice"] for one in listed] == sorted(one["dice"] for one in listed)
    for one in listed:
        assert scores[one["fold"]][one["image"]] == one["dice"]
        assert drawn[one["image"]] == (0.1, 0.9)[one["fold"]]
        with Image.open(there / one["file"]) as picture:
            assert picture.size == (384, 384)
        assert (there / one["file"]).stat().st_size < 150_000  # six of them are on a page of at most 3 MB
