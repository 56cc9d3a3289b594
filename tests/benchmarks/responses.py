"""A simulated data set: what a U-Net of any configuration would score on it, by fold and by epoch.

The surface is over `search_spaces/unet_family.yaml`. It is made up, from what is commonly seen: depth has an
optimum, width pays less and less, the best learning rate falls with depth and width, one too high ruins a
training while one too low slows it, losses that weigh overlap start slowly, augmentation matters more to large
networks. So early epochs mislead: a small network with a high rate leads there and loses in the end.

Spreads are those of 44 published configurations on 5 folds of AFM images (`reference/afm_cv_results.csv`):
fold means differ by 0.02; a configuration's deviation from its mean and the fold's has a standard deviation
of 0.012 among the best dozen (there 0.010 to 0.021), and more the worse it is.

A training lasts as long as the operations of its convolutions take at a stated speed, see `LAW`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from microseg.config import TrialConfig

CEILING = 0.93
FOLDS, DEVIATION, WORSE = 0.02, 0.012, 0.1  # standard deviations: of folds, of the best, more of the worse
JITTER, LEFT = 0.04, 0.3  # standard deviation of the first epoch, and the part of the score that it leaves
WIDTH = {8: 0.02, 16: 0.006, 32: 0.0}
LOSS = {"bce": 0.02, "dice": 0.008, "bce_dice": 0.0, "tversky": 0.003}
AUGMENT = ("none", "flips", "elastic")
RATES = (3e-4, 1e-2)  # the learning rates of the space
SLOW = {"bce": 0.8, "dice": 1.4, "bce_dice": 1.0, "tversky": 1.3}

START, PATCHES, SPEED = 8.0, 1600, 10e12  # seconds of a start, patches of an epoch, operations a second
LAW = (
    f"a trial takes {START:g} s to start, an epoch {PATCHES} patches, a patch 3 times (forward, and twice that "
    "back) the operations of a U-Net's convolutions (two of 3 x 3 a level and side, one of 2 x 2 up) of its "
    f"depth, filters and tile, at {SPEED / 1e12:g} TFLOP/s; attention and residual paths are not counted; a worker "
    "has one GPU"
)


class Simulated:
    """Scores of trainings that nobody runs; the true score of a configuration is known.

    Parameters
    ----------
    seed : int
        Draws the folds and how each configuration deviates on each.
    epochs : int
        Of a fold's training.
    folds : int
        How many there are.
    """

    def __init__(self, seed: int, epochs: int, folds: int = 5) -> None:
        self.seed, self.epochs, self.folds = seed, epochs, folds
        self._easy = np.random.default_rng([seed, 0]).normal(0.0, FOLDS, folds)
        self._training = lru_cache(maxsize=64)(self._drawn)

    def __call__(self, config: TrialConfig, fold: int, epoch: int) -> float:
        """Return ``val/dice`` after an epoch, which counts from 1."""
        deviation, jitter = self._training(key(config), true_score(config, self.epochs), fold)
        value = level(config) * progress(config, epoch) + self._easy[fold] + deviation + jitter[epoch - 1]
        return float(np.clip(value, 0.0, 1.0))

    def _drawn(self, name: int, truth: float, fold: int) -> tuple[float, np.ndarray]:
        rng = np.random.default_rng([self.seed, 1, name, fold])
        deviation = float(rng.normal(0.0, DEVIATION + WORSE * (CEILING - truth)))
        return deviation, rng.normal(0.0, JITTER, self.epochs) / np.sqrt(np.arange(1, self.epochs + 1))


def key(config: TrialConfig) -> int:
    """Return a number for what is trained, the same in every process."""
    return int.from_bytes(hashlib.sha256(config.model_dump_json().encode()).digest()[:8])


def true_score(config: TrialConfig, epochs: int) -> float:
    """Return the mean score over endlessly many folds and seeds, at the last epoch."""
    return level(config) * progress(config, epochs)


def best_score(epochs: int) -> float:
    """Return the highest true score that the space has.

    Over alpha and the displacement the surface has known optima, beside which nothing else depends on
    them; every choice is tried, and the learning rate is searched in each.
    """
    return max(
        -minimize_scalar(
            lambda rate, choice=choice: -true_score(_configured(choice, 10**rate), epochs),
            bounds=tuple(map(math.log10, RATES)),
            method="bounded",
        ).fun
        for choice in itertools.product(range(2, 6), WIDTH, (False, True), (False, True), LOSS, AUGMENT)
    )


def _configured(choice: tuple[Any, ...], rate: float) -> Any:
    """Return what the surface looks at of a configuration, with the best alpha and displacement."""
    depth, filters, attention, residual, loss, augment = choice
    model = {"depth": depth, "filters": filters, "attention": attention, "residual": residual}
    known = SimpleNamespace(model=SimpleNamespace(params=model))
    known.loss = SimpleNamespace(name=loss, params={})
    known.optimizer = SimpleNamespace(params={"learning_rate": rate})
    known.augment = SimpleNamespace(name=augment, params={"displacement": 2 + model_size(known)})
    return known


def seconds(config: TrialConfig) -> float:
    """Return how long an epoch of a training lasts, by `LAW`."""
    params = config.model.params
    return PATCHES * 3 * operations(params["depth"], params["filters"], config.tile) / SPEED


def operations(depth: int, filters: int, tile: int) -> float:
    """Return the operations of a U-Net's convolutions for one patch of one channel: a product and a sum are two."""
    found = 0.0
    for step in range(depth + 1):
        pixels, width = (tile / 2**step) ** 2, filters * 2**step
        found += 2 * 9 * pixels * width * ((width / 2 if step else 1) + width)  # down, or the bottom
        if step < depth:
            found += 2 * pixels * (2 * width * width + 9 * (2 * width + width) * width)  # up, joined, and on
    return found


def level(config: TrialConfig) -> float:
    """Return the score that a training approaches."""
    model, off = config.model.params, _off(config)
    loss = LOSS[config.loss.name] + 0.4 * (config.loss.params.get("alpha", 0.55) - 0.55) ** 2
    rate = 0.03 * off**2 if off < 0 else 0.3 * off**2
    shape = 0.01 * (model["depth"] - 4) ** 2 + WIDTH[model["filters"]]
    gates = 0.003 * (not model["attention"]) + 0.003 * (model["depth"] - 2) * (not model["residual"])
    return max(0.05, CEILING - loss - rate - shape - gates - _overfit(config))


def _overfit(config: TrialConfig) -> float:
    """Return what too little augmentation, or too much, takes; more of a large network."""
    size = model_size(config)
    if config.augment.name == "elastic":
        return float(0.0008 * (config.augment.params["displacement"] - 2 - size) ** 2)
    return 0.004 * size if config.augment.name == "none" else 0.0015 * size


def model_size(config: TrialConfig) -> float:
    """Return depth and width in one number, 0 for the smallest network and 5 for the largest."""
    params = config.model.params
    return float(params["depth"] - 2 + math.log2(params["filters"] / 8))


def progress(config: TrialConfig, epoch: int) -> float:
    """Return which part of its level a training has reached after an epoch."""
    slow = SLOW[config.loss.name] * (1 + 0.2 * model_size(config)) * 10 ** (-0.7 * _off(config))
    return 1.0 / (1.0 + LEFT * slow / epoch)


def _off(config: TrialConfig) -> float:
    """Return by how many powers of ten the learning rate lies above the best one."""
    best = -2.3 - 0.15 * model_size(config)
    return math.log10(config.optimizer.params["learning_rate"]) - best
