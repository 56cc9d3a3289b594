"""Metrics of pixels against scikit-learn and by hand, per image and pooled, and the convention for empty masks."""

import math
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.metrics import (
    LOWER_IS_BETTER,
    METRICS,
    Counts,
    classify,
    confusion,
    evaluate,
    per_class,
    pooled,
)


def specificity(truth, predicted, **options):
    """The recall of everything else, class by class."""
    labels = options.get("labels", [1])
    return np.mean([sklearn.metrics.recall_score(truth != k, predicted != k) for k in labels])


def accuracy(truth, predicted, **options):
    labels = options.get("labels", [1])
    return np.mean([sklearn.metrics.accuracy_score(truth == k, predicted == k) for k in labels])


REFERENCE = {
    "accuracy": accuracy,
    "dice": sklearn.metrics.f1_score,
    "iou": sklearn.metrics.jaccard_score,
    "mcc": sklearn.metrics.matthews_corrcoef,
    "precision": sklearn.metrics.precision_score,
    "recall": sklearn.metrics.recall_score,
    "specificity": specificity,
}


def counts(tp, fp, fn, tn):
    return Counts(*(np.array([float(value)]) for value in (tp, fp, fn, tn)))


def masks(seed, classes=2, shape=(9, 7)):
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, classes, shape).astype(np.uint8) for _ in range(2))


def test_none_of_the_table_is_better_when_lower():
    assert not LOWER_IS_BETTER & METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_agrees_with_scikit_learn(name, seed):
    truth, predicted = masks(seed)
    ours = evaluate(confusion(truth, predicted, 1))[name]
    assert ours == pytest.approx(REFERENCE[name](truth.ravel(), predicted.ravel()), abs=1e-6)


# scikit-learn's multiclass MCC is another quantity than the mean over the classes
@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"mcc"}))
def test_several_classes_average_over_the_foreground(name):
    truth, predicted = masks(1, classes=4)
    expected = REFERENCE[name](truth.ravel(), predicted.ravel(), labels=[1, 2, 3], average="macro")
    assert evaluate(confusion(truth, predicted, 3))[name] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_one_where_nothing_is_wrong_even_if_empty_or_full(name):
    for perfect in (counts(0, 0, 0, 9), counts(9, 0, 0, 0), counts(4, 0, 0, 5), counts(0, 0, 0, 0)):
        assert evaluate(perfect)[name] == 1.0


@pytest.mark.parametrize("name", METRICS)
def test_zero_where_everything_is_wrong(name):
    for wrong in (counts(0, 3, 0, 0), counts(0, 0, 3, 0), counts(0, 3, 3, 0)):
        assert evaluate(wrong)[name] <= 0.0


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"accuracy", "specificity"}))
def test_zero_where_all_objects_are_invented_or_missed(name):
    for wrong in (counts(0, 3, 0, 6), counts(0, 0, 3, 6), counts(0, 3, 3, 3)):
        assert evaluate(wrong)[name] <= 0.0


def test_by_hand():
    values = evaluate(counts(6, 2, 4, 8))
    assert values["accuracy"] == pytest.approx(14 / 20)
    assert values["dice"] == pytest.approx(12 / 18)
    assert values["iou"] == pytest.approx(6 / 12)
    assert values["precision"] == pytest.approx(6 / 8)
    assert values["recall"] == pytest.approx(6 / 10)
    assert values["specificity"] == pytest.approx(8 / 10)
    assert values["mcc"] == pytest.approx((48 - 8) / math.sqrt(8 * 10 * 10 * 12))


def test_mcc_of_a_huge_float32_image_does_not_overflow():
    huge = Counts(*(np.array([value], np.float32) for value in (4e9, 1e9, 1e9, 9e10)))
    assert evaluate(huge)["mcc"] == pytest.approx(0.8 - 1 / 91, abs=1e-3)


def test_ignored_pixels_count_nowhere():
    truth, predicted = masks(2)
    ignored = truth.copy()
    ignored[:4] = 255
    assert evaluate(confusion(ignored, predicted, 1)) == evaluate(confusion(truth[4:], predicted[4:], 1))
    assert sum(confusion(ignored, predicted, 1))[0] == truth[4:].size


def test_pooled_sums_the_images_and_evaluate_averages_them():
    two = Counts(
        *(np.array(member, float) for member in ([[90], [0]], [[10], [10]], [[0], [0]], [[0], [90]]))
    )
    assert evaluate(two)["iou"] == pytest.approx((0.9 + 0.0) / 2)
    assert pooled(two)["iou"] == pytest.approx(90 / 110)
    assert pooled(two).keys() == evaluate(two).keys() == METRICS.keys()


def test_pooled_equals_the_metrics_of_all_pixels_together():
    pairs = [masks(seed, classes=3) for seed in range(4)]
    table = Counts(*(np.stack(m) for m in zip(*(confusion(*pair, 2) for pair in pairs), strict=True)))
    truth, predicted = (np.concatenate(part).ravel() for part in zip(*pairs, strict=True))
    for name in METRICS.keys() - {"mcc"}:
        expected = REFERENCE[name](truth, predicted, labels=[1, 2], average="macro")
        assert pooled(table)[name] == pytest.approx(expected)
    single = sklearn.metrics.jaccard_score(truth, predicted, labels=[1, 2], average=None)
    assert per_class(table, ["cell", "dead cell"]) == pytest.approx(
        {"iou/cell": single[0], "iou/dead cell": single[1], "mean_iou": single.mean()}
    )


def test_classify_uses_the_threshold_for_one_map_and_the_maximum_for_several():
    one = np.array([0.29, 0.3, 0.31]).reshape(1, 3, 1)
    assert classify(one, 0.3).tolist() == [[0, 1, 1]]
    several = np.array([[0.4, 0.35, 0.25], [0.2, 0.3, 0.5]]).reshape(1, 2, 3)
    assert classify(several, 0.9).tolist() == [[0, 2]]


def test_masks_are_scored_without_a_framework():
    code = "import sys, microseg.metrics as m; assert m.evaluate and not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-B", "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))}
    )
