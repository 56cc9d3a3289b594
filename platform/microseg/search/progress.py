"""What a person sees while a study runs: one line that stays up to date, and a forecast now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune import Callback
from rich.console import Console
from rich.status import Status
from rich.text import Text

from microseg.config import SearchConfig
from microseg.search import incidents, state
from microseg.search.job import Job
from microseg.search.spending import Spending, duration


class ProgressLine(Callback):
    """Shows how much is done, the time left, what trains now and the best so far.

    The line needs a terminal; a forecast is printed in any case, after the first epoch and after 1, 2, 4,
    8, ... trials.

    Parameters
    ----------
    config : SearchConfig
        How many trials the study has, and whether a larger score is better.
    finished : int
        How many trials an earlier run has ended.
    job : Job
        Folds and epochs of a trial.
    spending : Spending
        What the study has cost.
    console : Console
        Where to draw.
    """

    def __init__(
        self, config: SearchConfig, finished: int, job: Job, spending: Spending, console: Console
    ) -> None:
        self._total = config.trials
        self._finished = finished
        self._job = job
        self._better = max if config.mode == "max" else min
        self._spending = spending
        self._console = console
        status = console.status("waiting for the first epoch")
        self._status: Status | None = status if console.is_terminal else None
        self._start = time.monotonic()
        self._epochs: set[tuple[str, int, int]] = set()
        self._ended = 0
        self._last = self._start
        self._best: tuple[float, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray stores its callbacks, and a terminal cannot be."""
        return {}

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
        """Redraw the line; epochs that an earlier run of the study trained say nothing of the pace."""
        if not result["replayed"]:
            self._note_epoch(result)
        if self._status and self._epochs:
            self._status.update(self._line(result))

    def _note_epoch(self, result: dict[str, Any]) -> None:
        if not self._epochs:
            # Ray takes differences of the time of day, which may be set back.
            self._start = time.monotonic() - max(0.0, result["time_total_s"])
        before = len(self._epochs)
        self._epochs.add((result["name"], result["fold"], result["epoch"]))  # a result is more than an epoch
        if before == 1 and len(self._epochs) == 2:  # the first one contains what is done once
            self._say_forecast()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that ended, and remember the best."""
        result = trial.last_result or {}
        if result.get("state") == "completed":
            candidate = (float(result["objective"]), str(result["name"]))
            self._best = self._better(self._best or candidate, candidate)
        self._count()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial that failed."""
        self._count()

    def _count(self) -> None:
        if self._spending.exhausted():
            return  # it was interrupted, and nothing follows
        self._ended += 1
        self._last = time.monotonic()
        if self._ended & (self._ended - 1) == 0 and self._left() > 0:
            self._say_forecast()

    def _left(self) -> int:
        return self._total - self._finished - self._ended

    def _say_forecast(self) -> None:
        used = self._spending.note()
        done, hours = self._finished + self._ended, used["hours"]
        text = f"{done} of {self._total} done in {duration(hours * 3600)}, {self.forecast()} to go"
        if used["gpu_hours"]:
            text += f" ({used['gpu_hours']:.2g} GPU-hours so far)"
        self._console.print(text, style="dim", highlight=False, soft_wrap=True)

    def forecast(self) -> str:
        """Return how long the rest takes: as the trials that ended, or at most, by the epochs until now."""
        now = time.monotonic()
        if self._ended:
            each = (self._last - self._start) / self._ended
            return f"about {duration(each * self._left() - min(now - self._last, each))}"
        most = self._left() * len(self._job.folds) * self._job.epochs
        return f"at most {duration((now - self._start) / len(self._epochs) * most)}"

    def _line(self, result: dict[str, Any]) -> Text:
        """Return the line; cut to the width, as a line that wraps leaves traces when redrawn."""
        trial = f"{result['name']} fold {result['fold'] + 1}/{len(self._job.folds)} epoch {result['epoch']}"
        parts = [f"{self._finished + self._ended} of {self._total} done, {self.forecast()} left", trial]
        if self._best:
            parts.append(f"best {self._best[0]:.3f} ({self._best[1]})")
        line = Text("  ".join(parts))
        line.truncate(self._console.width - len("⠋ "), overflow="ellipsis")
        return line


class Failures(Callback):
    """Keeps why an attempt at a trial failed: for the next attempt in the trial's folder, or for its record.

    Parameters
    ----------
    job : Job
        Where the trials' folders are.
    explain : callable
        Called with the settings of a trial that is given up, and why.
    """

    def __init__(self, job: Job, explain: Callable[[dict[str, Any], str], None]) -> None:
        self._job = job
        self._explain = explain

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Leave a note for the attempt that follows; its worker is not started yet."""
        folder = self._job.workdir / trial.config["trial"]["name"]
        parts = trial.config["config"]["accumulation"]
        incidents.note(folder, _incident(trial)._replace(accumulation=parts))
        if self._job.store:
            state.note(f"{self._job.store}/{folder.name}", folder)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Hand on the error in words."""
        self._explain(trial.config, _incident(trial).text)


def _incident(trial: Any) -> incidents.Incident:
    return incidents.classify(_error(trial), (trial.last_result or {}).get("node_ip", ""))


def _error(trial: Any) -> BaseException:
    """Return why a trial's last attempt ended.

    Ray keeps the errors of tasks and actors, in a file that its own `get_pickled_error` looks for elsewhere;
    of others it keeps the text.
    """
    kept = Path(trial.pickled_error_file or "")
    if kept.is_file():
        error: BaseException = cloudpickle.loads(kept.read_bytes())
        kept.unlink()  # the next error may be one of those of which only the text is kept
        return error
    text = Path(trial.error_file or "")
    said = text.read_text(encoding="utf-8") if text.is_file() else ""
    last = said.rpartition("Failure # ")[2].partition("\n")[2].strip()
    return RuntimeError(last or "the worker ended without a word")
