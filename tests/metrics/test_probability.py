"""ROC AUC against scikit-learn, with ties, ignored pixels, several images and several classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from microseg.metrics import roc_auc


def draw(seed, maps=1, shape=(8, 9)):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, max(maps, 2), shape).astype(np.uint8)
    return truth, rng.random((*shape, maps))


@given(seed=st.integers(0, 1000), levels=st.sampled_from([2, 5, 1000]))
@settings(max_examples=20, deadline=None)
def test_agrees_with_scikit_learn_with_many_ties_and_few(seed, levels):
    truth, probability = draw(seed)
    probability = np.round(probability * levels) / levels
    assert roc_auc([truth], [probability]) == pytest.approx(roc_auc_score(truth.ravel(), probability.ravel()))


def test_by_hand():
    truth = np.array([[1, 1, 0, 0, 255]], np.uint8)
    probability = np.array([0.9, 0.5, 0.5, 0.1, 0.0]).reshape(1, 5, 1)
    assert roc_auc([truth], [probability]) == (1 + 1 + 0.5 + 1) / 4


def test_images_of_any_size_are_pooled_not_averaged():
    images = [draw(0), draw(1, shape=(3, 4))]
    truths, probabilities = zip(*images, strict=True)
    ours = roc_auc(truths, [0.1 * probabilities[0], probabilities[1]])
    pooled = roc_auc_score(
        np.concatenate([t.ravel() for t in truths]),
        np.concatenate([0.1 * probabilities[0].ravel(), probabilities[1].ravel()]),
    )
    assert ours == pytest.approx(pooled)
    assert abs(ours - np.mean([roc_auc([t], [p]) for t, p in images])) > 0.005


def test_several_classes_average_one_against_the_rest_over_the_foreground():
    truth, probability = draw(3, maps=3)
    single = [roc_auc_score(truth.ravel() == k, probability[..., k].ravel()) for k in (1, 2)]
    assert roc_auc([truth], [probability]) == pytest.approx(np.mean(single))
    truth[truth == 2] = 255
    assert roc_auc([truth], [probability]) == pytest.approx(
        roc_auc_score(truth[truth < 2] == 1, probability[truth < 2][:, 1])
    )


def test_thresholded_masks_would_give_less():
    # the Nuclei project reported .93 from masks for a network with .99
    truth, noise = draw(5, shape=(32, 32))
    probability = np.clip(0.6 * truth[..., None] + 0.6 * noise, 0, 1)
    assert roc_auc([truth], [(probability > 0.5).astype(float)]) < roc_auc([truth], [probability]) - 0.02


def test_not_defined_without_two_classes_or_with_nan():
    truth, probability = draw(4)
    for constant in (0, 1, 255):
        assert np.isnan(roc_auc([np.full_like(truth, constant)], [probability]))
    probability[2, 2] = np.nan
    assert np.isnan(roc_auc([truth], [probability]))
