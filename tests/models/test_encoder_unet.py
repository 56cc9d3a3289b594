"""U-Nets on classification networks: published sizes, decoder options, freezing, levels without a skip."""

import keras
import numpy as np
import pytest

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.models import ARCHITECTURES, build_model, stride

pytestmark = pytest.mark.usefixtures("small_encoder")

# Tiryaki et al. 2022, DOI 10.1002/cyto.a.24533: trainable parameters for three channels and one class.
U_XCEPTION = {
    "encoder": "xception",
    "scaling": "none",
    "depth": 4,
    "bottleneck": 512,
    "filters": 16,
    "block": "preactivation",
    "activation": "leaky_relu",
    "up_kernel": 3,
    "dropout": [0.5, 0.5, 0.5, 0.1, 0.1, 0.5],
    "head_dropout": 0.25,
}
PUBLISHED = [
    ({"encoder": "vgg16", "scaling": "none"}, 25_858_497),
    ({"encoder": "vgg19", "scaling": "none"}, 31_168_193),
    pytest.param(U_XCEPTION, 38_370_009, marks=pytest.mark.slow),
]
OPTIONS = [
    {"bottleneck": 3},
    {"block": "residual"},
    {"block": "preactivation"},
    {"attention": True},
    {"dropout": 0.5},
    {"dropout": [0.1, 0.2, 0.3]},
    {"head_dropout": 0.5},
    {"normalisation": "none"},
    {"normalisation": "group"},
    {"activation": "leaky_relu"},
    {"up": "nearest"},
    {"up_kernel": 3},
    {"scaling": "imagenet"},
    {"freeze": True},
]


def component(**params):
    return Component(name="encoder_unet", params=params)


def small(**params):
    return component(**{"encoder": "small", "depth": 3, "filters": 2, **params})


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def predict(model, batch):
    return keras.ops.convert_to_numpy(model(batch, training=False))


def images(height, width, channels=1):
    return np.random.default_rng(0).random((1, height, width, channels), np.float32)


@pytest.mark.parametrize(("params", "count"), PUBLISHED, ids=lambda value: str(value)[:24])
def test_published_networks_have_their_number_of_trainable_parameters(params, count):
    assert trainable(build_model(component(**params), 3, 1)) == count


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 96, 160])
def test_published_xception_network_keeps_the_size(side):
    model = build_model(component(**U_XCEPTION), 3, 1)
    assert stride(component(**U_XCEPTION)) == 32
    assert predict(model, images(side, 64, 3)).shape == (1, side, 64, 1)


def fingerprint(model):
    """Return what a network computes with, without the names that count up within a process."""
    layers = [(type(layer).__name__, layer.get_config()) for layer in model.layers]
    numbers = [
        (kind, {key: value for key, value in config.items() if isinstance(value, (int, float, tuple))})
        for kind, config in layers
    ]
    starts = [weight.numpy().sum() for weight in model.get_layer("adapter").weights]
    return numbers, starts, [weight.shape for weight in model.weights], trainable(model)


def test_every_option_makes_another_network():
    models = [build_model(small(**option), 1, 1) for option in ({}, {}, *OPTIONS)]
    plain, again, *others = [fingerprint(model) for model in models]
    assert again == plain
    for first, one in enumerate(others):
        assert one != plain, OPTIONS[first]
        assert one not in others[:first], OPTIONS[first]


@pytest.mark.parametrize(
    "option", [{"block": "residual", "up": "nearest"}, {"block": "preactivation"}], ids=str
)
def test_other_blocks_compute_a_probability(option):
    probability = predict(build_model(small(**option), 1, 1), images(16, 16))
    assert probability.std() > 0.0 and 0.0 <= probability.min() <= probability.max() <= 1.0


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"encoder": "vgg16", "depth": 2}, 2),
        ({"encoder": "vgg16"}, 16),
        ({"encoder": "small", "depth": 2}, 4),
        ({"encoder": "small", "depth": 3, "bottleneck": 4}, 16),
        ({"encoder": "convnext_tiny"}, 32),
    ],
    ids=str,
)
def test_stride_is_known_without_building(params, expected, monkeypatch):
    monkeypatch.setattr(keras, "Input", None)
    assert stride(component(**params)) == expected


@pytest.mark.parametrize("bottleneck", [0, 3])
def test_output_has_full_resolution_also_where_the_encoder_starts_coarser(bottleneck):
    params = {"depth": 2, "attention": True, "bottleneck": bottleneck}
    step = stride(small(**params))
    probability = predict(build_model(small(**params), 1, 2), images(3 * step, 5 * step))
    assert probability.shape == (1, 3 * step, 5 * step, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder", ["xception", "resnet50", "efficientnet_v2_b0", "densenet121", "convnext_tiny"]
)
def test_unet_on_every_kind_of_encoder_saves_and_keeps_the_size(encoder, tmp_path):
    model = build_model(component(encoder=encoder, filters=2, normalisation="group"), 1, 1)
    batch = images(96, 32)
    expected = predict(model, batch)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert expected.shape == (1, 96, 32, 1)
    np.testing.assert_array_equal(predict(loaded, batch), expected)


def test_saved_bottleneck_and_preactivation_load_without_custom_objects(tmp_path):
    model = build_model(small(depth=2, block="preactivation", bottleneck=3, up_kernel=3), 1, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(predict(loaded, images(16, 32)), predict(model, images(16, 32)))


@pytest.mark.parametrize(("freeze", "frozen"), [(False, False), (0, False), (True, True), (3, True)])
def test_frozen_encoder_trains_only_the_decoder_until_it_is_released(freeze, frozen):
    free = build_model(small(), 1, 1)
    model = build_model(small(freeze=freeze), 1, 1)
    encoder = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    assert model.count_params() == free.count_params()
    assert (trainable(model) < trainable(free)) == (not encoder.trainable_weights) == frozen
    encoder.trainable = True  # what training does after the frozen epochs
    assert trainable(model) == trainable(free)


def test_freeze_takes_a_truth_value_or_a_number_of_epochs():
    given = [check(small(freeze=value), ARCHITECTURES, "model")["freeze"] for value in (True, 3)]
    assert given == [True, 3] and isinstance(given[0], bool)
    with pytest.raises(MicrosegError, match="'freeze' is -1; Input should be greater than or equal to 0"):
        check(small(freeze=-1), ARCHITECTURES, "model")


def test_depth_beyond_the_encoder_is_refused_before_and_at_building():
    for ask in (stride, lambda asked: build_model(asked, 1, 1)):
        with pytest.raises(MicrosegError, match="'vgg16' has 5 levels, depth is 6; give at most 5"):
            ask(component(encoder="vgg16", depth=6))


def test_rates_that_do_not_fit_the_blocks_are_refused():
    with pytest.raises(MicrosegError, match="has 2 rates, the decoder 3 blocks; give one number, or 3 rates"):
        build_model(small(dropout=[0.1, 0.1]), 1, 1)
    model = build_model(small(depth=2, bottleneck=3, dropout=[0.5, 0.4, 0.3, 0.2], head_dropout=0.1), 1, 1)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.5, 0.4, 0.3, 0.2, 0.1]
