"""Scores of masks that somebody else made: one run per set, with a table of its images."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from microseg.data.files import content_hash
from microseg.errors import MicrosegError, did_you_mean
from microseg.scoring import ImageScores, means, means_over_groups
from microseg.tracking import clock, tree
from microseg.tracking.artifacts import log_table, read_json
from microseg.tracking.store import experiment_for

SCORE, NAME = "score", "microseg.name"
DIGEST, DATA = "microseg.score_digest", "microseg.digest"
TABLE = "images.json"
_FACTS = ("image", "group", "truth", "prediction")  # the columns of the table that are no metrics


class FileHashes(NamedTuple):
    """The content hashes (sha256 hex) of an image's true and predicted mask; empty where there is none."""

    truth: str
    prediction: str


@dataclass(frozen=True)
class Scored:
    """The scores of one set of masks: by image, with the files they come from, and what was noticed.

    ``data`` is the digest of the data set that is the truth; ``files`` are empty where only scores are left
    of the masks. ``known``: the same had been recorded before.
    """

    name: str
    data: str
    table: tuple[ImageScores, ...]
    files: tuple[FileHashes, ...]
    notes: tuple[str, ...] = ()
    known: bool = False

    @property
    def grouped(self) -> bool:
        """Whether several images share a group: otherwise nothing is known of groups."""
        return len({one.group for one in self.table}) < len(self.table)


def record(client: MlflowClient, scored: Scored, tags: Mapping[str, str]) -> Scored:
    """Keep scores as a run, which is found once it is whole; the same scores under one name are kept once.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    scored : Scored
        The scores; their name is the run's.
    tags : mapping of str to str
        What else the run says of itself.

    Raises
    ------
    MicrosegError
        If the name belongs to other scores.
    """
    digest = content_hash([json.dumps([scored.table, scored.files]).encode()])
    former = _find(client, scored.name)
    if former is not None and _whole(former):
        if former.data.tags[DIGEST] != digest:
            raise MicrosegError(
                f"'{scored.name}' names other scores in {client.tracking_uri}; choose another --name"
            )
        return replace(scored, known=True)
    run_id, now = _open(client, scored.name, former), clock.milliseconds()
    values = {f"{SCORE}/{name}": value for name, value in means(scored.table).items()}
    if scored.grouped:
        values |= {f"{SCORE}_groups/{name}": x for name, x in means_over_groups(scored.table).items()}
    client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in values.items()])
    log_table(client, run_id, TABLE, *_table(scored))
    tree.set_tags(client, run_id, {DIGEST: digest, DATA: scored.data, **tags})
    tree.end(client, run_id, "completed", f"{len(scored.table)} images scored")
    return scored


def _runs(client: MlflowClient) -> list[Run]:
    experiments = [str(experiment.experiment_id) for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{tree.LEVEL}` = '{SCORE}'"))


def _find(client: MlflowClient, name: str) -> Run | None:
    return next((run for run in _runs(client) if run.data.tags[NAME] == name), None)


def _whole(run: Run) -> bool:
    return run.data.tags.get(tree.STATE) == "completed"


def recorded(client: MlflowClient, name: str) -> Scored:
    """Return scores that were kept before.

    Raises
    ------
    MicrosegError
        If there are none of this name; the message lists those there are.
    """
    run = _find(client, name)
    if run is None or not _whole(run):
        names = [run.data.tags[NAME] for run in _runs(client) if _whole(run)]
        hint = did_you_mean(name, names) if names else "there are none yet"
        raise MicrosegError(f"no scores are named '{name}' in {client.tracking_uri}; {hint}")
    document = read_json(client, run.info.run_id, TABLE)
    rows = [dict(zip(document["columns"], row, strict=True)) for row in document["data"]]
    return Scored(
        name=name,
        data=run.data.tags[DATA],
        table=tuple(_image(row) for row in rows),
        files=tuple(FileHashes(row["truth"], row["prediction"]) for row in rows),
    )


def _image(row: Mapping[str, Any]) -> ImageScores:
    scores = {name: float(value) for name, value in row.items() if name not in _FACTS}
    return ImageScores(row["image"], row["group"], scores)


def _open(client: MlflowClient, name: str, former: Run | None) -> str:
    """Open the run of a set of scores: one that was cut short, the one of ``mlflow run``, or a new one."""
    given = os.environ.pop("MLFLOW_RUN_ID", None)
    if former is not None:
        return str(former.info.run_id)
    tags = {tree.LEVEL: SCORE, NAME: name, tree.STATE: "running"}
    if given is None:
        where, now = experiment_for(client, None), clock.milliseconds()
        return str(client.create_run(where, start_time=now, tags=tags, run_name=name).info.run_id)
    client.update_run(given, name=name)
    tree.set_tags(client, given, tags)
    return given


def _table(scored: Scored) -> tuple[list[str], list[list[Any]]]:
    """Return the table of images: names of columns, and rows."""
    metrics = list(scored.table[0].scores)
    rows = [
        [one.image, one.group, *(one.scores[name] for name in metrics), *files]
        for one, files in zip(scored.table, scored.files, strict=True)
    ]
    return ["image", "group", *metrics, *FileHashes._fields], rows
