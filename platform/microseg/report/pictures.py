"""The pictures that a study keeps of its best trial, as a page can hold them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient

from microseg.pages import data_address
from microseg.tracking.artifacts import find_json

EXAMPLES = "examples"  # folder among the artifacts of a study


class Picture(NamedTuple):
    """A picture, what it shows, and its bytes as a data address."""

    kind: str
    caption: str
    address: str


def pictures(client: MlflowClient, run_id: str) -> list[Picture]:
    """Return the examples among a study's artifacts, the lowest Dice first; none where none were drawn."""
    listed = find_json(client, run_id, f"{EXAMPLES}/examples.json")
    if not listed:
        return []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(client.download_artifacts(run_id, EXAMPLES, scratch))
        return [
            Picture(
                one["kind"],
                f"{one['image']}, fold {one['fold'] + 1}, Dice {one['dice']:.3f}",
                data_address("jpeg", (folder / one["file"]).read_bytes()),
            )
            for one in listed["examples"]
        ]
