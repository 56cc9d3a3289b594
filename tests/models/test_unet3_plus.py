"""UNet 3+: the published size, full-scale skip connections, heads; what each option does."""

import keras
import numpy as np
import pytest

from microseg.config import Component
from microseg.models import build_model


def component(**params):
    return Component(name="unet3_plus", params=params)


def small(**params):
    return build_model(component(**{"depth": 3, "filters": 2, "skip_filters": 2, **params}), 1, 1)


@pytest.fixture(scope="module")
def plain():
    return small()


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def junctions(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate)]


def test_the_published_network_has_the_published_number_of_parameters():
    # 26.97 million: a U-Net's encoder, four levels that reduce five sources to 64 filters each and fuse
    # them by 320, and a 3 x 3 head; every convolution with its bias and two normalisation parameters
    encoder = [(3, 64), (64, 64)] + [
        pair for width in (128, 256, 512, 1024) for pair in ((width // 2, width), (width, width))
    ]
    sources = [(64, 128, 256, 512, 1024), (64, 128, 256, 320, 1024), (64, 128, 320, 320, 1024)]
    sources.append((64, 320, 320, 320, 1024))
    decoder = [pair for level in sources for pair in [*((width, 64) for width in level), (320, 320)]]
    by_hand = sum(9 * i * o + 3 * o for i, o in encoder + decoder) + 9 * 320 + 1
    model = build_model(component(), 3, 1)
    assert trainable(model) == by_hand
    assert round(by_hand / 1e6, 2) == 26.97


def test_every_level_of_the_decoder_fuses_every_level():
    model = small(depth=4)
    assert [len(layer.input) for layer in junctions(model)] == [4, 4, 4]
    assert [layer.output.shape[-1] for layer in junctions(model)] == [8, 8, 8]


def test_the_coarsest_level_of_the_decoder_pools_the_finer_levels_of_the_encoder():
    pools = {
        layer.pool_size for layer in small(depth=4).layers if isinstance(layer, keras.layers.MaxPooling2D)
    }
    assert pools == {(2, 2), (4, 4)}


def test_supervised_heads_are_one_per_level_and_the_finest_is_the_prediction(plain):
    keras.utils.set_random_seed(0)
    model = small(deep_supervision=True)
    outputs = [keras.ops.convert_to_numpy(output) for output in model(np.random.rand(1, 16, 8, 1))]
    assert len(outputs) == 1 + 3
    np.testing.assert_array_equal(outputs[0], outputs[1])
    for one in range(1, 4):
        for other in range(1, one):
            assert np.abs(outputs[one] - outputs[other]).max() > 1e-4
    assert len(plain.outputs) == 1


def test_the_heads_are_all_that_deep_supervision_adds(plain):
    # 3 x 3 heads on the 6 channels of the second level and the 8 of the deepest of the encoder
    assert small(deep_supervision=True).count_params() - plain.count_params() == 9 * 6 + 1 + 9 * 8 + 1


@pytest.mark.parametrize(
    "option", [{"filters": 3}, {"skip_filters": 3}, {"normalisation": "none"}, {"depth": 2}], ids=str
)
def test_an_option_changes_the_size(option, plain):
    assert small(**option).count_params() != plain.count_params()


def test_dropout_and_activation_are_those_of_the_blocks(plain):
    kinds = [type(layer).__name__ for layer in small(dropout=0.5, activation="leaky_relu").layers]
    assert kinds.count("Dropout") == 3  # one per encoder block
    assert "LeakyReLU" in kinds and "Dropout" not in [type(layer).__name__ for layer in plain.layers]
