"""Structural similarity against scikit-image; the Lovász extension against its definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from skimage.metrics import structural_similarity

from microseg.losses import bce, bce_ssim_iou, iou, lovasz
from microseg.losses.structure import RADIUS, _lovasz_extension, _similarity

few = settings(max_examples=10, deadline=None)


def test_similarity_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    x = (rng.random((32, 27)) > 0.6).astype(np.float32)
    y = np.clip(0.7 * x + 0.3 * rng.random(x.shape, np.float32), 0, 1)
    _, expected = structural_similarity(
        x, y, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    ours = np.array(_similarity(x[None, ..., None], y[None, ..., None], np.ones((1, 32, 27, 1), "f")))[
        0, ..., 0
    ]
    inner = (slice(RADIUS, -RADIUS),) * 2  # beyond its border scikit-image reflects, where we see nothing
    np.testing.assert_allclose(ours[inner], expected[inner], atol=2e-4)
    assert np.all(np.isfinite(ours)) and np.abs(ours).max() <= 1.0 + 1e-5


def test_similarity_sees_structure_that_the_pixels_do_not():
    stripes = np.tile((np.arange(24) // 3 % 2).astype(np.float32), (24, 1))[None, ..., None]
    everywhere = np.ones_like(stripes)
    grey = float(ops.mean(_similarity(stripes, 0 * stripes + 0.5, everywhere)))
    faint = float(ops.mean(_similarity(stripes, 0.4 + 0.2 * stripes, everywhere)))
    assert grey < 0.05 < 0.3 < faint < 1.0


def test_hybrid_is_the_weighted_sum_of_its_parts(batch):
    y_true, y_pred = batch(1, shape=(2, 12, 13))
    ssim = float(bce_ssim_iou(y_true, y_pred, weights=(0.0, 1.0, 0.0)))
    expected = 0.5 * float(bce(y_true, y_pred)) + 2.0 * ssim + 3.0 * float(iou(y_true, y_pred))
    np.testing.assert_allclose(bce_ssim_iou(y_true, y_pred, weights=(0.5, 2.0, 3.0)), expected, rtol=1e-5)
    maps = np.array(_similarity(y_true, y_pred, np.ones_like(y_true)))
    np.testing.assert_allclose(ssim, 1 - maps.mean(), rtol=1e-4)


def test_windows_do_not_reach_into_what_is_ignored(batch):
    y_true, y_pred = batch(1, shape=(1, 24, 16))
    part = bce_ssim_iou(y_true[:, 9:], y_pred[:, 9:], weights=(0.0, 1.0, 0.0))
    y_true[:, :9] = -1.0
    np.testing.assert_allclose(bce_ssim_iou(y_true, y_pred, weights=(0.0, 1.0, 0.0)), part, rtol=1e-5)


def jaccard_loss(truth, wrong):
    union = truth.sum() + (wrong & ~truth).sum()
    return 1 - (truth & ~wrong).sum() / union if union else 0.0


def extension(truth, errors):
    """The Lovász extension by its definition (Berman et al. 2018, equation 8)."""
    order, wrong, total, before = np.argsort(-errors), np.zeros(truth.size, bool), 0.0, 0.0
    for index in order:
        wrong[index] = True
        total, before = (
            total + errors[index] * (jaccard_loss(truth, wrong) - before),
            jaccard_loss(truth, wrong),
        )
    return total


@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@few
def test_lovasz_agrees_with_its_definition(seed, share):
    rng = np.random.default_rng(seed)
    truth, p = rng.random(20) < share, rng.random(20)
    shaped = [np.asarray(x, np.float32).reshape(1, 4, 5, 1) for x in (truth, p)]
    softmax = extension(truth, np.abs(truth - p))
    hinge = extension(truth, np.maximum(1 - (2 * truth - 1) * np.log(p / (1 - p)), 0))
    assert float(lovasz(*shaped, variant="softmax")) == pytest.approx(softmax, rel=1e-4)
    assert float(lovasz(*shaped, variant="hinge")) == pytest.approx(hinge, rel=1e-4)
    assert float(lovasz(*shaped)) == pytest.approx(hinge, rel=1e-4)


def test_lovasz_at_binary_predictions_is_the_jaccard_loss_and_the_hinge_never_below():
    pairs = np.array(list(itertools.product(itertools.product([0, 1], repeat=4), repeat=2)), np.float32)
    truth, found = pairs[:, 0], pairs[:, 1]
    expected = [jaccard_loss(t > 0, t != p) for t, p in zip(truth, found, strict=True)]
    y_true, y_pred = truth.reshape(-1, 2, 2, 1), found.reshape(-1, 2, 2, 1)
    rows = _lovasz_extension(*(x[..., None] for x in (np.abs(truth - found), truth, np.ones_like(truth))))
    np.testing.assert_allclose(rows[:, 0], expected, atol=1e-6)
    assert float(lovasz(y_true, y_pred, variant="softmax")) == pytest.approx(np.mean(expected), rel=1e-5)
    for index in (3, 77, 200):
        one = slice(index, index + 1)
        assert float(lovasz(y_true[one], y_pred[one], variant="hinge")) >= expected[index] > 0.4


def test_lovasz_of_several_maps_is_softmax_and_leaves_the_background_out(batch):
    y_true, y_pred = batch(3)
    for variant in ("softmax", "hinge"):
        single = [float(lovasz(y_true[..., [k]], y_pred[..., [k]], variant=variant)) for k in (1, 2)]
        np.testing.assert_allclose(lovasz(y_true, y_pred, variant=variant), np.mean(single), rtol=1e-5)
    assert float(lovasz(y_true, y_pred)) == float(lovasz(y_true, y_pred, variant="softmax"))


def test_weights_of_a_large_image_keep_their_precision():
    # equal errors of 1: the extension is the Jaccard loss of everything wrong, 1, made of 2 million weights
    size = 2**21
    truth = (np.arange(size) % 1000 == 0).astype(np.float32).reshape(1, size, 1)
    errors = np.linspace(1.0, 0.0, size, dtype=np.float32).reshape(1, size, 1)
    ours = float(_lovasz_extension(errors, truth, np.ones_like(truth))[0, 0])
    t, e = truth.ravel().astype(np.float64), errors.ravel().astype(np.float64)
    jaccard = 1 - (t.sum() - np.cumsum(t)) / (t.sum() + np.cumsum(1 - t))
    assert ours == pytest.approx(np.sum(e * np.diff(jaccard, prepend=0.0)), rel=1e-5)
