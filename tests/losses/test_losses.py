"""The contract of every loss: finite, in float32, untouched by ignored pixels, and something learns with it."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from microseg import losses
from microseg.components import bind, parameters
from microseg.config import Component
from microseg.losses import BORDER_LOSSES, LOSSES

every = pytest.mark.parametrize("name", LOSSES)
maps_of = pytest.mark.parametrize("maps", [1, 3])
reductions_of = pytest.mark.parametrize(
    "name,reduction",
    [
        (name, reduction)
        for name in LOSSES
        for reduction in ("image", "batch")
        if reduction == "image" or "reduction" in parameters(LOSSES[name])
    ],
)


@pytest.fixture
def drawn(batch):
    """Return a function that draws the targets that a loss wants, with probabilities."""
    return lambda name, maps, **options: batch(maps, border=name in BORDER_LOSSES, **options)


def with_border(name, targets):
    """Targets as the loss wants them: where a border belongs to them, every object is alone."""
    far = np.full_like(targets[..., :1], 63.75)
    return np.concatenate([targets, far], axis=-1) if name in BORDER_LOSSES else targets


def test_the_border_losses_are_in_the_table():
    assert set(LOSSES) > BORDER_LOSSES


@every
@maps_of
def test_scalar_float32_and_decreasing_towards_the_truth(name, maps, drawn):
    y_true, y_pred = drawn(name, maps)
    worse, better = (LOSSES[name](y_true, (1 - w) * y_pred + w * y_true[..., :maps]) for w in (0, 0.5))
    assert worse.shape == () and worse.dtype == "float32"
    assert 0.0 < better < worse


@every
@maps_of
def test_value_and_gradient_are_finite_at_the_extremes(name, maps, batch, gradient):
    truth, _ = batch(maps)
    empty = np.zeros_like(truth)
    if maps > 1:
        empty[..., 0] = 1.0
    for targets, prediction in [
        (truth, truth),
        (truth, 1 - truth),
        (truth, empty),
        (empty, truth),
        (empty, empty),
    ]:
        value, slope = gradient(LOSSES[name], with_border(name, targets), prediction)
        assert np.isfinite(value) and np.all(np.isfinite(slope))
        assert value < 1e-5 if targets is prediction else value > 0.1


@every
@maps_of
def test_ignored_pixels_have_no_value_and_no_gradient(name, maps, drawn, gradient):
    y_true, y_pred = drawn(name, maps)
    y_true[:, :3, :, :maps] = -1.0
    value, slope = gradient(LOSSES[name], y_true, y_pred)
    np.testing.assert_allclose(value, LOSSES[name](y_true[:, 3:], y_pred[:, 3:]), rtol=1e-5)
    assert np.all(slope[:, :3] == 0.0) and np.any(slope[:, 3:] != 0.0)


@every
@maps_of
def test_what_is_predicted_where_nothing_is_labelled_does_not_matter(name, maps, drawn):
    y_true, y_pred = drawn(name, maps)
    y_true[:, 1::2, ::2, :maps] = -1.0
    other = y_pred.copy()
    other[:, 1::2, ::2] = 1.0 - other[:, 1::2, ::2]
    np.testing.assert_allclose(LOSSES[name](y_true, y_pred), LOSSES[name](y_true, other), rtol=1e-6)


@every
@maps_of
def test_nothing_labelled_is_no_loss(name, maps, drawn, gradient):
    y_true, y_pred = drawn(name, maps)
    y_true[..., :maps] = -1.0
    value, slope = gradient(LOSSES[name], y_true, y_pred)
    assert value == 0.0 and np.all(slope == 0.0)


@reductions_of
def test_image_without_labels_does_not_dilute_the_batch(name, reduction, drawn):
    given = {"reduction": reduction} if "reduction" in parameters(LOSSES[name]) else {}
    y_true, y_pred = drawn(name, 1)
    y_true[1, ..., :1] = -1.0
    alone = LOSSES[name](y_true[:1], y_pred[:1], **given)
    np.testing.assert_allclose(LOSSES[name](y_true, y_pred, **given), alone, rtol=1e-5)


@reductions_of
@maps_of
def test_the_order_of_images_and_pixels_does_not_matter(name, reduction, maps, drawn):
    given = {"reduction": reduction} if "reduction" in parameters(LOSSES[name]) else {}
    y_true, y_pred = drawn(name, maps)
    turned = LOSSES[name](y_true[::-1, :, ::-1].copy(), y_pred[::-1, :, ::-1].copy(), **given)
    np.testing.assert_allclose(LOSSES[name](y_true, y_pred, **given), turned, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in LOSSES if "reduction" in parameters(LOSSES[name])])
@maps_of
def test_image_reduction_averages_the_images(name, maps, drawn):
    y_true, y_pred = drawn(name, maps)
    images = [float(LOSSES[name](y_true[i : i + 1], y_pred[i : i + 1])) for i in range(2)]
    cross_entropy = {"bce_dice", "bce_iou", "bce_ssim_iou"}  # the mean over the pixels, the same here
    assert name in cross_entropy or abs(images[0] - images[1]) > 1e-4
    np.testing.assert_allclose(LOSSES[name](y_true, y_pred, reduction="image"), np.mean(images), rtol=1e-5)
    if maps == 1 and name != "bce_ssim_iou":  # its windows would cross from one image to the next
        pooled = LOSSES[name](y_true.reshape(1, 12, 5, 1), y_pred.reshape(1, 12, 5, 1))
        np.testing.assert_allclose(LOSSES[name](y_true, y_pred, reduction="batch"), pooled, rtol=1e-5)
        assert abs(float(pooled) - np.mean(images)) > 1e-5


@every
@maps_of
def test_half_precision_predictions_are_summed_in_float32(name, maps, drawn):
    y_true, y_pred = drawn(name, maps, shape=(1, 64, 64))
    half = keras.ops.cast(y_pred, "bfloat16")
    value = LOSSES[name](y_true, half)
    assert value.dtype == "float32"
    np.testing.assert_allclose(value, LOSSES[name](y_true, keras.ops.cast(half, "float32")), rtol=1e-6)


@every
@maps_of
def test_same_value_in_a_graph_that_knows_no_sizes(name, maps, drawn):
    y_true, y_pred = drawn(name, maps)
    shapes = [tf.TensorSpec([None, None, None, x.shape[-1]], tf.float32) for x in (y_true, y_pred)]
    value = tf.function(LOSSES[name], input_signature=shapes, jit_compile=False)(y_true, y_pred)
    np.testing.assert_allclose(value, LOSSES[name](y_true, y_pred), rtol=1e-5)


@every
def test_steps_against_the_gradient_lead_to_the_truth(name, drawn, gradient):
    y_true, y_pred = drawn(name, 1)
    start, slope = gradient(LOSSES[name], y_true, y_pred)
    for _ in range(40):
        y_pred = np.clip(y_pred - 0.05 * slope / max(np.abs(slope).max(), 1e-9), 0.01, 0.99)
        value, slope = gradient(LOSSES[name], y_true, y_pred)
    assert value < 0.6 * start
    assert np.mean((y_pred > 0.5) == (y_true[..., :1] > 0.5)) > 0.9


@pytest.mark.parametrize("name", ["bce_border", "lovasz"])
def test_keras_fits_with_targets_of_another_width_and_with_sorting(name, drawn):
    y_true, image = drawn(name, 1, shape=(4, 8, 8))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 1, activation="sigmoid")])
    loss = bind(Component(name=name), LOSSES, "loss")
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss, jit_compile=False)
    history = model.fit(image + y_true[..., :1], y_true, epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


def test_no_loss_imports_a_backend():
    for path in Path(losses.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not {module.split(".")[0] for module in modules} & {"tensorflow", "jax", "torch"}
