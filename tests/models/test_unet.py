"""The U-Net family: networks as published, and what each option does."""

import functools

import keras
import numpy as np
import pytest

from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import build_model
from microseg.models.blocks import Style, head, projected_gate

# Tiryaki et al. 2022, DOI 10.1002/cyto.a.24533: filters from 16, normalisation missing at one up-sampling
AFM = {"filters": 16, "dropout": 0.5, "dropout_at": "junctions", "normalise_deepest_up": False}
# Ghaznavi et al. 2022, DOI 10.1016/j.compbiomed.2022.105805
HELA = {"depth": 5, "filters": 64, "activation": "leaky_relu", "up": "nearest_only", "head": "normalised"}
HELA_DROPOUT = {"dropout": 0.05, "dropout_at": "end"}
# Electron micrographs of mitochondria: a U-Net without normalisation, its last features cut to two
MITO = {
    "depth": 5,
    "filters": 64,
    "normalisation": "none",
    "head": "convolved",
    "dropout": 0.5,
    "dropout_at": "deepest",
}
# Tiled bare nuclei: dropout of 0.05 times the level
TILED = {
    "depth": 8,
    "filters": 16,
    "kernels": [7, 5, 3],
    "normalisation": "none",
    "up": "transposed",
    "dropout": 0.35,
    "dropout_at": "growing",
}

PUBLISHED = [  # parameters, channels, total, trainable
    pytest.param({**AFM, "depth": 5}, 1, 1_947_153, 1_943_985, id="afm-5-levels-grey"),
    pytest.param({**AFM, "depth": 5}, 3, 1_947_441, 1_944_273, id="afm-5-levels"),
    pytest.param({**AFM, "depth": 4, "dropout": 0.55}, 3, 485_041, 483_537, id="afm-4-levels"),
    pytest.param({**AFM, "depth": 3, "dropout": 0.55}, 3, 118_385, 117_713, id="afm-3-levels"),
    pytest.param({**AFM, "depth": 2, "dropout": 0.55}, 3, 26_193, 25_937, id="afm-2-levels"),
    pytest.param(HELA | HELA_DROPOUT, 3, 31_402_501, 31_390_723, id="hela"),
    pytest.param(
        {**HELA, **HELA_DROPOUT, "attention": "projected"}, 3, 37_334_665, 37_319_047, id="hela-attention"
    ),
    pytest.param(
        {**HELA, "attention": "projected", "residual": True},
        3,
        39_090_377,
        39_068_871,
        id="hela-residual-attention",
    ),
    pytest.param(MITO, 1, 31_031_685, 31_031_685, id="mito"),
    pytest.param(TILED, 3, 124_557_041, 124_557_041, id="tiled", marks=pytest.mark.slow),
]

OPTIONS = [
    {"attention": True},
    {"attention": "projected"},
    {"residual": True},
    {"dropout": 0.5},
    {"normalisation": "none"},
    {"normalisation": "group"},
    {"activation": "leaky_relu"},
    {"activation": "elu"},
    {"activation": "mish"},
    {"up": "transposed"},
    {"up": "nearest_only"},
    {"kernels": [5, 3]},
    {"dilations": [1, 2]},
    {"normalise_deepest_up": False},
    {"head": "normalised"},
    {"head": "convolved"},
]


def unet(channels=1, classes=1, **params):
    return build_model(Component(name="unet", params=params), channels, classes)


def small(**params):
    return unet(depth=3, filters=2, **params)


def layers_of(model, kind):
    """Return the layers of one kind, in the order in which the network applies them."""
    return [layer for layer in model.layers if isinstance(layer, kind)]


def convolutions(model):
    return [layer for layer in layers_of(model, keras.layers.Conv2D) if layer.kernel_size > (2, 2)]


def images(channels=1):
    return np.random.default_rng(0).random((2, 8, 8, channels), np.float32)


@pytest.mark.parametrize(("params", "channels", "total", "trainable"), PUBLISHED)
def test_parameters_are_as_many_as_published(params, channels, total, trainable):
    model = unet(channels, **params)
    assert model.count_params() == total
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable


def test_parameter_count_of_the_smallest_unet_by_hand():
    # 3x3: 1-1, 1-1 | 1-2, 2-2 | transposed 2x2: 2-1 | 3x3: 2-1, 1-1 | 1x1: 1-1; each with its biases
    by_hand = 10 + 10 + 20 + 38 + 9 + 19 + 10 + 2
    assert unet(depth=2, filters=1, normalisation="none", up="transposed").count_params() == by_hand


def settings(model):
    """Return what the layers do, without the names that count up within a process."""
    configs = [layer.get_config() for layer in model.layers]
    return [
        {
            key: value
            for key, value in config.items()
            if isinstance(value, (int, float, str, tuple)) and key != "name"
        }
        for config in configs
    ]


@pytest.fixture(scope="module")
def plain():
    return settings(small())


def test_the_same_parameters_make_the_same_network(plain):
    assert settings(small()) == plain


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_every_option_makes_another_network(option, plain):
    assert settings(small(**option)) != plain


def test_options_go_together():
    model = small(**functools.reduce(dict.__or__, OPTIONS, {}))
    probability = model(images(), training=False)
    assert np.all(np.isfinite(keras.ops.convert_to_numpy(probability)))


def test_kernels_mirror_and_the_last_repeats():
    model = unet(depth=4, filters=1, kernels=[7, 5, 3])
    sides = [layer.kernel_size[0] for layer in convolutions(model)]
    assert sides == [7, 7, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 7, 7]


def test_kernels_beyond_the_depth_are_not_used():
    assert settings(unet(depth=2, kernels=[7, 5, 3])) == settings(unet(depth=2, kernels=[7, 5]))


