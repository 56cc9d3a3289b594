"""What a person sees while a study runs: one line that stays up to date."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.status import Status

from microseg.tracking.tree import trial_name


class ProgressLine(Callback):
    """Shows trial x of n, fold, epoch, the best so far and the time left; silent when no terminal.

    Parameters
    ----------
    total, finished : int
        Trials of the study, and how many of them an earlier run has ended.
    folds : int
        Folds per trial.
    mode : {"max", "min"}
        Whether a larger score is better.
    console : Console
        Where to draw.
    """

    def __init__(self, total: int, finished: int, folds: int, mode: str, console: Console) -> None:
        self._total = total
        self._finished = finished
        self._folds = folds
        self._better = max if mode == "max" else min
        self._status: Status | None = console.status("starting Ray") if console.is_terminal else None
        self._start = time.monotonic()
        self._ended = 0
        self._best: tuple[float, int] | None = None

    def __enter__(self) -> ProgressLine:
        """Show the line."""
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *ended: object) -> None:
        """Remove the line, however the study ended."""
        if self._status:
            self._status.stop()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Redraw the line."""
        if self._status:
            self._status.update(self._line(result))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that ended, and remember the best."""
        self._ended += 1
        result = trial.last_result or {}
        if result.get("state") == "completed":
            candidate = (float(result["objective"]), int(result["number"]))
            self._best = self._better(self._best or candidate, candidate)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that failed."""
        self._ended += 1

    def _line(self, result: dict[str, Any]) -> str:
        parts = [
            f"trial {result['number'] + 1}/{self._total}",
            f"fold {result['fold'] + 1}/{self._folds}",
            f"epoch {result['epoch']}",
        ]
        if self._best:
            parts.append(f"best {self._best[0]:.3f} ({trial_name(self._best[1])})")
        if self._ended:
            each = (time.monotonic() - self._start) / self._ended
            left = self._total - self._finished - self._ended
            parts.append(f"about {_duration(each * left)} left")
        return "  ".join(parts)


class ErrorText(Callback):
    """Hands on why a trial failed, which the searcher is not told.

    Parameters
    ----------
    amend : callable
        Called with the trial's settings and the last line of its error.
    """

    def __init__(self, amend: Callable[[dict[str, Any], str], None]) -> None:
        self._amend = amend

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand on the last line of the error's text."""
        lines = str(trial.get_error() or "no error text").strip().splitlines()
        self._amend(trial.config, lines[-1].strip()[:500])


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    )
