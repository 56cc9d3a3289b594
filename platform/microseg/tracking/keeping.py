"""Files that a run keeps, and those that are removed from it: MLflow itself deletes whole runs only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from microseg.errors import MicrosegError
from microseg.tracking.fold import HAS_PICTURES
from microseg.tracking.store import FAILURES

NETWORK, PICTURES = "model", "images"  # the folders among the artifacts of a fold
REMOVED = "microseg.removed."  # with a folder's name: the tag that says why it is no longer there


def remove(client: MlflowClient, run: Run, folders: Iterable[str], why: str) -> None:
    """Delete folders among a run's artifacts for good, once, and say so in tags of the run.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    run : Run
        The run.
    folders : iterable of str
        `NETWORK`, `PICTURES`.
    why : str
        What the tags say, such as ``keep: best``.

    Raises
    ------
    MicrosegError
        If the store of artifacts does not let them be deleted.
    """
    asked = [folder for folder in folders if REMOVED + folder not in run.data.tags]
    repository = _repository(client, run)
    try:
        for folder in asked:
            repository.delete_artifacts(folder)  # type: ignore[no-untyped-call]
            if repository.list_artifacts(folder):  # S3 answers a refusal as it does a success
                raise MicrosegError(f"{run.info.artifact_uri}: '{folder}' is still there after its deletion")
    except FAILURES as error:
        raise MicrosegError(f"{run.info.artifact_uri}: {str(error).splitlines()[0]}") from error
    if asked:
        client.log_batch(run.info.run_id, tags=[RunTag(REMOVED + folder, why) for folder in asked])
    if PICTURES in asked and HAS_PICTURES in run.data.tags:  # else the UI would go on showing where they were
        client.delete_tag(run.info.run_id, HAS_PICTURES)


def artifact_bytes(client: MlflowClient, run: Run) -> int:
    """Return the size of all files that a run keeps.

    Raises
    ------
    MicrosegError
        If the store of artifacts does not tell.
    """
    try:
        return _bytes(_repository(client, run), None)
    except FAILURES as error:
        raise MicrosegError(f"{run.info.artifact_uri}: {str(error).splitlines()[0]}") from error


def _bytes(repository: ArtifactRepository, folder: str | None) -> int:
    files = repository.list_artifacts(folder)
    return sum(_bytes(repository, file.path) if file.is_dir else file.file_size or 0 for file in files)


def _repository(client: MlflowClient, run: Run) -> ArtifactRepository:
    # Not through the client, which asks for the run again at every call.
    return get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)


def store_size(client: MlflowClient) -> str:
    """Say how large the tracking store is: the file of a local one; a server does not tell."""
    path = Path(client.tracking_uri.removeprefix("sqlite:///"))
    return f"{path.name} {size(path.stat().st_size)}" if path.is_file() else "on a server"


def size(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    if count < 2**30:
        return f"{count / 2**20:.3g} MiB" if count < 1000 * 2**20 else f"{count / 2**30:.2g} GiB"
    return f"{count / 2**30:.3g} GiB"
