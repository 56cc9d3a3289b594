"""The pictures that a study keeps of its best trial, as a page can hold them."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient

from microseg.report.fold_sizes import artifact

EXAMPLES = "examples"  # folder among the artifacts of a study


class Picture(NamedTuple):
    """A picture, what it shows, and its bytes as a data address."""

    kind: str
    caption: str
    address: str


def pictures(client: MlflowClient, run_id: str) -> list[Picture]:
    """Return the examples among a study's artifacts, the lowest Dice first; none where none were drawn."""
    listed = artifact(client, run_id, f"{EXAMPLES}/examples.json")
    if not listed:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(client.download_artifacts(run_id, EXAMPLES, scratch))
        return [
            Picture(
                one["kind"],
                f"{one['image']}, fold {one['fold'] + 1}, Dice {one['dice']:.3f}",
                f"data:image/jpeg;base64,{base64.b64encode((folder / one['file']).read_bytes()).decode()}",
            )
            for one in listed["examples"]
        ]
