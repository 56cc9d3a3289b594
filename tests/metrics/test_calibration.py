"""Histograms of probability against truth: known values, and agreement with what pixels give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.metrics import classify, confusion, pooled
from microseg.metrics.calibration import (
    BINS,
    calibration,
    dice_by_threshold,
    expected_calibration_error,
    probability_histogram,
    reliability,
    thresholds_of_others,
)


def image(*pixels):
    """One row of pixels, each a pair of truth and probability."""
    truth, probability = zip(*pixels, strict=True)
    return np.array([truth], np.uint8), np.array([probability], np.float32)[..., None]


def test_pixels_are_counted_by_probability_and_ignored_ones_are_not():
    found = probability_histogram(*image((1, 0.0), (0, 0.005), (1, 0.505), (255, 0.505), (0, 1.0)))
    expected = np.zeros((2, BINS), int)
    expected[0, [0, 50, 99]], expected[1, [0, 50]] = [2, 1, 1], [1, 1]
    np.testing.assert_array_equal(found, expected)


def test_of_several_maps_the_foreground_is_what_the_background_leaves():
    truth = np.array([[0, 1, 2]], np.uint8)
    maps = np.array([[[0.895, 0.1, 0.005], [0.195, 0.7, 0.105], [0.395, 0.3, 0.305]]])
    found = probability_histogram(truth, maps)
    assert [np.flatnonzero(row).tolist() for row in found] == [[10, 60, 80], [60, 80]]


def test_what_is_no_number_is_no_foreground():
    found = probability_histogram(*image((1, np.nan), (0, 1.5)))
    assert np.flatnonzero(found[0]).tolist() == [0, 99]


@given(seed=st.integers(0, 2**16), threshold=st.sampled_from([0.25, 0.5, 0.75]))
@settings(max_examples=20, deadline=None)
def test_dice_by_threshold_is_that_of_the_pixels_together(seed, threshold):
    rng = np.random.default_rng(seed)
    pairs = [
        (rng.integers(0, 2, (6, 7), np.uint8), rng.random((6, 7, 1), np.float32)) for _ in range(3)
    ]  # three images
    counts = [confusion(truth, classify(chance, threshold), 1) for truth, chance in pairs]
    expected = pooled(type(counts[0])(*(np.stack(member) for member in zip(*counts, strict=True))))["dice"]
    total = np.sum([probability_histogram(*pair) for pair in pairs], axis=0)
    assert dice_by_threshold(total)[int(threshold * BINS)] == pytest.approx(expected)


def test_what_happens_as_often_as_it_is_said_is_calibrated():
    truth = np.repeat([1, 0, 1, 0], [3, 7, 7, 3])
    chance = np.repeat([0.305, 0.705], 10)
    well = probability_histogram(*image(*zip(truth, chance, strict=True)))
    assert expected_calibration_error(well) == pytest.approx(0.005)  # 0.305 happens in 0.3
    turned = probability_histogram(*image(*zip(1 - truth, chance, strict=True)))
    assert expected_calibration_error(turned) == pytest.approx(0.4)  # (0.395 + 0.405) / 2
    predicted, observed, share = reliability(turned)
    assert predicted == pytest.approx([0.305, 0.705])
    assert (observed.tolist(), share.tolist()) == ([0.7, 0.3], [0.5, 0.5])


def test_each_fold_takes_the_threshold_that_the_others_prefer():
    low = probability_histogram(*image((0, 0.15), (1, 0.25), (1, 0.95)))
    high = probability_histogram(*image((0, 0.75), (1, 0.85), (1, 0.95)))
    assert thresholds_of_others([low, high]).tolist() == [76, 16]


def test_counts_survive_the_file_and_add_up():
    one = probability_histogram(*image((1, 0.9), (0, 0.1)))
    kept = calibration([one, one], 0.5)
    assert type(kept).model_validate_json(kept.model_dump_json()) == kept
    assert (sum(kept.pixels), sum(kept.foreground)) == (4, 2)
