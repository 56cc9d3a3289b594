"""Training, validation, batch prediction and REST give the network the same bytes for the same image.

A published project lost accuracy because its report was made without the equalisation that the network was
trained with; here the four ways are compared at the network's input.
"""

import base64
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from microseg.augment import augmenter
from microseg.config import Component, TrialConfig
from microseg.data.files import read_bytes
from microseg.data.images import read_image, write_image
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.data.pairs import load_pairs
from microseg.data.pipeline import Sampling, sampler
from microseg.data.preprocess import PREPROCESSING, fit, output_channels
from microseg.serving import batch
from microseg.serving.batch import folder
from microseg.serving.card import ModelCard
from microseg.serving.pyfunc_model import ARTIFACT, SegmentationModel
from microseg.serving.request import ImageRequest
from microseg.serving.segmenter import Segmenter
from microseg.training.validation import predict_image

SIDE = 32
OPTIONS = (
    {},
    {"channels": [2, 0]},
    {"colour": "grey", "gamma": 2.0},
    {"colour": "hsv", "clahe": 4.0},
    {"colour": "lab", "gamma": 0.5},
    {"clahe": 4.0, "gamma": 0.7},
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """One colour image of 8 bits, as large as a tile, and its mask."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    write_image(folder / "images" / "a.png", rng.integers(20, 200, (SIDE, SIDE, 3), dtype=np.uint8))
    write_image(folder / "masks" / "a.png", np.where(rng.random((SIDE, SIDE)) < 0.5, 255, 0).astype(np.uint8))
    return open_dataset(folder, DataOptions(), folder / "cache")


@pytest.fixture(scope="module")
def networks():
    """A network per number of input channels: untrained, since only its input counts."""
    return {
        channels: keras.Sequential(
            [keras.Input((None, None, channels)), keras.layers.Conv2D(1, 1, activation="sigmoid")]
        )
        for channels in (1, 2, 3)
    }


@pytest.fixture
def inputs(monkeypatch):
    """What networks are given, batch by batch."""
    seen, predict = [], keras.Model.predict_on_batch

    def recorded(self, x):
        seen.append(np.array(x))
        return predict(self, x)

    monkeypatch.setattr(keras.Model, "predict_on_batch", recorded)
    return seen


@pytest.mark.parametrize("params", OPTIONS, ids=str)
@pytest.mark.parametrize("name", PREPROCESSING)
def test_four_ways_to_the_network_give_equal_bytes(
    name, params, manifest, networks, inputs, tmp_path, monkeypatch
):
    preprocess = Component(name=name, params=params)
    config = TrialConfig(model=Component(name="unet"), preprocess=preprocess, tile=SIDE, batch_size=1)
    network = networks[output_channels(preprocess, manifest.channels)]
    item, *_ = manifest.items

    pairs = load_pairs([item.name], manifest, tmp_path / "cache", preprocess)
    draw = sampler(pairs, Sampling(SIDE, 1, 1, 0), augmenter(Component(name="none")), 1)
    trained_on = draw(0)[0][None]
    predict_image(network, pairs[0].image, config)

    network.save(tmp_path / "fold-0.keras")
    ModelCard(
        name="cells", study="s", trial="t", config=config, channels=3, classes=("cell",), data_digest="0"
    ).write(tmp_path)
    monkeypatch.setattr(folder, "load_segmenter", lambda uri: Segmenter(tmp_path))
    assert not batch.predict_folder("models:/cells/1", str(item.images[0]), str(tmp_path / "out")).failed
    server = SegmentationModel()
    server.load_context(SimpleNamespace(artifacts={ARTIFACT: str(tmp_path)}))
    server.predict([ImageRequest(image=base64.b64encode(read_bytes(item.images[0])).decode())])

    validated, batched, served = inputs
    assert trained_on.shape == (1, SIDE, SIDE, network.input_shape[-1])
    assert trained_on.dtype == np.float32
    assert trained_on.tobytes() == validated.tobytes() == batched.tobytes() == served.tobytes()

    image = read_image(item.images)
    bands = [image] if "clahe" in params else np.split(image, [1, 12])
    assert fit(preprocess, lambda: bands)(image).tobytes() == trained_on.tobytes()
