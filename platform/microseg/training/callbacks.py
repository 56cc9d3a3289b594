"""Keras callbacks of a training, one per concern; they share the epoch's ``logs`` in list order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from microseg.config import TrialConfig
from microseg.data.pairs import Pair
from microseg.training.network import Loss
from microseg.training.results import Progress, Report, Sample
from microseg.training.validation import Evaluation, evaluate_images

Logs = dict[str, Any]


class FullImageValidation(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Add ``val/...`` to the epoch's logs, from whole images that a network predicts."""

    evaluation: Evaluation

    def __init__(self, network: keras.Model, pairs: Sequence[Pair], config: TrialConfig, loss: Loss) -> None:
        super().__init__()
        self.network, self.pairs, self.config, self.loss = network, pairs, config, loss

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Evaluate; Keras hands the same dictionary to the callbacks that follow."""
        self.evaluation = evaluate_images(self.network, self.pairs, self.config, self.loss)
        logs.update(self.evaluation.metrics)


class Record(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Keep the metrics of every epoch, and the evaluation of the one that early stopping holds for the best.

    The training metrics are named ``train/...``.
    """

    best: Evaluation

    def __init__(self, validation: FullImageValidation, early: keras.callbacks.EarlyStopping) -> None:
        super().__init__()
        self.validation, self.early = validation, early
        self.history: list[dict[str, float]] = []

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Keep the epoch."""
        named = {name if "/" in name else f"train/{name}": float(value) for name, value in logs.items()}
        self.history.append(named)
        if self.early.best_epoch == epoch:
            self.best = self.validation.evaluation


def diverged(metrics: Mapping[str, float]) -> bool:
    """Say whether a loss of an epoch is no finite number."""
    return not (math.isfinite(metrics["train/loss"]) and math.isfinite(metrics["val/loss"]))


class StopOnDivergence(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Stop once the loss is no finite number.

    The mean over the epoch tells it: looking at every batch would wait for the accelerator each time.
    """

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Look at the epoch's losses."""
        if diverged(self.record.history[-1]):
            self.model.stop_training = True


class Reporter(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Report every epoch once, with samples after epochs 1, 2, 4, 8, ... and the last one allowed."""

    def __init__(
        self, fold: int, record: Record, draw: Callable[[], tuple[Sample, ...]], report: Report
    ) -> None:
        super().__init__()
        self.fold, self.record, self.draw, self.report = fold, record, draw, report

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Report the epoch."""
        number = epoch + 1
        due = number & (number - 1) == 0 or number == self.params["epochs"]
        samples = self.draw() if due else ()
        self.report(Progress(self.fold, number, self.record.history[-1], samples))
