"""MultiResUNet: the published widths, Res paths and size; what each option does."""

from collections import Counter

import keras
import numpy as np
import pytest

from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import build_model


def component(**params):
    return Component(name="multires_unet", params=params)


def filters(model, kernel):
    """Return the filters of the convolutions of a kernel, in the order in which they were made."""
    layers = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    return [layer.filters for layer in layers if layer.kernel_size == (kernel, kernel)]


@pytest.fixture(scope="module")
def published():
    return build_model(component(), 3, 1)


def test_the_published_network_has_the_published_number_of_parameters(published):
    # 7,262,750 with the two moving statistics of the normalisation before the published sigmoid
    assert published.count_params() == 7_262_750 - 2


def test_blocks_have_the_published_widths_and_res_paths_the_published_lengths(published):
    down = [(8, 17, 26), (17, 35, 53), (35, 71, 106), (71, 142, 213)]
    blocks = sum([*down, *down, (142, 284, 427)], ())
    res_paths = 4 * (32,) + 3 * (64,) + 2 * (128,) + 1 * (256,)
    assert Counter(filters(published, 3)) == Counter(blocks + res_paths)


def test_a_chain_of_a_block_sees_three_five_and_seven_pixels():
    keras.utils.set_random_seed(0)
    model = build_model(component(depth=2, filters=4), 1, 1)
    joined = next(layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate))
    chain = keras.Model(model.inputs[0], joined.output)
    image = np.zeros((1, 16, 16, 1), np.float32)
    image[0, 8, 8] = 100.0
    seen = keras.ops.convert_to_numpy(chain(image) - chain(np.zeros_like(image)))[0]
    one, two, three = filters(model, 3)[:3]
    for begin, end, reach in ((0, one, 1), (one, one + two, 2), (one + two, one + two + three, 3)):
        rows, columns, _ = np.nonzero(seen[..., begin:end])
        assert max(abs(rows - 8).max(), abs(columns - 8).max()) == reach


def test_alpha_widens_the_blocks():
    narrow, wide = (filters(build_model(component(depth=2, alpha=alpha), 1, 1), 3) for alpha in (1.67, 3.34))
    assert narrow[:3] == [8, 17, 26] and wide[:3] == [17, 35, 53]


@pytest.mark.parametrize("activation", ["relu", "mish"])
def test_the_activation_is_that_of_every_block(activation):
    model = build_model(component(depth=2, filters=4, activation=activation), 1, 1)
    used = [layer for layer in model.layers if isinstance(layer, keras.layers.Activation)]
    assert {layer.activation.__name__ for layer in used} == {activation}


def test_an_alpha_that_leaves_a_convolution_without_filters_is_refused():
    with pytest.raises(
        MicrosegError, match=r"'alpha' is 0\.5; Input should be greater than or equal to 1\.5"
    ):
        build_model(component(filters=4, alpha=0.5), 1, 1)
    least = build_model(component(depth=2, filters=4, alpha=1.5), 1, 1)
    assert min(filters(least, 3)) == 1
