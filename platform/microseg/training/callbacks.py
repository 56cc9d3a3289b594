"""Keras callbacks of a training, one per concern; they share the epoch's ``logs`` in list order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from microseg.config import TrialConfig
from microseg.data.pairs import Pair
from microseg.training.network import Loss
from microseg.training.results import Progress, Report
from microseg.training.validation import Evaluation, draw_samples, evaluate_images, shown

Logs = dict[str, Any]


class FullImageValidation(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Add ``val/...`` to the epoch's logs, from whole images that a network predicts."""

    def __init__(self, network: keras.Model, pairs: Sequence[Pair], config: TrialConfig, loss: Loss) -> None:
        super().__init__()
        self.network, self.pairs, self.config, self.loss = network, pairs, config, loss
        self.evaluations: list[Evaluation] = []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Evaluate; Keras hands the same dictionary to the callbacks that follow."""
        self.evaluations.append(evaluate_images(self.network, self.pairs, self.config, self.loss))
        logs.update(self.evaluations[-1].metrics)


class StopOnDivergence(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Stop once the loss is no finite number.

    The mean over the epoch tells it: looking at every batch would wait for the accelerator each time.
    """

    diverged = False

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look at the epoch's losses."""
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val/loss"])):
            self.diverged = self.model.stop_training = True


class Reporter(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Report every epoch once, with samples after epochs 1, 2, 4, 8, ... and the last one allowed."""

    def __init__(
        self, network: keras.Model, fold: int, pairs: Sequence[Pair], config: TrialConfig, report: Report
    ) -> None:
        super().__init__()
        self.network, self.fold, self.shown = network, fold, shown(pairs)
        self.config, self.report = config, report
        self.history: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Name the training metrics ``train/...`` and report all."""
        number = epoch + 1
        named = {name if "/" in name else f"train/{name}": float(value) for name, value in logs.items()}
        self.history.append(named)
        due = number & (number - 1) == 0 or number == self.config.epochs
        samples = draw_samples(self.network, self.shown, self.config) if due else ()
        self.report(Progress(self.fold, number, named, samples))
