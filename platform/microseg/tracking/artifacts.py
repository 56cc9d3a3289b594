"""Files among a run's artifacts: JSON that is read back, and tables that MLflow's UI shows as such."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

PROVENANCE = "provenance.json"  # of a study and of each fold: where it comes from


def read_json(client: MlflowClient, run_id: str, path: str) -> Any:
    """Return what a JSON file among a run's artifacts holds.

    Raises
    ------
    mlflow.exceptions.MlflowException
        If there is no such file; see `find_json`.
    """
    with tempfile.TemporaryDirectory(prefix="microseg-") as scratch:
        return json.loads(Path(client.download_artifacts(run_id, path, scratch)).read_bytes())


def find_json(client: MlflowClient, run_id: str, path: str) -> Any:
    """Return what a JSON file among a run's artifacts holds; None where there is no such file."""
    folder = path.rpartition("/")[0] or None
    if path not in (entry.path for entry in client.list_artifacts(run_id, folder)):
        return None
    return read_json(client, run_id, path)


def log_table(
    client: MlflowClient, run_id: str, path: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a table that MLflow's UI shows as one, in place of an earlier one of this path.

    ``MlflowClient.log_table`` of MLflow 3.17 appends to a table that is there, so that a resumed study would
    show its rows twice, and makes pandas 3 warn of its own strings.
    """
    client.log_dict(run_id, {"columns": list(columns), "data": [list(row) for row in rows]}, path)
    viewer = json.dumps([{"path": path, "type": "table"}])
    client.set_tag(run_id, "mlflow.loggedArtifacts", viewer)
