"""Cross-entropies by hand and against Keras: classes, hard pixels and borders weighed."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.losses import LOSSES, bce, bce_border, focal


def pixels(*values):
    return np.array(values, np.float32).reshape(1, 1, -1, 1)


def test_bce_by_hand():
    loss = bce(pixels(1, 0, -1), pixels(0.8, 0.4, 0.9))
    np.testing.assert_allclose(loss, -(np.log(0.8) + np.log(0.6)) / 2, rtol=1e-6)


def test_categorical_cross_entropy_agrees_with_keras(batch):
    y_true, y_pred = batch(3)
    expected = keras.losses.categorical_crossentropy(y_true, y_pred)
    np.testing.assert_allclose(bce(y_true, y_pred), np.mean(expected), rtol=1e-5)


def test_class_weights_multiply_their_pixels_and_the_number_of_pixels_divides():
    loss = bce(pixels(1, 0, 0, -1), pixels(0.8, 0.4, 0.5, 0.9), class_weights=(0.5, 3.0))
    expected = -(3 * np.log(0.8) + 0.5 * np.log(0.6) + 0.5 * np.log(0.5)) / 3
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_class_weights_of_several_maps_start_with_the_background(batch):
    y_true, y_pred = batch(3)
    weights = np.array([0.5, 2.0, 4.0])
    expected = (y_true @ weights * -np.log(y_pred[y_true > 0].reshape(y_true.shape[:3]))).mean()
    np.testing.assert_allclose(bce(y_true, y_pred, class_weights=tuple(weights)), expected, rtol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_agrees_with_keras(alpha, gamma, batch):
    y_true, y_pred = batch(1)
    options = {"alpha": alpha, "apply_class_balancing": True} if alpha else {}
    expected = keras.losses.binary_focal_crossentropy(y_true, y_pred, gamma=gamma, **options)
    np.testing.assert_allclose(focal(y_true, y_pred, gamma=gamma, alpha=alpha), np.mean(expected), rtol=1e-4)


def test_focal_example_of_the_paper():
    # Lin et al. 2017, section 3.2: with gamma 2, an example classified with 0.9 has 100 times less loss
    ratio = bce(pixels(1), pixels(0.9)) / focal(pixels(1), pixels(0.9), gamma=2.0)
    np.testing.assert_allclose(ratio, 100, rtol=1e-4)


@given(seed=st.integers(0, 1000), alpha=st.floats(0.0, 1.0))
@settings(max_examples=10, deadline=None)
def test_focal_without_focus_is_the_weighted_cross_entropy(seed, alpha, batch):
    y_true, y_pred = batch(3, seed)
    weighted = bce(y_true, y_pred, class_weights=(2 * (1 - alpha), 3 * alpha, 4 * alpha))
    unfocused = focal(y_true, y_pred, gamma=0.0, alpha=alpha, class_weights=(2.0, 3.0, 4.0))
    np.testing.assert_allclose(unfocused, weighted, rtol=1e-5, atol=1e-7)


def test_weights_of_the_u_net_paper_by_hand():
    y_true = np.concatenate([pixels(0, 1, 0, -1), pixels(0.0, 5.0, 63.75, 1.0)], axis=-1)
    loss = bce_border(y_true, pixels(0.4, 0.8, 0.5, 0.9))
    weights = np.array([1 + 10, 1 + 10 * np.exp(-0.5), 1.0])
    np.testing.assert_allclose(loss, -np.sum(weights * np.log([0.6, 0.8, 0.5])) / 3, rtol=1e-6)
    loss = bce_border(y_true, pixels(0.4, 0.8, 0.5, 0.9), w0=4.0, sigma=2.5, class_weights=(0.5, 3.0))
    weights = np.array([0.5 + 4, 3 + 4 * np.exp(-2.0), 0.5])
    np.testing.assert_allclose(loss, -np.sum(weights * np.log([0.6, 0.8, 0.5])) / 3, rtol=1e-6)


@pytest.mark.parametrize("maps", [1, 3])
def test_without_border_weight_or_far_from_all_it_is_the_cross_entropy(maps, batch):
    y_true, y_pred = batch(maps, border=True)
    expected = bce(y_true[..., :maps], y_pred)
    np.testing.assert_allclose(bce_border(y_true, y_pred, w0=0.0), expected, rtol=1e-6)
    y_true[..., -1] = 63.75
    np.testing.assert_allclose(bce_border(y_true, y_pred), expected, rtol=1e-6)


def test_bce_border_without_distances_says_what_is_missing(batch):
    with pytest.raises(
        MicrosegError, match=r"given 3 maps of targets and no distances; append d1 \+ d2 in pix"
    ):
        bce_border(*batch(3))


@pytest.mark.parametrize("loss", [bce, focal, bce_border])
def test_weights_that_do_not_fit_are_refused_in_one_line(loss, batch):
    y_true, y_pred = batch(1, border=loss is bce_border)
    with pytest.raises(
        MicrosegError, match=r"has 3 numbers, but there are 2 classes with the background; give 2"
    ):
        loss(y_true, y_pred, class_weights=(1.0, 2.0, 3.0))
    with pytest.raises(MicrosegError, match=r"'balanced', but no class frequencies were given"):
        loss(y_true, y_pred, class_weights="balanced")


@pytest.mark.parametrize(
    "name,params",
    [
        ("bce", {"class_weights": [1, -1]}),
        ("bce", {"class_weights": "balance"}),
        ("bce", {"class_weights": [1, float("inf")]}),
        ("focal", {"gamma": -1}),
        ("focal", {"alpha": 1.5}),
        ("bce_border", {"sigma": 16}),
        ("bce_border", {"sigma": 0}),
    ],
)
def test_values_out_of_range_are_refused_before_training(name, params):
    with pytest.raises(MicrosegError, match=f"loss '{name}': parameter '{next(iter(params))}' is "):
        check(Component(name=name, params=params), LOSSES, "loss")
