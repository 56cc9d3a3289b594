"""Optuna's side of a sample: where its values come from."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from microseg.space import Number, Scalar


class OptunaSuggest:
    """Draws the values of a sample from an Optuna trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def number(self, name: str, distribution: Number) -> float | int:
        """Return a number within the distribution."""
        if distribution.kind == "int_uniform":
            return self._trial.suggest_int(name, int(distribution.low), int(distribution.high))
        log = distribution.kind == "log_uniform"
        return self._trial.suggest_float(name, distribution.low, distribution.high, log=log)

    def choice(self, name: str, labels: Sequence[Scalar]) -> Scalar:
        """Return one of the labels."""
        chosen: Scalar = self._trial.suggest_categorical(name, list(labels))
        return chosen
