"""Schedules of the learning rate over the epochs, by name: Keras callbacks around the optimizer's rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import keras
from pydantic import Field

from microseg.components import Builder

Epochs = Annotated[int, Field(ge=0)]
Factor = Annotated[float, Field(gt=0.0, lt=1.0)]


class Plan(NamedTuple):
    """What a schedule is fitted to.

    ``rate`` is the optimizer's learning rate, ``epochs`` the most that are trained, ``monitor`` the
    validation metric that is watched and ``mode`` its better direction, ``max`` or ``min``.
    """

    rate: float
    epochs: int
    monitor: str
    mode: str


def _follow(plan: Plan, warmup: int, factor: Callable[[int], float]) -> keras.callbacks.Callback:
    """Multiply the rate by a factor of the epoch (from 0), after a linear rise over the first ``warmup``."""

    def rate(epoch: int) -> float:
        return plan.rate * factor(epoch) * min(1.0, (epoch + 1) / (warmup + 1))

    return keras.callbacks.LearningRateScheduler(rate)


def constant(plan: Plan, *, warmup: Epochs = 0) -> keras.callbacks.Callback:
    """Keep the optimizer's rate, after a linear rise over ``warmup`` epochs."""
    return _follow(plan, warmup, lambda _: 1.0)


def step(
    plan: Plan,
    *,
    at: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)],
    factor: Factor = 0.1,
    warmup: Epochs = 0,
) -> keras.callbacks.Callback:
    """Multiply the rate by ``factor`` after each number of epochs in ``at``.

    Parameters
    ----------
    plan : Plan
        What is trained.
    at : tuple of int
        ``[30, 60]``: 30 epochs at the full rate, the next 30 at ``factor`` of it, then at its square.
    factor : float
        Between 0 and 1.
    warmup : int
        Epochs of a linear rise at the start (Goyal et al. 2017, arXiv:1706.02677).
    """
    return _follow(plan, warmup, lambda epoch: math.prod(factor for passed in at if epoch >= passed))


def cosine(
    plan: Plan, *, floor: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0, warmup: Epochs = 0
) -> keras.callbacks.Callback:
    """Fall along half a cosine to ``floor`` times the rate (Loshchilov and Hutter 2017, arXiv:1608.03983).

    The fall takes all epochs that the configuration allows, so that early stopping may cut it short.
    """

    def fall(epoch: int) -> float:
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * epoch / plan.epochs))

    return _follow(plan, warmup, fall)


def plateau(
    plan: Plan,
    *,
    factor: Factor = 0.1,
    patience: Annotated[int, Field(ge=1)] = 5,
    minimum: Annotated[float, Field(ge=0.0)] = 0.0,
) -> keras.callbacks.Callback:
    """Multiply the rate by ``factor`` whenever the monitored metric did not improve for ``patience`` epochs.

    Parameters
    ----------
    plan : Plan
        What is trained; its ``monitor`` is watched.
    factor : float
        Between 0 and 1.
    patience : int
        Epochs without improvement; below the configuration's own ``patience``, which ends the training.
    minimum : float
        The rate never falls below it.
    """
    # Keras demands an improvement of 1e-4 by default, which a loss late in training may never reach.
    return keras.callbacks.ReduceLROnPlateau(
        plan.monitor, factor=factor, patience=patience, mode=plan.mode, min_delta=0.0, min_lr=minimum
    )


SCHEDULES: dict[str, Builder] = {"constant": constant, "step": step, "cosine": cosine, "plateau": plateau}
