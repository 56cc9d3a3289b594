"""What a registered version reached on the hold-out, where the registry has decided about it."""

from __future__ import annotations

import re

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from microseg.errors import MicrosegError
from microseg.scoring import ImageScores
from microseg.tracking.artifacts import read_json
from microseg.tracking.scores import Scored

MODELS = "models:/"


def of_version(client: MlflowClient, uri: str) -> Scored:
    """Return the scores by image of the newest decision about a version.

    Parameters
    ----------
    client : MlflowClient
        The tracking store, which is the registry too.
    uri : str
        Such as ``models:/cells@champion`` or ``models:/cells/3``.

    Raises
    ------
    MicrosegError
        If there is no such version, or nothing was decided about it.
    """
    version = version_of(client, uri)
    run_id = version.run_id or ""
    folder = f"decisions/{version.name}-{version.version}"
    files = client.list_artifacts(run_id, folder) if run_id else []
    paths = [file.path for file in files if file.path.endswith(".json")]
    if not paths:
        raise MicrosegError(
            f"{uri}: version {version.version} has no scores on a hold-out, which microseg promote records; "
            "or predict masks with it (microseg predict) and score those"
        )
    newest = max(paths, key=lambda path: (len(path), path))  # use 10 after use 2
    document = read_json(client, run_id, newest)
    metric = document["decision"]["metric"]
    table = [
        ImageScores(one["image"], one["group"], {metric: one["challenger"]}) for one in document["images"]
    ]
    data = client.get_run(run_id).data.tags.get("microseg.digest", "")
    return Scored(name=uri, data=data, table=tuple(table), files=())


def version_of(client: MlflowClient, uri: str) -> ModelVersion:
    """Return the version that an address names, by its number or by an alias.

    Raises
    ------
    MicrosegError
        If the address is no such one, or there is no such version.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([\w-]+))", uri)
    if found is None:
        raise MicrosegError(f"'{uri}' names no version; write models:/NAME/3 or models:/NAME@champion")
    name, number, alias = found.groups()
    try:
        if number:
            return client.get_model_version(name, number)
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise MicrosegError(
            f"{uri}: there is no such version in {client.tracking_uri}; check the name"
        ) from error
