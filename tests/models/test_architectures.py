"""The contract of every architecture."""

import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.losses import bce_dice
from microseg.models import ARCHITECTURES, STRIDES, build_model, check_tile, stride


class Tiny(NamedTuple):
    """The richest small instance of a family (every option that adds weights), and what makes it deeper."""

    params: dict[str, Any]
    deeper: dict[str, Any]


RICH = {"attention": True, "normalisation": "group", "activation": "mish"}
TINY = {
    "unet": Tiny(
        {"depth": 2, "filters": 2, **RICH, "attention": "projected", "residual": True}, {"depth": 4}
    ),
    "unet_plus_plus": Tiny(
        {"depth": 3, "filters": 2, "normalisation": "group", "activation": "mish"}, {"depth": 4}
    ),
    "encoder_unet": Tiny({"depth": 2, "filters": 2, **RICH}, {"depth": 4}),
    "deeplab_v3_plus": Tiny(
        {
            "encoder": "vgg16",
            "output_stride": 8,
            "filters": 16,  # with fewer, each channel is its own group, and the mean over the image is lost
            "normalisation": "group",
            "activation": "mish",
        },
        {"output_stride": 16},
    ),
    "multires_unet": Tiny({"depth": 2, "filters": 4, "activation": "mish"}, {"depth": 3}),
    "unet3_plus": Tiny(
        {"depth": 2, "filters": 2, "skip_filters": 2, "deep_supervision": True, "activation": "mish"},
        {"depth": 3},
    ),
    "u2net": Tiny({"depth": 3, "filters": 4, "size": "lite", "activation": "mish"}, {"depth": 4}),
    "swin_unet": Tiny({"depth": 2, "filters": 4, "patch": 2, "heads": 2, "window": 3}, {"depth": 3}),
}

every = pytest.mark.parametrize("name", ARCHITECTURES)
# TensorFlow has nothing to compile then; JAX compiles every single operation, or all as a whole.
EAGER = keras.backend.backend() != "jax"


def tiny(name, **params):
    return Component(name=name, params={**TINY[name].params, **params})


def deeper(name):
    return tiny(name, **TINY[name].deeper)


@functools.cache
def built(name, instance, channels, classes):
    """Return a network that no test changes."""
    keras.utils.set_random_seed(0)
    return build_model(instance(name), channels, classes)


def images(side, channels, count=2):
    return np.random.default_rng(0).random((count, side, side, channels), np.float32)


def least_side(component):
    """Return a small side that the network takes and that leaves its deepest level more than one pixel."""
    return max(16, 2 * stride(component))


def outputs(model, batch):
    """Return all outputs of a network: the prediction and, with deep supervision, its heads."""
    answer = model(batch, training=False) if EAGER else model.predict_on_batch(batch)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(answer)]


def test_the_tables_and_the_tiny_instances_name_the_same():
    assert ARCHITECTURES.keys() == STRIDES.keys() == TINY.keys()


@every
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 2), (5, 3)])
def test_every_output_is_a_probability_per_pixel(name, channels, classes):
    model = built(name, tiny, channels, classes)
    side = least_side(tiny(name))
    for probability in outputs(model, images(side, channels)):
        assert probability.shape == (2, side, side, classes)
        assert probability.dtype == np.float32
        assert probability.min() >= 0.0 and probability.max() <= 1.0
        assert probability.std() > 0.0
        if classes > 1:
            np.testing.assert_allclose(probability.sum(axis=-1), 1.0, rtol=1e-5)


@every
def test_a_step_of_gradient_descent_changes_every_weight(name):
    keras.utils.set_random_seed(0)
    model = build_model(tiny(name), 5, 3)
    batch = images(least_side(tiny(name)), 5)
    target = np.eye(3, dtype=np.float32)[np.random.default_rng(0).integers(3, size=batch.shape[:3])]
    losses = [bce_dice] if len(model.outputs) == 1 else [None] + [bce_dice] * len(model.outputs[1:])
    model.compile("sgd", loss=losses, run_eagerly=EAGER)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    model.train_on_batch(batch, [target] * len(losses) if losses[1:] else target)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        new = keras.ops.convert_to_numpy(variable)
        assert np.all(np.isfinite(new)), variable.path
        if variable.name == "kernel":
            assert np.any(new != old), variable.path


@every
def test_saved_model_loads_without_custom_objects_and_predicts_the_same(name, tmp_path):
    model = built(name, tiny, 1, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    batch = images(least_side(tiny(name)), 1)
    for answer, expected in zip(outputs(loaded, batch), outputs(model, batch), strict=True):
        np.testing.assert_array_equal(answer, expected)


@every
def test_depth_changes_the_parameter_count(name):
    assert built(name, tiny, 1, 1).count_params() < built(name, deeper, 1, 1).count_params()


@every
@pytest.mark.parametrize("instance", [tiny, deeper])
def test_stride_is_the_least_side_that_the_network_takes(name, instance):
    step = stride(instance(name))
    model = built(name, instance, 1, 1)
    assert model.compute_output_shape((1, 3 * step, step, 1)) in (
        (1, 3 * step, step, 1),
        [(1, 3 * step, step, 1)] * len(model.outputs),
    )
    # each backend has an exception of its own
    with pytest.raises(Exception, match=r"(?i)shape|dimension|size"):
        model(images(3 * step // 2, 1, count=1))


@every
def test_stride_of_the_defaults_is_known_without_building(name, monkeypatch):
    monkeypatch.setattr(keras, "Input", None)
    assert stride(Component(name=name)) >= 2


def test_stride_checks_the_component():
    with pytest.raises(MicrosegError, match=r"unknown model 'unett'; did you mean 'unet'\? allowed"):
        stride(Component(name="unett"))
    with pytest.raises(
        MicrosegError, match="parameter 'depth' is 9; Input should be less than or equal to 8"
    ):
        stride(Component(name="unet", params={"depth": 9}))


@pytest.mark.parametrize(
    ("params", "tile", "message"),
    [
        (
            {"depth": 4},
            20,
            r"best.yaml: tile 20 is not a multiple of 8, which model 'unet' \(depth 4\) needs; use 16 or 24",
        ),
        (
            {},
            4,
            r"tile 4 is not a multiple of 8, which model 'unet' \(defaults\) needs; use 8, or fewer levels",
        ),
    ],
)
def test_tile_that_the_network_does_not_divide_is_refused(params, tile, message):
    with pytest.raises(MicrosegError, match=message):
        check_tile(Component(name="unet", params=params), tile, "best.yaml")


@every
def test_tile_of_the_stride_suits_every_network(name):
    check_tile(tiny(name), 3 * stride(tiny(name)))


@every
def test_head_computes_in_float32_under_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_model(tiny(name), 1, 2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert any(layer.compute_dtype == "bfloat16" for layer in model.layers)
    for probability in outputs(model, images(least_side(tiny(name)), 1)):
        assert probability.dtype == np.float32
        np.testing.assert_allclose(probability.sum(axis=-1), 1.0, rtol=1e-6)
