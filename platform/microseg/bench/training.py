"""Training steps as `train_fold` takes them, beside bare steps on batches that are ready in memory."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from microseg.bench.turns import Way
from microseg.config import TrialConfig
from microseg.data.pairs import Pair
from microseg.training.fold import build_loss, build_networks, draw_batches

SKIPPED = 2  # steps at the begin of a training: the pipeline starts, its first batches are ahead of the steps
FEWEST, MOST = 4, 200  # steps of a turn
KEPT = 4  # batches in memory, which the bare steps take in turn
Batch = tuple[Any, Any]


class StepTimes(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Notes when each batch was trained: when its loss is known, as accelerators lag behind the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Wait for the loss, as ``train_on_batch`` does, and note the time."""
        float((logs or {})["loss"])
        self.ends.append(time.perf_counter())


class Trainer:
    """A network, and two ways to train it by so many steps; to be used within `runtime.fresh_session`.

    Parameters
    ----------
    config : TrialConfig
        The configuration.
    pairs : sequence of Pair
        The images that patches are drawn from.
    seconds : float
        How long the steps of a turn are to last, about.
    maps : int
        Output maps of the network.
    jit_compile : bool
        Whether XLA compiles the step.
    """

    def __init__(
        self,
        config: TrialConfig,
        pairs: Sequence[Pair],
        seconds: float,
        maps: int = 1,
        jit_compile: bool = False,
    ) -> None:
        networks = build_networks(config, pairs[0].image.shape[-1], maps, build_loss(config, pairs, maps))
        self.network, self._batch_size = networks.training, config.batch_size
        self.network.jit_compile = jit_compile
        self._memory = _kept(_batches(config, pairs, maps, KEPT))
        self._train(2)  # the first step compiles
        self._draw = functools.partial(_batches, config, pairs, maps)
        self.draw(steps_of(seconds, self._train(2) / 2))

    def draw(self, steps: int) -> None:
        """Let a turn have so many steps."""
        self.steps, self._drawn = steps, self._draw(steps + SKIPPED)

    @property
    def images(self) -> int:
        """How many patches the steps of a turn see."""
        return self.steps * self._batch_size

    def bare(self) -> float:
        """Train on batches in memory, one ``train_on_batch`` after the other; returns the seconds."""
        return self._train(self.steps)

    def fitted(self) -> float:
        """Train as a fold is trained, patches drawn and augmented meanwhile; returns the seconds."""
        return fit_seconds(self.network, self._drawn, self.steps)

    @property
    def ways(self) -> dict[str, Way]:
        """Both ways, by name."""
        return {"bare": self.bare, "fold": self.fitted}

    def _train(self, steps: int) -> float:
        start = time.perf_counter()
        for images, targets in itertools.islice(itertools.cycle(self._memory), steps):
            self.network.train_on_batch(images, targets)
        return time.perf_counter() - start


def fit_seconds(network: keras.Model, batches: Any, steps: int) -> float:
    """Train by so many steps that count, after some that do not, with ``fit``; returns their seconds."""
    times = StepTimes()
    network.fit(batches, steps_per_epoch=steps + SKIPPED, callbacks=[times], verbose=0, shuffle=False)
    return times.ends[-1] - times.ends[SKIPPED - 1]


def steps_of(turn: float, step: float) -> int:
    """Return how many steps of so many seconds last about as long as a turn is to."""
    return int(np.clip(round(turn / step), FEWEST, MOST))


def _batches(config: TrialConfig, pairs: Sequence[Pair], maps: int, steps: int) -> Any:
    """Return more batches than are taken: beside the last steps too, those that follow are drawn."""
    whole = config.model_copy(update={"steps_per_epoch": steps, "epochs": 2, "accumulation": 1})
    return draw_batches(whole, pairs, maps, config.seed, 0)[0]


def _kept(batches: Any) -> list[Batch]:
    drawn: Iterable[Batch] = itertools.islice(batches.as_numpy_iterator(), KEPT)
    return [(np.array(images), np.array(targets)) for images, targets in drawn]
