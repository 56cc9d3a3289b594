"""Where a study, and each of its folds, comes from: one file that suffices to train a fold again.

The file of a study has all that its folds have in common; that of a fold has it too, and what is its own.
Each is whole in itself, so that a fold can be judged and repeated from its run alone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag
from pydantic import ValidationError

import microseg
from microseg.config import Strict, TrialConfig, first_problem
from microseg.data.manifest import Item, Manifest
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.storage import is_remote
from microseg.study.request import Prepared, Request, read_state, state_file
from microseg.tracking.artifacts import PROVENANCE, find_json
from microseg.tracking.environment import Environment, Source, environment, in_words, source, user
from microseg.tracking.tree import StudyRun, set_tags


class Parent(Strict):
    """The study whose best configurations a study tried first: its name, its run in MLflow where known."""

    study: str
    run: str


class Provenance(Strict):
    """Where the results of a study come from.

    ``request`` is what was asked for, with the whole search; ``manifest`` has every file of the data set with
    its sha256, ``digest`` is that of all; ``folds`` name what trains and validates, ``holdout`` what no fold
    sees. ``seeds`` has that of the study. ``started`` is in UTC. ``source`` is None where the code lies in
    no checkout. ``environment`` is that of the process that began the study.
    """

    study: str
    study_run: str
    parent: Parent | None
    user: str
    started: datetime
    seeds: dict[str, int]
    request: Request
    source: Source | None
    environment: Environment
    digest: str
    manifest: Manifest
    folds: tuple[Fold, ...]
    holdout: tuple[str, ...]

    @property
    def seen(self) -> tuple[Item, ...]:
        """The images that trained or validated."""
        names = {name for fold in self.folds for name in (*fold.train, *fold.valid)}
        return tuple(item for item in self.manifest.items if item.name in names)


P = TypeVar("P", bound=Provenance)


class FoldProvenance(Provenance):
    """Where the network of a fold comes from: that of its study, and what is its own.

    ``config`` is complete, with all defaults; ``seeds`` has those of trial and training too. ``environment``
    is that of the process that trained, between ``started`` and ``finished``. ``weights`` is a hash of the
    weights that were kept, ``fingerprint`` one of all that defines the training.
    """

    trial: str
    config: TrialConfig
    fold: Fold
    finished: datetime
    weights: str
    fingerprint: str


def record(client: MlflowClient, run: StudyRun, prepared: Prepared) -> Provenance:
    """Write where a study comes from to its run: the file, the tags that MLflow's UI shows, the data set."""
    began = client.get_run(run.run_id).info.start_time
    found = trace(run.run_id, datetime.fromtimestamp(began / 1000, UTC), prepared)
    client.log_text(run.run_id, found.model_dump_json(indent=1), PROVENANCE)
    tags = {
        "microseg.seed": str(found.seeds["study"]),
        "microseg.data": found.manifest.name,
        "microseg.digest": found.digest,
        "microseg.hardware": in_words(found.environment.hardware),
        "mlflow.user": found.user,
        "mlflow.source.name": f"microseg {microseg.__version__}",
        "mlflow.source.type": "LOCAL",
    }
    if found.source:
        tags |= {"mlflow.source.git.commit": found.source.commit, "microseg.code": found.source.state}
    set_tags(client, run.run_id, tags)
    _log_dataset(client, run.run_id, prepared)
    return found


def trace(run_id: str, started: datetime, prepared: Prepared) -> Provenance:
    """Return where a study comes from that begins, or goes on with something else."""
    request, manifest = prepared.request, prepared.manifest
    developed = {item.name for item in prepared.development.items}
    return Provenance(
        study=request.name,
        study_run=run_id,
        parent=_parent(request),
        user=user(),
        started=started,
        seeds={"study": request.config.seed},
        request=request,
        source=source(),
        environment=environment(),
        digest=manifest.digest,
        manifest=manifest,
        folds=tuple(prepared.folds),
        holdout=tuple(item.name for item in manifest.items if item.name not in developed),
    )


def _parent(request: Request) -> Parent | None:
    if request.config.warm_start is None:
        return None
    study = request.config.warm_start.study
    return Parent(study=study, run=read_state(study).run_id if state_file(study).exists() else "")


def read(client: MlflowClient, run_id: str) -> Provenance | None:
    """Return where a study comes from; None where its run does not say.

    Raises
    ------
    MicrosegError
        If another version of microseg wrote it in another way.
    """
    found = find_json(client, run_id, PROVENANCE)
    return None if found is None else _parse(Provenance, found, run_id)


def read_fold(client: MlflowClient, run_id: str) -> FoldProvenance:
    """Return where the network of a fold comes from.

    Raises
    ------
    MicrosegError
        If its run does not say, or another version of microseg wrote it in another way.
    """
    found = find_json(client, run_id, PROVENANCE)
    if found is None:
        raise MicrosegError(
            f"run '{run_id}' has no {PROVENANCE} among its artifacts; it cannot be trained again"
        )
    return _parse(FoldProvenance, found, run_id)


def _parse(model: type[P], found: Any, run_id: str) -> P:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise MicrosegError(
            f"run '{run_id}': {PROVENANCE}: {first_problem(error, model)}; use the version of microseg that "
            "wrote it"
        ) from error


def _log_dataset(client: MlflowClient, run_id: str, prepared: Prepared) -> None:
    """Log the data set as an MLflow dataset input, with its content digest."""
    manifest, asked = prepared.manifest, prepared.request.data
    remote = is_remote(asked)
    profile = {"images": len(manifest.items), "channels": manifest.channels, "masks": manifest.mask_kind}
    dataset = Dataset(
        name=manifest.name,
        digest=manifest.digest[:36],  # the column holds 36 characters; the tag microseg.digest holds all
        source_type="s3" if remote else "local",
        source=json.dumps({"uri": asked if remote else manifest.source}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
