"""Objects by hand, and against an exhaustive matching of dense tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from skimage.measure import label

from microseg.data.images import read_labels
from microseg.metrics import average_precision, panoptic_quality
from microseg.metrics.objects import THRESHOLDS, overlaps


def row(*labels):
    """A label image of one row, ten pixels an entry."""
    return np.repeat(np.array(labels, np.int32), 10)[None]


def dense(truth, predicted):
    """IoU of every true with every predicted object, pixel by pixel."""
    pairs = [
        [(truth == t, predicted == p) for p in np.unique(predicted[predicted > 0])]
        for t in np.unique(truth[truth > 0])
    ]
    return np.array([[(a & b).sum() / (a | b).sum() for a, b in line] for line in pairs])


def random_labels(seed, shape=(24, 20)):
    rng = np.random.default_rng(seed)
    truth = label(rng.random(shape) > 0.55, connectivity=1)
    predicted = label((truth > 0) ^ (rng.random(shape) < 0.06), connectivity=1)
    return truth.astype(np.int32), predicted.astype(np.int32)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_agrees_with_an_optimal_assignment_of_the_dense_table(seed):
    truth, predicted = random_labels(seed)
    table = dense(truth, predicted)
    thresholds = (0.2, 0.4, *THRESHOLDS)
    expected = []
    for threshold in thresholds:
        good = table >= threshold
        tp = good[linear_sum_assignment(good, maximize=True)].sum()
        expected.append(tp / (sum(table.shape) - tp))
    ours = average_precision(truth, predicted, thresholds)
    assert ours == pytest.approx({"ap50": expected[2], "ap75": expected[7], "ap": np.mean(expected)})


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_overlaps_are_those_of_the_dense_table_whatever_the_numbers(seed):
    truth, predicted = random_labels(seed)
    numbers = np.random.default_rng(seed).permutation(np.r_[1:3000, 2**31 - 1])[: truth.max()]
    renumbered = np.concatenate([[0], numbers]).astype(np.int32)[truth]
    pairs = overlaps(renumbered, predicted)
    table = dense(renumbered, predicted)
    assert pairs.shape == table.shape and len(pairs.iou) == np.count_nonzero(table)
    np.testing.assert_allclose(pairs.iou, table[pairs.true, pairs.predicted])


def test_average_precision_by_hand():
    # one perfect, one with IoU 2/3, one missed, one invented
    truth, predicted = row(1, 1, 0, 2, 2, 2, 0, 3, 0, 0), row(7, 7, 0, 5, 5, 0, 0, 0, 0, 4)
    scores = average_precision(truth, predicted)
    assert scores["ap50"] == 2 / 4 and scores["ap75"] == 1 / 5
    assert scores["ap"] == pytest.approx((4 * 2 / 4 + 6 * 1 / 5) / 10)
    assert panoptic_quality(truth, predicted) == pytest.approx(
        {"sq": (1 + 2 / 3) / 2, "rq": 2 / 3, "pq": (1 + 2 / 3) / 2 * 2 / 3}
    )


def test_half_an_object_is_found_at_0_5_but_only_once():
    truth, halves = row(1, 1), row(1, 2)
    assert average_precision(truth, halves, (0.5,)) == {"ap50": 1 / 2, "ap": 1 / 2}
    assert average_precision(truth, halves, (0.51,)) == {"ap": 0.0}
    assert panoptic_quality(truth, halves) == {"sq": 0.0, "rq": 0.0, "pq": 0.0}  # more than 0.5


def test_below_0_5_the_matching_with_the_most_pairs_counts():
    # the first true object could take either prediction, the second only the first prediction
    truth, predicted = row(1, 1, 1, 1, 2, 2), row(3, 3, 4, 4, 4, 4)
    assert dense(truth, predicted).round(2).tolist() == [[0.5, 0.33], [0.0, 0.5]]
    assert average_precision(truth, predicted, (0.3,)) == {"ap": 1.0}
    crossed = row(3, 3, 3, 4, 4, 3)
    assert dense(truth, crossed).round(2).tolist() == [[0.6, 0.2], [0.2, 0.33]]
    assert average_precision(truth, crossed, (0.2,)) == {"ap": 1.0}


def test_images_are_pooled_or_averaged():
    truths = [row(1, 0, 2, 0, 3), row(1)]
    predicted = [row(0, 0, 0, 0, 0), row(5)]
    assert average_precision(truths, predicted)["ap"] == 1 / 4
    assert average_precision(truths, predicted, per_image=True)["ap"] == 1 / 2
    assert panoptic_quality(truths, predicted)["rq"] == pytest.approx(1 / (1 + 1.5))
    assert average_precision(truths[0], predicted[0]) == average_precision(truths[:1], predicted[:1])


def test_images_without_objects():
    empty, some = row(0, 0), row(1, 0)
    for perfect in ((empty, empty), (some, some)):
        assert average_precision(*perfect) == {"ap50": 1.0, "ap75": 1.0, "ap": 1.0}
        assert panoptic_quality(*perfect) == {"pq": 1.0, "sq": 1.0, "rq": 1.0}
    for wrong in ((empty, some), (some, empty)):
        assert average_precision(*wrong) == {"ap50": 0.0, "ap75": 0.0, "ap": 0.0}
        assert panoptic_quality(*wrong) == {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    assert average_precision([empty, some], [empty, empty], per_image=True)["ap"] == 0.5
    assert average_precision([empty, some], [empty, empty])["ap"] == 0.0


def test_truth_and_prediction_belong_together():
    with pytest.raises(ValueError, match="shorter"):
        average_precision([row(1), row(1)], [row(1)])


def test_real_nuclei_against_themselves_and_with_touching_ones_merged(real_data):
    path = next(p for p in sorted(real_data("stardist_test2d").rglob("*.tif")) if "mask" in str(p))
    truth = read_labels(path).astype(np.int32)
    merged = label(truth > 0).astype(np.int32)
    assert panoptic_quality(truth, truth)["pq"] == 1.0 and average_precision(truth, truth)["ap"] == 1.0
    assert 0.3 < average_precision(truth, merged)["ap50"] < 1.0
    assert 0.3 < panoptic_quality(truth, merged)["pq"] < 1.0
