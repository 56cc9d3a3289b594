"""Dice, Jaccard, Tversky and what is made of them: by hand, against the formulas, and each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.losses import (
    LOSSES,
    bce,
    bce_dice,
    bce_iou,
    dice,
    focal_tversky,
    generalised_dice,
    iou,
    log_cosh_dice,
    tversky,
)

few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 1000)
Y_TRUE = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 2, 2, 1)
Y_PRED = np.array([0.5, 1.0, 0.25, 0.0]).reshape(1, 2, 2, 1)
TP, FN, FP = 1.5, 0.5, 0.25  # of these
EPSILON_ROOT = 1e-7**0.3  # what the finite slope at a perfect prediction costs with the smallest gamma


def test_dice_and_iou_by_hand():
    np.testing.assert_allclose(dice(Y_TRUE, Y_PRED), 1 - (2 * TP + 1) / (2 * TP + FN + FP + 1), rtol=1e-6)
    np.testing.assert_allclose(iou(Y_TRUE, Y_PRED), 1 - (TP + 1) / (TP + FN + FP + 1), rtol=1e-6)


def test_alpha_of_tversky_weighs_the_false_negatives():
    missed, invented = Y_TRUE.copy(), Y_TRUE.copy()
    missed[0, 0, 1], invented[0, 1, 0] = 0.0, 1.0
    np.testing.assert_allclose(tversky(Y_TRUE, missed, alpha=0.7, smooth=1e-9), 1 - 1 / 1.7, rtol=1e-5)
    np.testing.assert_allclose(tversky(Y_TRUE, invented, alpha=0.7, smooth=1e-9), 1 - 2 / 2.3, rtol=1e-5)
    focused = focal_tversky(Y_TRUE, missed, alpha=0.7, smooth=1e-9)
    np.testing.assert_allclose(focused, (1 - 1 / 1.7) ** 0.75, rtol=1e-4)


@given(smooth=st.floats(1e-3, 10.0), seed=seeds)
@few
def test_dice_is_tversky_with_equal_weights_and_half_the_smooth(smooth, seed, batch):
    y_true, y_pred = batch(1, seed)
    equal = tversky(y_true, y_pred, alpha=0.5, smooth=smooth / 2)
    np.testing.assert_allclose(dice(y_true, y_pred, smooth=smooth), equal, rtol=1e-6)


@given(seed=seeds)
@few
def test_jaccard_follows_from_dice(seed, batch):
    y_true, y_pred = batch(1, seed, shape=(1, 6, 5))
    coefficient = 1 - float(dice(y_true, y_pred, smooth=1e-6))
    jaccard = 1 - float(iou(y_true, y_pred, smooth=1e-6))
    assert jaccard == pytest.approx(coefficient / (2 - coefficient), rel=1e-4)


@given(seed=seeds)
@few
def test_log_cosh_dice_is_the_log_cosh_of_each_image(seed, batch):
    y_true, y_pred = batch(1, seed)
    images = [float(dice(y_true[i : i + 1], y_pred[i : i + 1])) for i in range(2)]
    expected = np.mean(np.log(np.cosh(images)))
    np.testing.assert_allclose(log_cosh_dice(y_true, y_pred), expected, rtol=1e-5)


def test_log_cosh_keeps_its_precision_near_a_perfect_prediction():
    almost = Y_TRUE.copy()
    almost[0, 0, 0] = 1 - 1e-3
    loss = float(dice(Y_TRUE, almost))
    np.testing.assert_allclose(log_cosh_dice(Y_TRUE, almost), loss**2 / 2, rtol=1e-4)


@given(gamma=st.floats(0.3, 5.0), seed=seeds)
@few
def test_focal_tversky_is_the_power_of_each_image(gamma, seed, batch):
    y_true, y_pred = batch(1, seed)
    images = [float(tversky(y_true[i : i + 1], y_pred[i : i + 1])) for i in range(2)]
    assert float(focal_tversky(y_true, y_pred, gamma=gamma)) == pytest.approx(
        np.mean(np.power(images, gamma)), rel=1e-3, abs=EPSILON_ROOT
    )


@pytest.mark.parametrize("gamma", [0.3, 0.75])
def test_focal_tversky_has_a_finite_slope_at_and_near_a_perfect_prediction(gamma, gradient):
    for off in (0.0, 1e-7, 1e-4):
        value, slope = gradient(
            lambda t, p: focal_tversky(t, p, gamma=gamma),
            Y_TRUE.astype("f"),
            np.abs(Y_TRUE - off).astype("f"),
        )
        assert np.all(np.isfinite(slope)) and np.any(slope != 0) and -1e-6 < value < 0.2


def test_generalised_dice_by_hand():
    # foreground 2 of 4 pixels, background 2 of 4: both weigh 1/4, which cancels
    wrong = 2 * (FN + FP)
    right = TP + (2 - FP)
    np.testing.assert_allclose(generalised_dice(Y_TRUE, Y_PRED), wrong / (2 * right + wrong), rtol=1e-6)


def test_generalised_dice_agrees_with_the_formula_of_the_paper(batch):
    y_true, y_pred = (x.astype(np.float64) for x in batch(3, shape=(1, 6, 5)))
    y_true[0, 0] = [1, 0, 0]  # uneven classes
    weights = 1 / y_true.sum(axis=(0, 1, 2)) ** 2
    numerator = (weights * (y_true * y_pred).sum(axis=(0, 1, 2))).sum()
    denominator = (weights * (y_true + y_pred).sum(axis=(0, 1, 2))).sum()
    np.testing.assert_allclose(generalised_dice(y_true, y_pred), 1 - 2 * numerator / denominator, rtol=1e-5)


def test_generalised_dice_without_a_class_is_neither_infinite_nor_blind(batch):
    y_true, y_pred = batch(3, shape=(1, 6, 5))
    y_true[..., 2] = 0.0
    y_true[..., 0] = 1.0 - y_true[..., 1]
    pixels = y_true.sum(axis=(0, 1, 2))
    weights = 1 / pixels[[0, 1, 1 if pixels[1] < pixels[0] else 0]] ** 2
    numerator = (weights * (y_true * y_pred).sum(axis=(0, 1, 2))).sum()
    denominator = (weights * (y_true + y_pred).sum(axis=(0, 1, 2))).sum()
    np.testing.assert_allclose(generalised_dice(y_true, y_pred), 1 - 2 * numerator / denominator, rtol=1e-5)


@given(weight=st.floats(0.0, 1.0), seed=seeds)
@few
def test_combinations_are_weighted_sums(weight, seed, batch):
    y_true, y_pred = batch(3, seed)
    for loss, part in ((bce_dice, dice), (bce_iou, iou)):
        expected = weight * float(bce(y_true, y_pred)) + (1 - weight) * float(part(y_true, y_pred))
        np.testing.assert_allclose(loss(y_true, y_pred, weight=weight), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [dice, iou, tversky, focal_tversky, log_cosh_dice])
def test_overlap_of_several_maps_leaves_the_background_out(loss, batch):
    y_true, y_pred = batch(3)
    single = [float(loss(y_true[..., k : k + 1], y_pred[..., k : k + 1])) for k in (1, 2)]
    np.testing.assert_allclose(loss(y_true, y_pred), np.mean(single), rtol=1e-5)


@pytest.mark.parametrize("loss", [tversky, iou])
def test_published_smooth_is_finite_in_float32(loss, gradient):
    empty = np.zeros((1, 4, 4, 1), np.float32)
    for y_true, y_pred in ((empty, empty), (empty, empty + 0.5), (empty + 1, empty)):
        value, slope = gradient(lambda t, p: loss(t, p, smooth=1e-15), y_true, y_pred)
        assert np.isfinite(value) and np.all(np.isfinite(slope))


@pytest.mark.parametrize(
    "name,params",
    [
        ("tversky", {"alpha": 1.1}),
        ("focal_tversky", {"gamma": 0}),
        ("dice", {"smooth": 0}),
        ("iou", {"reduction": "sum"}),
    ],
)
def test_values_out_of_range_are_refused_before_training(name, params):
    with pytest.raises(MicrosegError, match=f"loss '{name}': parameter '{next(iter(params))}' is "):
        check(Component(name=name, params=params), LOSSES, "loss")
