"""Learning-rate schedules: the rate of every epoch, as a real optimizer sees it."""

import keras
import numpy as np
import pytest

from microseg.components import create
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.schedules import SCHEDULES, Plan


def rates(name, epochs=6, scores=None, mode="max", precision="float32", **params):
    """Run a schedule beside an optimizer and return the rate of each epoch."""
    keras.config.set_dtype_policy(precision)
    try:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.optimizer.learning_rate = 0.1
    finally:
        keras.config.set_dtype_policy("float32")
    plan = Plan(0.1, epochs, "val/dice", mode)
    schedule = create(Component(name=name, params=params), SCHEDULES, "schedule", plan)
    schedule.set_model(model)
    schedule.on_train_begin()
    seen = []
    for epoch in range(epochs):
        schedule.on_epoch_begin(epoch, {})
        seen.append(float(model.optimizer.learning_rate))
        logs = {"val/dice": scores[epoch] if scores else float(epoch)}
        schedule.on_epoch_end(epoch, logs)
        assert "learning_rate" in logs  # it is recorded with the epoch
    return seen


def test_constant_stays_where_the_optimizer_is():
    assert rates("constant") == pytest.approx([0.1] * 6)


def test_warm_up_rises_linearly_to_the_rate():
    assert rates("constant", warmup=3) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_step_multiplies_after_each_number_of_epochs():
    assert rates("step", at=[2, 4], factor=0.5) == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_cosine_falls_to_its_floor_over_all_epochs():
    seen = rates("cosine", epochs=40, floor=0.1)
    assert seen[0] == pytest.approx(0.1) and seen[20] == pytest.approx(0.055)
    assert np.all(np.diff(seen) < 0) and 0.01 < seen[-1] < 0.011


@pytest.mark.parametrize(("mode", "sign"), [("max", 1.0), ("min", -1.0)])
def test_plateau_waits_for_its_patience_in_the_better_direction(mode, sign):
    scores = [sign * score for score in (0.5, 0.6, 0.6, 0.55, 0.7, 0.7)]
    seen = rates("plateau", scores=scores, mode=mode, patience=2, factor=0.5)
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05])


def test_plateau_keeps_the_minimum():
    seen = rates("plateau", epochs=8, scores=[0.5] * 8, patience=1, factor=0.1, minimum=0.02)
    assert seen[-1] == pytest.approx(0.02)


def test_a_schedule_reaches_the_optimizer_below_the_loss_scale_of_float16():
    assert rates("step", at=[1], factor=0.5, precision="mixed_float16")[1] == pytest.approx(0.05)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_states_its_parameters(name):
    with pytest.raises(MicrosegError, match=f"schedule '{name}': unknown parameter 'speed'"):
        create(Component(name=name, params={"at": [1], "speed": 1} if name == "step" else {"speed": 1}),
               SCHEDULES, "schedule", Plan(0.1, 1, "val/dice", "max"))  # fmt: skip


def test_step_needs_to_know_when():
    with pytest.raises(MicrosegError, match="schedule 'step': parameter 'at' is required"):
        create(Component(name="step"), SCHEDULES, "schedule", Plan(0.1, 1, "val/dice", "max"))
