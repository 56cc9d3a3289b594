"""The contract of every optimizer."""

import keras
import numpy as np
import pytest

from microseg.components import create
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.optimizers import OPTIMIZERS

every = pytest.mark.parametrize("name", OPTIMIZERS)


def optimizer(name, **params):
    return create(Component(name=name, params=params), OPTIMIZERS, "optimizer")


@every
def test_descends_along_the_gradient(name):
    variable = keras.Variable(np.array([3.0, -2.0], np.float32))
    rule = optimizer(name, learning_rate=0.05)
    for _ in range(200):
        rule.apply([2.0 * variable], [variable])
    assert np.all(np.abs(np.asarray(variable)) < 0.2)


@every
def test_learning_rate_and_clipping_reach_keras(name):
    rule = optimizer(name, learning_rate=0.0125, clipnorm=0.5)
    assert float(rule.learning_rate) == pytest.approx(0.0125)
    assert rule.global_clipnorm == 0.5
    assert optimizer(name).global_clipnorm is None
    assert optimizer(name, clipvalue=0.25).clipvalue == 0.25


@every
def test_two_clippings_at_once_are_refused(name):
    with pytest.raises(MicrosegError, match=r"clipnorm 1\.0 and clipvalue 0\.5 are given; choose one"):
        optimizer(name, clipnorm=1.0, clipvalue=0.5)


def test_amsgrad_and_weight_decay_and_momentum_reach_keras():
    assert optimizer("adam", amsgrad=True).amsgrad
    assert optimizer("adamw", weight_decay=0.02).weight_decay == 0.02
    assert optimizer("sgd", momentum=0.5, nesterov=False).momentum == 0.5


@every
@pytest.mark.parametrize("rate", [0.0, -1e-3, "fast"])
def test_impossible_learning_rate_is_refused(name, rate):
    with pytest.raises(MicrosegError, match=f"optimizer '{name}': parameter 'learning_rate' is {rate!r}"):
        optimizer(name, learning_rate=rate)
