"""Outlines: boundary F1 and 95 % Hausdorff by hand, against scikit-image, and what is empty or ignored."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import hausdorff_distance

from microseg.metrics import LOWER_IS_BETTER, boundary_f1, hausdorff95
from microseg.metrics.boundary import _outline, outline_distances


def square(top, left, side, shape=(40, 50)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def blobs(seed):
    noise = np.random.default_rng(seed).normal(size=(30, 34))
    return (gaussian_filter(noise, 3) > 0.02).astype(np.uint8)


@given(seeds=st.tuples(st.integers(0, 500), st.integers(501, 1000)))
@settings(max_examples=15, deadline=None)
def test_largest_distance_agrees_with_scikit_image(seeds):
    truth, predicted = (blobs(seed) for seed in seeds)
    there, back = outline_distances(truth, predicted)
    expected = hausdorff_distance(_outline(truth > 0), _outline(predicted > 0))
    assert max(there.max(), back.max()) == pytest.approx(expected)
    assert hausdorff95(truth, predicted) <= expected
    assert hausdorff95(truth, predicted) == hausdorff95(predicted, truth)


def test_outline_by_hand():
    mask = square(1, 1, 4, (6, 6)) > 0
    expected = mask.copy()
    expected[2:4, 2:4] = False
    np.testing.assert_array_equal(_outline(mask), expected)
    assert _outline(np.ones((5, 5), bool)).sum() == 16  # background lies beyond the image


def test_shifted_square_is_as_far_as_it_is_shifted():
    truth = square(10, 10, 20)
    assert hausdorff95(truth, square(10, 14, 20)) == 4.0
    assert hausdorff95(truth, square(10, 14, 20), pixel_size_um=0.25) == 1.0


def test_stray_pixel_does_not_decide():
    truth = square(10, 10, 20)
    stray = truth.copy()
    stray[0, 49] = 1
    assert hausdorff95(truth, stray) == 0.0
    assert max(d.max() for d in outline_distances(truth, stray)) > 20


def test_tolerance_decides_about_the_boundary_score():
    truth, predicted = square(10, 10, 20), square(12, 12, 16)
    recall = 64 / 76  # three pixels at each corner of the larger outline are farther away
    assert boundary_f1(truth, predicted, tolerance=2.0) == pytest.approx(2 * recall / (1 + recall))
    assert boundary_f1(truth, predicted, tolerance=1.9) == 0.0
    assert boundary_f1(truth, truth, tolerance=0.0) == 1.0


def test_invented_object_costs_precision():
    truth = square(2, 2, 10)
    predicted = truth | square(25, 25, 10)
    assert boundary_f1(truth, predicted) == pytest.approx(2 * 0.5 / 1.5)
    assert boundary_f1(predicted, truth) == pytest.approx(2 * 0.5 / 1.5)


def test_empty_masks_have_a_score_and_a_finite_distance():
    empty, full = np.zeros((30, 40), np.uint8), np.ones((30, 40), np.uint8)
    assert (boundary_f1(empty, empty), hausdorff95(empty, empty)) == (1.0, 0.0)
    for truth, predicted in ((empty, full), (full, empty)):
        assert (boundary_f1(truth, predicted), hausdorff95(truth, predicted)) == (0.0, 50.0)
        assert hausdorff95(truth, predicted, pixel_size_um=0.1) == pytest.approx(5.0)
    assert boundary_f1(full, full) == 1.0


def test_what_is_ignored_is_background_in_both():
    truth, predicted = square(10, 10, 20), square(10, 10, 20) | square(0, 35, 8)
    truth[0:8, 35:43] = 255
    assert boundary_f1(truth, predicted) == 1.0 and hausdorff95(truth, predicted) == 0.0
    truth[:] = 255
    assert boundary_f1(truth, predicted) == 1.0 and hausdorff95(truth, predicted) == 0.0


def test_one_class_is_compared_at_a_time():
    truth, predicted = 2 * square(10, 10, 20), 2 * square(10, 13, 20)
    assert hausdorff95(truth, predicted) == 0.0
    assert hausdorff95(truth, predicted, label=2) == 3.0
    assert boundary_f1(truth, predicted, label=2, tolerance=3.0) == 1.0


def test_booleans_are_masks_too():
    truth, predicted = square(10, 10, 20), square(11, 12, 20)
    assert (
        hausdorff95(truth > 0, predicted > 0)
        == hausdorff95(truth, predicted)
        == pytest.approx(np.percentile(outline_distances(truth, predicted)[0], 95))
    )
    assert math.isfinite(hausdorff95(truth, predicted))


def test_a_shorter_distance_is_better():
    assert {"loss", "hausdorff95", "hausdorff95_um"} < LOWER_IS_BETTER
