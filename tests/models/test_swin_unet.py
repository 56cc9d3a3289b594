"""Swin-Unet: the published size, stochastic depth, serving; what each option does."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from microseg.config import Component, TrialConfig
from microseg.errors import MicrosegError
from microseg.models import build_model, stride
from microseg.models.window_attention import WindowAttention
from microseg.serving.card import ModelCard


def component(**params):
    return Component(name="swin_unet", params=params)


def small(**params):
    return build_model(
        component(**{"depth": 2, "filters": 4, "patch": 2, "heads": 2, "window": 3, **params}), 1, 1
    )


@pytest.fixture(scope="module")
def plain():
    return small()


def images(height, width):
    return np.random.default_rng(0).random((1, height, width, 1), np.float32)


def predict(model, batch):
    return keras.ops.convert_to_numpy(model(batch, training=False))


def test_the_published_network_has_the_published_number_of_parameters():
    # 27.17 million, for nine classes; by hand, for an embedding of width c:
    def blocks(c, heads):
        return 2 * (12 * c**2 + 13 * c + 13**2 * heads)  # projections, perceptron, two norms, bias table

    down = [(96, 3), (192, 6), (384, 12)]
    encoder = 16 * 3 * 96 + 3 * 96 + sum(blocks(c, h) + 8 * c**2 + 8 * c for c, h in down)
    bottom = blocks(768, 24) + 2 * 768
    decoder = sum(blocks(c, h) + 8 * c**2 + 2 * c + 2 * c**2 + c for c, h in down)
    final = 16 * 96**2 + 4 * 96 + 9 * 96 + 9  # the published head has no bias: 9 less
    model = build_model(component(window=7), 3, 9)
    assert model.count_params() == encoder + bottom + decoder + final
    assert round((model.count_params() - 9) / 1e6, 2) == 27.17


def test_every_second_block_of_a_level_is_shifted_by_half_a_window():
    layers = [layer for layer in small(blocks=3, window=4).layers if isinstance(layer, WindowAttention)]
    assert [layer.shift for layer in layers] == [0, 2, 0] * 3
    assert [layer.heads for layer in layers] == [2, 2, 2, 4, 4, 4, 2, 2, 2]


def test_an_image_of_a_single_deepest_position_is_taken():
    assert np.isfinite(predict(small(window=8), images(4, 4))).all()


def test_whole_branches_are_dropped_for_single_images_and_only_in_training():
    def rates(model):
        return [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]

    model = small(drop_path=0.3)
    np.testing.assert_allclose(rates(model), np.repeat([0.1, 0.2, 0.3, 0.1], 2))  # none in a first block
    assert rates(small(drop_path=0.0)) == []
    dropped = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)][-1]
    whole = np.asarray(dropped(np.ones((64, 2, 2, 3), np.float32), training=True)).reshape(64, -1)
    assert np.ptp(whole, axis=1).max() == 0.0
    assert 0 < (whole[:, 0] == 0).sum() < 64
    batch = images(8, 8)
    np.testing.assert_array_equal(predict(model, batch), predict(model, batch))


@pytest.mark.parametrize(
    "option",
    [{"filters": 8}, {"patch": 4}, {"blocks": 1}, {"heads": 4}, {"window": 2}, {"depth": 3}],
    ids=str,
)
def test_an_option_changes_the_size(option, plain):
    assert small(**option).count_params() != plain.count_params()


@pytest.mark.parametrize("known", [stride, lambda component: build_model(component, 1, 1)])
def test_heads_that_do_not_divide_the_filters_are_refused_before_and_when_building(known):
    with pytest.raises(
        MicrosegError, match="10 filters do not divide into 3 heads; set filters to a multiple of 3"
    ):
        known(component(filters=10, heads=3))


FRESH_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from microseg.serving.segmenter import Segmenter
probability = Segmenter(Path(sys.argv[1])).probability(np.load(sys.argv[2]))
np.save(sys.argv[3], probability)
"""


@pytest.mark.slow
def test_a_saved_network_is_served_by_a_process_that_never_built_one(plain, tmp_path, project):
    config = TrialConfig(model=component(), preprocess=Component(name="scale"), tile=16, overlap=0.25)
    card = ModelCard(
        name="cells", study="demo", trial="trial-000", config=config, channels=1, classes=("cell",),
        data_digest="0" * 64, scores={"val/dice": 0.9},
    )  # fmt: skip
    card.write(tmp_path)
    plain.save(tmp_path / "fold-0.keras")
    image = (255 * images(16, 16)[0]).astype(np.uint8)  # one tile
    np.save(tmp_path / "image.npy", image)
    arguments = [tmp_path, tmp_path / "image.npy", tmp_path / "answer.npy"]
    environment = {
        "PYTHONPATH": str(project / "platform"),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *map(str, arguments)], env=environment, check=True)
    expected = predict(plain, image[None] / np.float32(255))[0]
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), expected, atol=1e-5)
