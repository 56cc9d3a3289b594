"""The counts that Keras pools over an epoch's patches equal those of the whole."""

import keras
import numpy as np
import pytest

import microseg.metrics
from microseg.data.pairs import encode_targets
from microseg.metrics import METRICS, Counts, PooledConfusion, classify, confusion, evaluate


def draw(maps, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, max(maps, 2), (16, 8)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    return truth, rng.random((16, 8, maps), np.float32)


@pytest.mark.parametrize("maps", [1, 3])
def test_pooled_metric_equals_the_counts_of_all_batches(maps):
    metric = PooledConfusion(maps, threshold=0.4)
    parts = []
    for seed in range(3):
        truth, probability = draw(maps, seed)
        metric.update_state(encode_targets(truth, maps)[None], probability[None])
        parts.append(confusion(truth, classify(probability, 0.4), max(maps - 1, 1)))
    expected = evaluate(Counts(*(np.sum(member, axis=0) for member in zip(*parts, strict=True))))
    values = {name: float(value) for name, value in metric.result().items()}
    assert values == pytest.approx(expected, abs=1e-6)
    assert values.keys() == METRICS.keys()
    metric.reset_state()
    assert float(np.sum(metric.counts)) == 0.0
    assert {float(value) for value in metric.result().values()} == {1.0}  # nothing seen, nothing wrong


@pytest.mark.parametrize("maps", [1, 3])
def test_channels_beyond_the_maps_are_not_read(maps):
    truth, probability = draw(maps, 7)
    plain, wide = PooledConfusion(maps, 0.4), PooledConfusion(maps, 0.4)
    targets = encode_targets(truth, maps)[None]
    plain.update_state(targets, probability[None])
    distances, heads = np.full_like(targets[..., :1], 60.0), np.ones_like(probability[None])
    wide.update_state(
        np.concatenate([targets, distances], axis=-1), np.concatenate([probability[None], heads], axis=-1)
    )
    np.testing.assert_array_equal(plain.counts, wide.counts)


def test_it_is_a_keras_metric_and_other_names_are_unknown():
    assert issubclass(PooledConfusion, keras.metrics.Metric)
    with pytest.raises(AttributeError, match=r"'microseg.metrics' has no attribute 'f1'"):
        _ = microseg.metrics.f1
