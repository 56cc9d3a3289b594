"""Scores of masks against hand-computed values, and comparisons against a t-test of the group means."""

import numpy as np
import pytest
from scipy import stats

from microseg.errors import MicrosegError
from microseg.scoring import (
    ImageScores,
    difference,
    means,
    means_over_groups,
    score_objects,
    score_pixels,
)


def square(row, column, side=2, size=(4, 4), value=1):
    mask = np.zeros(size, np.uint8)
    mask[row : row + side, column : column + side] = value
    return mask


def table(scores, groups, metric="dice"):
    return [
        ImageScores(f"image-{place}", str(group), {metric: score})
        for place, (score, group) in enumerate(zip(scores, groups, strict=True))
    ]


def test_a_square_that_is_one_pixel_off():
    found = score_pixels(square(1, 1), square(1, 2), 1)
    # 2 pixels are right, 2 too much, 2 missing, 10 background; every outline pixel is at most 1 away
    assert found == pytest.approx(
        {"dice": 0.5, "iou": 1 / 3, "mcc": 1 / 3, "boundary_f1": 1, "hausdorff95": 1}
    )


def test_distances_are_in_micrometres_where_the_pixel_is_known_and_are_named_so():
    found = score_pixels(square(1, 1), square(1, 2), 1, pixel_size_um=0.25)
    assert found["hausdorff95_um"] == pytest.approx(0.25)
    assert "hausdorff95" not in found


def test_classes_count_alike_and_ignored_pixels_do_not():
    truth = square(0, 0) + square(2, 2, value=2)
    half = np.where(truth == 2, 0, truth).astype(np.uint8)
    assert score_pixels(truth, half, 2)["dice"] == pytest.approx(0.5)
    truth[truth == 2] = 255
    assert score_pixels(truth, half, 2)["dice"] == pytest.approx(1.0)  # the second class is empty in both


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (
            square(0, 0) + square(2, 2, value=2),
            square(0, 0),
            {"ap": 0.5, "ap50": 0.5, "ap75": 0.5, "pq": 2 / 3},
        ),
        (square(0, 0) + square(2, 2, value=2), square(0, 0) + square(2, 2), {"ap50": 0.5, "pq": 0.0}),
        (np.zeros((4, 4), int), np.zeros((4, 4), int), {"ap": 1.0, "pq": 1.0}),
    ],
)
def test_objects_missed_merged_and_absent(truth, predicted, expected):
    found = score_objects(truth, predicted)
    # two squares merged are one object of IoU 4 / 8 with each: it is found at 0.5, and by no stricter rule
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_large_group_weighs_as_a_small_one_among_group_means():
    rows = table([1.0, 1.0, 1.0, 0.0], "aaab")
    assert means(rows) == {"dice": 0.75}
    assert means_over_groups(rows) == {"dice": 0.5}


def test_the_interval_is_that_of_a_t_test_on_the_group_means():
    rng = np.random.default_rng(5)
    groups = [place % 7 for place in range(20)]
    own, other = rng.random(20), rng.random(20)
    found = difference(table(own, groups), table(other, [0] * 20), "dice")  # groups as the first has them
    by_group = [
        np.mean([d for d, g in zip(own - other, groups, strict=True) if g == group]) for group in range(7)
    ]
    test = stats.ttest_1samp(by_group, 0)
    interval = test.confidence_interval(0.95)
    assert found.estimate == pytest.approx(np.mean(by_group))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.groups, found.images) == (7, 20)
    back = difference(table(other, groups), table(own, groups), "dice")
    assert (back.estimate, back.low, back.high) == pytest.approx((-found.estimate, -found.high, -found.low))


def test_fewer_than_six_groups_decide_nothing():
    found = difference(table([0.9] * 50, list(range(5)) * 10), table([0.1] * 50, [0] * 50), "dice")
    assert (found.low, found.high, found.groups, found.images) == (None, None, 5, 50)
    assert found.estimate == pytest.approx(0.8)


def test_only_common_images_count_and_without_any_nothing_is_compared():
    own, other = table([0.9, 0.8, 0.7], "abc"), table([0.5, 0.6], "ab")
    assert difference(own, other, "dice").images == 2
    strange = [one._replace(image=f"other-{one.image}") for one in other]
    with pytest.raises(MicrosegError, match="no image in common; score both against the same truth"):
        difference(own, strange, "dice")
