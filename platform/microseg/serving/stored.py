"""A model that MLflow keeps, without the code that is kept beside it.

Whoever may write to a registry may put code there, which MLflow runs when it loads or serves the model. Here
only the card and the networks are taken, which are data; what runs is this package as it is installed.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import mlflow.pyfunc
import yaml
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

from microseg.errors import MicrosegError, first_line
from microseg.serving.card import CARD
from microseg.serving.packaging import package_copy, requirements
from microseg.tracking import store

_DIRECTORY = "artifacts/model"  # where `microseg.serving.packaging` has them, beside the code
_META = "registered_model_meta"  # MLflow's name for the note of what was fetched from a registry
FAILURES = (*store.FAILURES, ValueError)  # the latter of a proxy's page in place of JSON


def fetch(model_uri: str, folder: Path) -> Path:
    """Download the card and the networks of a model, and nothing else.

    Parameters
    ----------
    model_uri : str
        Such as ``models:/NAME@champion``, ``models:/NAME/3`` or the path of a saved model.
    folder : Path
        Where they go, under a name that does not depend on the server's answers.

    Returns
    -------
    Path
        What a `microseg.serving.segmenter.Segmenter` takes.

    Raises
    ------
    MicrosegError
        If there is no such model or it was not made by microseg.
    """
    try:
        repository = get_artifact_repository(model_uri)
        names = {PurePosixPath(file.path).name for file in repository.list_artifacts(_DIRECTORY)}
        if CARD not in names and repository.list_artifacts(""):
            raise MicrosegError(
                f"{model_uri}: not a microseg model; give one that 'microseg search' registered"
            )
        for name in sorted(name for name in names | {CARD} if name == CARD or name.endswith(".keras")):
            repository.download_artifacts(f"{_DIRECTORY}/{name}", str(folder))  # type: ignore[no-untyped-call]
    except FAILURES as error:
        raise MicrosegError(
            f"{model_uri}: cannot be loaded ({first_line(error)}); check the name and the alias"
        ) from error
    return folder / _DIRECTORY


def rebuild(model_uri: str, folder: Path) -> Path:
    """Write a model anew, with this package's code in the place of that stored with it.

    Parameters
    ----------
    model_uri : str
        See `fetch`.
    folder : Path
        Holds the copy, as large as the networks twice.

    Returns
    -------
    Path
        A folder for ``mlflow models serve``.

    Raises
    ------
    MicrosegError
        As `fetch`.
    """
    directory, served = fetch(model_uri, folder), folder / "served"
    mlflow.pyfunc.save_model(
        served,
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"model": str(directory)},
        code_paths=[str(package_copy(folder / "code"))],
        pip_requirements=requirements(),
    )
    if model_uri.startswith("models:/"):  # answers say which version they are of
        repository = ModelsArtifactRepository(model_uri)
        meta = {"model_name": repository.model_name, "model_version": str(repository.model_version)}
        (served / _META).write_text(yaml.safe_dump(meta), encoding="utf-8")
    return served
