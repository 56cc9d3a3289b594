"""The run of one fold: curves in few batches, every step and every picture once."""

from __future__ import annotations

import json
import math
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from numpy.typing import NDArray
from PIL import Image

from microseg.tracking import clock, tree
from microseg.tracking.artifacts import PROVENANCE
from microseg.training import FoldResult, State

MODEL = "model/model.keras"
FLUSH = 15.0  # seconds: a fast fold is one batch, the curves of a slow one are watched while it trains
MOST = 990  # metrics in a batch: MLflow takes 1000 entries, tags among them
PREVIEW = 256  # pixels: what MLflow's UI shows of a picture at first
HAS_PICTURES = "mlflow.loggedImages"


class FoldRun:
    """Writes into a fold's run what it does not have yet, whatever earlier writers left undone.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    run : Run
        The run, as `microseg.tracking.tree.open_fold` returns it. One that ended with an outcome of
        training is ``closed``: nothing is written to it. Another one is reopened.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        self._client = client
        self._run_id = run.info.run_id
        self._start = run.info.start_time
        self._pending: list[list[Metric]] = []
        self._flushed = time.monotonic()
        self.closed = run.info.status != "RUNNING" and run.data.tags.get(tree.STATE) in get_args(State)
        self._known: set[int] = set()
        if not self.closed:
            self._known = known_steps(client, run)
            tree.reopen(client, run)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep the metrics of a step for the next batch, unless MLflow has that step."""
        if step not in self._known:
            self._known.add(step)
            self._pending.append(as_metrics(metrics, step))

    def due(self) -> bool:
        """Say whether the last batch was written long enough ago."""
        return time.monotonic() - self._flushed >= FLUSH

    def flush(self, tags: Mapping[str, str] | None = None) -> None:
        """Write what is kept, and tags; should this fail, it can be called again."""
        marks = [RunTag(name, value) for name, value in (tags or {}).items()]
        for batch in batches(self._pending) or [[]]:
            self._client.log_batch(self._run_id, metrics=batch, tags=marks)
        self._pending.clear()
        self._flushed = time.monotonic()

    def show(self, pictures: Mapping[str, NDArray[np.uint8]], step: int) -> None:
        """Add pictures by key, where and as MLflow's `log_image` does.

        That one doubles a picture that it logs again: its name has the time and a random number. Here it has
        the time of the run's start and a number that follows from key and step, so that it replaces itself.
        """
        self.flush({HAS_PICTURES: "True"})
        with tempfile.TemporaryDirectory() as scratch:
            for key, picture in pictures.items():
                number = uuid.uuid5(uuid.NAMESPACE_OID, f"{self._run_id}/{key}/{step}")
                name = f"{key.replace('/', '~')}+step+{step}+timestamp+{self._start}+{number}"
                image = Image.fromarray(picture)
                image.save(Path(scratch, f"{name}.png"))
                image.thumbnail((PREVIEW, PREVIEW))
                image.save(Path(scratch, f"{name}+compressed.webp"))
            self._client.log_artifacts(self._run_id, scratch, "images")

    def close(self, result: FoldResult, provenance: Mapping[str, Any]) -> None:
        """Write result, model, where they come from and when; then end the run."""
        self.flush({tree.STATE: result.state, tree.REASON: f"{result.state} after {result.epochs} epochs"})
        ended = max(clock.milliseconds(), self._start)
        with tempfile.TemporaryDirectory() as scratch:
            span = {"started": self._start, "finished": ended}
            times = {
                name: datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
                for name, at in span.items()
            }
            Path(scratch, PROVENANCE).write_text(
                json.dumps({**provenance, **times}, indent=1), encoding="utf-8"
            )
            text = result.model_dump_json(indent=1, exclude={"model"})
            Path(scratch, "result.json").write_text(text, encoding="utf-8")
            self._client.log_artifacts(self._run_id, scratch)
        if result.model.is_file():
            self._client.log_artifact(self._run_id, str(result.model), str(Path(MODEL).parent))
        self._client.set_terminated(self._run_id, tree.STATUS[result.state], ended)
        self.closed = True


def as_metrics(metrics: Mapping[str, float], step: int) -> list[Metric]:
    """Return MLflow's metrics; an infinite value would be stored as 1.8e308, so it becomes NaN."""
    now = clock.milliseconds()
    finite = {name: value if math.isfinite(value) else math.nan for name, value in metrics.items()}
    return [Metric(name, value, now, step) for name, value in finite.items()]


def known_steps(client: MlflowClient, run: Run) -> set[int]:
    """Return the steps at which a run has metrics."""
    histories = (client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
    return {point.step for history in histories for point in history}


def batches(steps: Iterable[list[Metric]]) -> list[list[Metric]]:
    """Gather whole steps into batches that MLflow writes whole or not at all.

    So a step that a run has in one metric it has in all of them.
    """
    found: list[list[Metric]] = []
    for metrics in steps:
        if not found or len(found[-1]) + len(metrics) > MOST:
            found.append([])
        found[-1] += metrics
    return found
