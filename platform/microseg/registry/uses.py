"""How often a hold-out was used, counted where all who share it see it.

Every use is one tag of its own, on one experiment of the tracking store: two people who use a hold-out at the
same time cannot erase each other's. A line in a file beside the hold-outs says the same, so that another
store does not make an old hold-out new.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from microseg.data.files import content_hash
from microseg.data.manifest import Item

EXPERIMENT = "microseg.hold-outs"
NOTE = {"mlflow.note.content": "Its tags count how often each hold-out was used: one tag, one use."}
_DIGITS = 16  # of a digest, in the names of tags and files


def hold_out_digest(items: Iterable[Item]) -> str:
    """Return a content hash (sha256 hex) of images and masks; names, places and order do not matter."""
    return content_hash(sha256.encode() for sha256 in sorted(item.sha256 for item in items))


def count_use(client: MlflowClient, digest: str, purpose: str, folder: Path) -> int:
    """Count one more use of a hold-out, for good, and return its number, from 1.

    Of two uses at the same time both may have the higher number, never both the lower one: their levels (see
    `microseg.statistics.level`) then add up to less than they may.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    digest : str
        Of the hold-out, from `hold_out_digest`.
    purpose : str
        What is compared, for whoever reads the tags.
    folder : Path
        Where this machine keeps its hold-outs.
    """
    experiment, prefix = hold_outs(client), f"{digest[:_DIGITS]}."
    key = f"{prefix}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    client.set_experiment_tag(experiment.experiment_id, key, purpose)
    known = client.get_experiment(experiment.experiment_id).tags
    return max(sum(name.startswith(prefix) for name in known), _count_here(digest, purpose, folder))


def _count_here(digest: str, purpose: str, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{digest[:_DIGITS]}.uses"
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {' '.join(purpose.split())}\n")
    return len(file.read_text(encoding="utf-8").splitlines())


def hold_outs(client: MlflowClient) -> Experiment:
    """Return the experiment whose tags count the uses of hold-outs; it is made where it is missing."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return client.get_experiment(client.create_experiment(EXPERIMENT, tags=NOTE))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return hold_outs(client)  # somebody else was first
    if found.lifecycle_stage != "active":  # deleting what was counted does not undo it
        client.restore_experiment(found.experiment_id)
    return found
