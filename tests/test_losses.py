"""Losses: the contract of every entry, values by hand, and what ignored pixels may not do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.losses import LOSSES, bce, bce_dice, dice, tversky

every = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
maps_of = pytest.mark.parametrize("maps", [1, 3])


def batch(maps, seed=0, shape=(2, 6, 5)):
    rng = np.random.default_rng(seed)
    if maps == 1:
        return rng.integers(0, 2, (*shape, 1)).astype(np.float32), rng.random((*shape, 1), np.float32)
    logits = rng.normal(size=(*shape, maps)).astype(np.float32)
    probability = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return np.eye(maps, dtype=np.float32)[rng.integers(0, maps, shape)], probability


def gradient(loss, y_true, y_pred):
    y_pred = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(y_true, y_pred)
    return value.numpy(), tape.gradient(value, y_pred).numpy()


@every
@maps_of
def test_scalar_float32_and_decreasing_towards_the_truth(loss, maps):
    y_true, y_pred = batch(maps)
    worse, better = loss(y_true, y_pred), loss(y_true, 0.5 * y_pred + 0.5 * y_true)
    assert worse.shape == () and worse.dtype == "float32"
    assert 0.0 < better < worse


@every
@maps_of
def test_value_and_gradient_are_finite_at_the_extremes(loss, maps):
    y_true, _ = batch(maps)
    empty = np.zeros_like(y_true)
    if maps > 1:
        empty[..., 0] = 1.0
    for truth, prediction in [(y_true, y_true), (y_true, 1 - y_true), (y_true, empty), (empty, empty)]:
        value, slope = gradient(loss, truth, prediction)
        assert np.isfinite(value) and np.all(np.isfinite(slope))
    assert gradient(loss, y_true, y_true)[0] < 1e-5
    assert gradient(loss, empty, empty)[0] < 1e-5


@every
@maps_of
def test_ignored_pixels_have_no_value_and_no_gradient(loss, maps):
    y_true, y_pred = batch(maps)
    y_true[:, :3] = -1.0
    value, slope = gradient(loss, y_true, y_pred)
    np.testing.assert_allclose(value, loss(y_true[:, 3:], y_pred[:, 3:]), rtol=1e-6)
    assert np.all(slope[:, :3] == 0.0) and np.any(slope[:, 3:] != 0.0)


@every
@maps_of
def test_nothing_labelled_is_no_loss(loss, maps):
    y_true, y_pred = batch(maps)
    value, slope = gradient(loss, np.full_like(y_true, -1.0), y_pred)
    assert value == 0.0 and np.all(slope == 0.0)


@every
def test_image_without_labels_does_not_dilute_the_batch(loss):
    y_true, y_pred = batch(1)
    y_true[1] = -1.0
    np.testing.assert_allclose(loss(y_true, y_pred), loss(y_true[:1], y_pred[:1]), rtol=1e-6)


@every
@maps_of
def test_half_precision_predictions_are_summed_in_float32(loss, maps):
    y_true, y_pred = batch(maps, shape=(1, 64, 64))
    half = keras.ops.cast(y_pred, "bfloat16")
    value = loss(y_true, half)
    assert value.dtype == "float32"
    np.testing.assert_allclose(value, loss(y_true, keras.ops.cast(half, "float32")), rtol=1e-6)


@every
def test_a_network_learns_with_it(loss):
    y_true, image = batch(1, shape=(4, 8, 8))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 1, activation="sigmoid")])
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=loss)
    history = model.fit(image + y_true, y_true, epochs=10, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


def test_bce_by_hand():
    y_true = np.array([1.0, 0.0, -1.0]).reshape(1, 1, 3, 1)
    y_pred = np.array([0.8, 0.4, 0.9]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(bce(y_true, y_pred), -(np.log(0.8) + np.log(0.6)) / 2, rtol=1e-6)


def test_categorical_cross_entropy_agrees_with_keras():
    y_true, y_pred = batch(3)
    expected = keras.losses.categorical_crossentropy(y_true, y_pred)
    np.testing.assert_allclose(bce(y_true, y_pred), np.mean(expected), rtol=1e-5)


def test_dice_by_hand():
    y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    y_pred = np.array([0.5, 1.0, 0.25, 0.0]).reshape(1, 2, 2, 1)
    tp, fn, fp = 1.5, 0.5, 0.25
    expected = 1 - (2 * tp + 1) / (2 * tp + fn + fp + 1)
    np.testing.assert_allclose(dice(y_true, y_pred), expected, rtol=1e-6)


def test_batch_reduction_pools_and_image_reduction_averages():
    y_true, y_pred = batch(1)
    images = [float(dice(y_true[i : i + 1], y_pred[i : i + 1])) for i in range(2)]
    np.testing.assert_allclose(dice(y_true, y_pred, reduction="image"), np.mean(images), rtol=1e-6)
    pooled = dice(y_true.reshape(1, 12, 5, 1), y_pred.reshape(1, 12, 5, 1))
    np.testing.assert_allclose(dice(y_true, y_pred, reduction="batch"), pooled, rtol=1e-6)
    assert abs(float(pooled) - np.mean(images)) > 1e-4


def test_alpha_of_tversky_weighs_the_false_negatives():
    y_true = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    missed = np.array([1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
    invented = np.array([1.0, 1.0, 1.0, 0.0]).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(tversky(y_true, missed, alpha=0.7, smooth=1e-9), 1 - 1 / 1.7, rtol=1e-5)
    np.testing.assert_allclose(tversky(y_true, invented, alpha=0.7, smooth=1e-9), 1 - 2 / 2.3, rtol=1e-5)


@given(smooth=st.floats(1e-3, 10.0), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_dice_is_tversky_with_equal_weights_and_half_the_smooth(smooth, seed):
    y_true, y_pred = batch(1, seed)
    equal = tversky(y_true, y_pred, alpha=0.5, smooth=smooth / 2)
    np.testing.assert_allclose(dice(y_true, y_pred, smooth=smooth), equal, rtol=1e-6)


@given(weight=st.floats(0.0, 1.0), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_bce_dice_is_the_weighted_sum(weight, seed):
    y_true, y_pred = batch(3, seed)
    expected = weight * float(bce(y_true, y_pred)) + (1 - weight) * float(dice(y_true, y_pred))
    np.testing.assert_allclose(bce_dice(y_true, y_pred, weight=weight), expected, rtol=1e-5)


def test_overlap_of_several_maps_leaves_the_background_out():
    y_true, y_pred = batch(3)
    single = [float(dice(y_true[..., k : k + 1], y_pred[..., k : k + 1])) for k in (1, 2)]
    np.testing.assert_allclose(dice(y_true, y_pred), np.mean(single), rtol=1e-5)
