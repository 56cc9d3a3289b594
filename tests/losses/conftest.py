"""Random targets with probabilities, and a loss with its gradient."""

import numpy as np
import pytest
import tensorflow as tf


def draw(maps, seed=0, shape=(2, 6, 5), border=False):
    """Targets and probabilities; with a border, the targets carry distances in pixels as last channel."""
    rng = np.random.default_rng(seed)
    if maps == 1:
        y_true = rng.integers(0, 2, (*shape, 1)).astype(np.float32)
        y_pred = rng.random((*shape, 1), np.float32)
    else:
        y_true = np.eye(maps, dtype=np.float32)[rng.integers(0, maps, shape)]
        weights = np.exp(rng.normal(size=(*shape, maps))).astype(np.float32)
        y_pred = weights / weights.sum(axis=-1, keepdims=True)
    if border:
        y_true = np.concatenate([y_true, rng.uniform(2, 60, (*shape, 1)).astype(np.float32)], axis=-1)
    return y_true, y_pred


@pytest.fixture(scope="session")
def batch():
    return draw


@pytest.fixture(scope="session")
def gradient():
    def both(loss, y_true, y_pred):
        y_pred = tf.constant(y_pred)
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
        return value.numpy(), tape.gradient(value, y_pred).numpy()

    return both
