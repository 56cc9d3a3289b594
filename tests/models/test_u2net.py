"""U2-Net: the published sizes, dilations and fusion; what each option does."""

from collections import Counter

import keras
import numpy as np
import pytest

from microseg.config import Component
from microseg.models import build_model


def component(**params):
    return Component(name="u2net", params=params)


def small(**params):
    return build_model(component(**{"depth": 3, "filters": 4, "size": "lite", **params}), 1, 1)


@pytest.fixture(scope="module")
def plain():
    return small()


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.fixture(scope="module")
def lite():
    return build_model(component(size="lite"), 3, 1)


def test_the_lite_network_has_the_published_number_of_parameters(lite):
    # as PyTorch counts them: without the moving statistics of the normalisation
    assert trainable(lite) == 1_131_181


@pytest.mark.slow
def test_the_full_network_has_the_published_number_of_parameters():
    assert trainable(build_model(component(), 3, 1)) == 44_009_869


def test_dilations_are_the_published_ones(lite):
    convolutions = [layer for layer in lite.layers if type(layer) is keras.layers.Conv2D]
    counts = Counter(layer.dilation_rate[0] for layer in convolutions)
    # three dilated blocks with 2 4 8 4 2, and one 2 at the bottom of each of the eight pooled blocks
    assert (counts[2], counts[4], counts[8]) == (3 * 2 + 8, 3 * 2, 3)


def test_pooled_blocks_reach_the_deepest_resolution_and_no_further(lite):
    pools = sum(isinstance(layer, keras.layers.MaxPooling2D) for layer in lite.layers)
    assert pools == 2 * (5 + 4 + 3 + 2) + 5  # within the blocks of both sides, and between the levels
    assert lite.compute_output_shape((1, 32, 32, 3))[0] == (1, 32, 32, 1)


def test_the_prediction_is_a_weighted_sum_of_the_side_outputs():
    keras.utils.set_random_seed(0)
    model = small()
    image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    for side in range(3):
        kernel = np.zeros((1, 1, 3, 1), np.float32)
        kernel[0, 0, side] = 1.0
        model.get_layer("probability").set_weights([kernel, np.zeros(1, np.float32)])
        fused, supervised, *sides = (keras.ops.convert_to_numpy(output) for output in model(image))
        np.testing.assert_array_equal(fused, supervised)
        np.testing.assert_allclose(fused, sides[side], rtol=1e-5)
        assert all(np.abs(fused - other).max() > 1e-4 for other in sides[:side] + sides[side + 1 :])


def test_without_deep_supervision_it_is_the_same_network_with_one_output(plain):
    single = small(deep_supervision=False)
    assert len(single.outputs) == 1
    assert len(plain.outputs) == 1 + 1 + 3
    assert single.count_params() == plain.count_params()


@pytest.mark.parametrize(
    "option", [{"size": "full"}, {"filters": 8}, {"normalisation": "none"}, {"depth": 4}], ids=str
)
def test_an_option_changes_the_size(option, plain):
    assert small(**option).count_params() != plain.count_params()


def test_the_activation_is_that_of_every_block(plain):
    for model, name in ((plain, "relu"), (small(activation="mish"), "mish")):
        layers = [layer for layer in model.layers if type(layer) is keras.layers.Activation]
        assert {layer.activation.__name__ for layer in layers} == {name, "sigmoid"}
