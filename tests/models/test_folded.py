"""A network whose convolutions do the work of the normalisation behind them answers as it did before."""

import keras
import numpy as np
import pytest
from keras import layers

from microseg import runtime
from microseg.config import Component
from microseg.models import ARCHITECTURES, build_model, folded

RNG = np.random.default_rng(0)
SMALL = {
    "unet": {"depth": 3, "filters": 4},
    "unet_plus_plus": {"depth": 3, "filters": 4},
    "unet3_plus": {"depth": 3, "filters": 4},
    "u2net": {"size": "lite", "depth": 3, "filters": 8},
    "multires_unet": {"depth": 3, "filters": 4},
    "swin_unet": {},
    "encoder_unet": {"encoder": "mobilenet_v3_small"},
    "deeplab_v3_plus": {"encoder": "resnet50"},
}


def stir(network):
    """Give every normalisation statistics as a training leaves them."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            stir(layer)
        elif isinstance(layer, layers.BatchNormalization):
            for weight in layer.weights:
                low = 0.5 if "gamma" in weight.path or "variance" in weight.path else -0.3
                weight.assign(RNG.uniform(low, low + 1.0 if low > 0 else 0.3, weight.shape))
    return network


def normalisations(network):
    return sum(
        normalisations(layer)
        if isinstance(layer, keras.Model)
        else isinstance(layer, layers.BatchNormalization)
        for layer in network.layers
    )


def answers(network, images):
    return [np.asarray(answer, np.float32) for answer in keras.tree.flatten(network(images, training=False))]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_answers_as_before(name):
    with runtime.fresh_session("float32", 0):
        network = stir(build_model(Component(name=name, params=SMALL[name]), 2, 3))
        images = RNG.random((2, 64, 64, 2), np.float32)
        before, weights = answers(network, images), network.get_weights()
        quick = folded(network)
        for one, other in zip(before, answers(quick, images), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-4)
        for one, other in zip(weights, network.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert normalisations(quick) < max(1, normalisations(network))


def test_of_a_plain_unet_no_normalisation_is_left():
    with runtime.fresh_session("float32", 0):
        network = build_model(Component(name="unet", params=SMALL["unet"]), 1, 1)
        assert normalisations(network) > 0 == normalisations(folded(network))


def test_in_16_bits_the_answers_are_about_as_close_to_those_in_32():
    """One rounding less of every activation, one more of every kernel."""
    model = Component(name="unet", params={"depth": 3, "filters": 8})
    images, errors = RNG.random((1, 64, 64, 1), np.float32), []
    for _ in range(4):
        with runtime.fresh_session("float32", 0):
            exact = stir(build_model(model, 1, 1))
            weights, (truth,) = exact.get_weights(), answers(exact, images)
        with runtime.fresh_session("bfloat16", 0):
            network = build_model(model, 1, 1)
            network.set_weights(weights)
            both = answers(network, images), answers(folded(network), images)
        errors.append([np.abs(answer - truth).mean() for (answer,) in both])
    plain, quick = np.mean(errors, axis=0)
    assert 0 < quick < 1.5 * plain


def convolution(**options):
    return layers.Conv2D(3, 3, padding="same", name="convolution", **options)


def behind_an_activation(x):
    return layers.BatchNormalization()(convolution(activation="relu")(x))


def of_what_others_read(x):
    shared = convolution()(x)
    return layers.Add()([shared, layers.BatchNormalization()(shared)])


def of_what_is_an_output(x):
    shared = convolution()(x)
    return [shared, layers.BatchNormalization()(shared)]


def of_a_shared_convolution(x):
    shared = layers.Conv2D(2, 1, name="convolution")
    return layers.Add()(
        [layers.BatchNormalization()(shared(x)), layers.BatchNormalization()(shared(shared(x)))]
    )


def of_rows(x):
    return layers.BatchNormalization(axis=1)(convolution()(x))


def of_groups(x):
    return layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x))


@pytest.mark.parametrize(
    "build",
    [
        behind_an_activation,
        of_what_others_read,
        of_what_is_an_output,
        of_a_shared_convolution,
        of_rows,
        of_groups,
    ],
)
def test_normalisation_stays_where_no_convolution_can_take_it_in(build):
    inputs = keras.Input((8, 8, 2))
    network = stir(keras.Model(inputs, build(inputs)))
    quick, images = folded(network), RNG.random((2, 8, 8, 2), np.float32)
    assert normalisations(quick) == normalisations(network)
    for one, other in zip(answers(network, images), answers(quick, images), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"use_bias": False}])
@pytest.mark.parametrize("norm", [{}, {"scale": False}, {"center": False}])
def test_bias_scale_and_centre_may_be_missing(options, norm):
    inputs = keras.Input((8, 8, 2))
    x = layers.BatchNormalization(**norm)(layers.Conv2DTranspose(3, 2, strides=2, **options)(inputs))
    network = stir(keras.Model(inputs, layers.BatchNormalization(**norm)(convolution(**options)(x))))
    quick, images = folded(network), RNG.random((2, 8, 8, 2), np.float32)
    assert normalisations(quick) == 0
    np.testing.assert_allclose(quick(images), network(images, training=False), atol=1e-5)


def test_a_sequential_network_is_returned():
    network = keras.Sequential([keras.Input((8, 8, 2)), convolution(), layers.BatchNormalization()])
    assert folded(network) is network