def test_dilation_spreads_the_taps_of_its_levels_only():
    model = unet(depth=2, filters=1, normalisation="none", dilations=[1, 3])
    assert [layer.dilation_rate[0] for layer in convolutions(model)] == [1, 1, 3, 3, 1, 1]


@pytest.mark.parametrize(
    ("dropout_at", "rates"),
    [
        ("within", [0.4] * 7),
        ("end", [0.4] * 7),
        ("junctions", [0.4] * 6),
        ("growing", [0.1333, 0.2667, 0.4, 0.2667, 0.1333]),
        ("deepest", [0.4, 0.4]),
    ],
)
def test_dropout_has_the_rates_of_its_placement(dropout_at, rates):
    model = unet(depth=4, filters=1, dropout=0.4, dropout_at=dropout_at)
    found = [layer.rate for layer in layers_of(model, keras.layers.Dropout)]
    np.testing.assert_allclose(found, rates, atol=1e-4)


def inputs_of(layer):
    """Return the kinds of the layers whose outputs a layer takes."""
    history = [tensor._keras_history.operation for tensor in keras.tree.flatten(layer.input)]
    return {type(operation).__name__ for operation in history}


@pytest.mark.parametrize(
    ("dropout_at", "residual", "before"),
    [
        ("within", False, {"Activation"}),
        ("end", False, {"Activation"}),
        ("end", True, {"BatchNormalization"}),
        ("junctions", False, {"MaxPooling2D", "Concatenate"}),
    ],
)
def test_dropout_follows_the_layers_of_its_placement(dropout_at, residual, before):
    model = small(dropout=0.4, dropout_at=dropout_at, residual=residual)
    assert set().union(*map(inputs_of, layers_of(model, keras.layers.Dropout))) == before


def test_dropout_within_a_block_lies_between_its_convolutions():
    model = unet(depth=2, filters=1, normalisation="none", dropout=0.4)
    names = [type(layer).__name__ for layer in model.layers]
    first, second = [i for i, name in enumerate(names) if name == "Conv2D"][:2]
    assert "Dropout" in names[first:second]
    assert "Dropout" not in names[second : names.index("MaxPooling2D")]


def test_leaky_relu_has_the_slope_of_the_layer_and_not_that_of_the_function():
    slopes = [
        layer.negative_slope for layer in layers_of(small(activation="leaky_relu"), keras.layers.LeakyReLU)
    ]
    np.testing.assert_allclose(slopes, 0.3)
    assert float(keras.activations.leaky_relu(np.float32(-1.0))) == pytest.approx(-0.2)


def test_missing_normalisation_is_the_one_of_the_deepest_up_sampling():
    complete, missing = small(), small(normalise_deepest_up=False)
    norm = keras.layers.BatchNormalization
    widths = [[layer.gamma.shape[0] for layer in layers_of(model, norm)] for model in (complete, missing)]
    assert widths[0][:6] == widths[1][:6]  # the encoder's
    assert widths[0][6:] == [4, 4, 4, 2, 2, 2] and widths[1][6:] == [4, 4, 2, 2, 2]


def test_group_normalisation_takes_any_number_of_filters():
    model = unet(depth=2, filters=3, normalisation="group")
    assert model(images(), training=False).shape == (2, 8, 8, 1)


def test_projected_gate_scales_the_skip_by_what_the_coarser_level_says():
    # Unnormalised and with the last projection an identity, each pixel is the skip times one coefficient.
    skip, gating = keras.Input((None, None, 3)), keras.Input((None, None, 5))
    model = keras.Model([skip, gating], projected_gate(skip, gating, Style(normalisation="none")))
    projection = model.layers[-1]
    projection.set_weights([np.eye(3, dtype=np.float32)[None, None], np.zeros(3, np.float32)])
    rng = np.random.default_rng(0)
    fine, coarse = rng.uniform(0.5, 1, (1, 8, 8, 3)), rng.random((1, 4, 4, 5))
    ratio = np.asarray(model([fine.astype(np.float32), coarse.astype(np.float32)])) / fine
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[..., :1], ratio.shape), rtol=1e-4)
    assert ratio.min() > 0.0 and ratio.max() < 1.0 and ratio.std() > 0.0
    np.testing.assert_allclose(ratio[:, ::2, ::2], ratio[:, 1::2, 1::2], rtol=1e-4)  # nearest neighbour


@pytest.mark.parametrize("kind", ["plain", "normalised", "convolved"])
@pytest.mark.parametrize("classes", [1, 3])
def test_heads_give_probabilities_in_float32_under_mixed_precision(kind, classes):
    inputs = keras.Input((None, None, 4))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Model(inputs, head(inputs, classes, kind))
    finally:
        keras.config.set_dtype_policy("float32")
    probability = np.asarray(model(images(4)))
    assert probability.shape == (2, 8, 8, classes) and probability.dtype == np.float32
    assert probability.min() > 0.0 and probability.max() < 1.0
    if classes > 1:
        np.testing.assert_allclose(probability.sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernels": []}, r"parameter 'kernels' is \[\]"),
        ({"kernels": [0]}, "greater than or equal to 1"),
        ({"dilations": [2.5]}, r"parameter 'dilations' is \[2.5\]"),
        ({"dropout_at": "bottleneck"}, "'within', 'end', 'junctions', 'growing' or 'deepest'"),
        ({"attention": "gated"}, "False, True or 'projected'"),
        ({"head": "linear"}, "'plain', 'normalised' or 'convolved'"),
    ],
)
def test_values_that_do_not_fit_are_refused(params, message):
    with pytest.raises(MicrosegError, match=message) as caught:
        unet(**params)
    assert "\n" not in str(caught.value)
