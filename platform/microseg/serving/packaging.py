"""Put trained networks into MLflow's model registry, complete with the code that runs it."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

import microseg
from microseg.config import Strict
from microseg.errors import MicrosegError
from microseg.serving.card import ModelCard
from microseg.serving.request import encode_npy, encode_png

CANDIDATE = "candidate"

# What the served model imports, and nothing of the search. MLflow would infer it by loading the
# model in a new process, which takes half a minute and depends on what happens to be installed.
_REQUIRED = (
    "mlflow",
    "keras",
    "numpy",
    "pydantic",
    "pyyaml",
    "pillow",
    "tifffile",
    "imagecodecs",
    "scipy",
    "scikit-image",
    "boto3",
)
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")


class Candidate(Strict):
    """A version in the registry that may become champion; ``uri`` is ``models:/NAME/VERSION``."""

    name: str
    version: int
    uri: str


def requirements() -> list[str]:
    """Return the exact versions, as installed here, of what the served model imports."""
    installed = {name: _version(name) for name in (*_TENSORFLOW, *_REQUIRED)}
    return [f"{name}=={version}" for name, version in installed.items() if version]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def log_candidate(card: ModelCard, members: Sequence[Path], run_id: str) -> Candidate:
    """Log networks as a model of a run, register it under the card's name, alias ``candidate``.

    Parameters
    ----------
    card : ModelCard
        What the model must know; ``card.name`` is the registered model's name.
    members : sequence of Path
        The ``.keras`` files, whose probabilities are averaged.
    run_id : str
        The run that the model belongs to; it need not be active.

    Returns
    -------
    Candidate
        The new version, or the one that was made of this trial of this run before.

    Raises
    ------
    MicrosegError
        If a member is missing.
    """
    client = MlflowClient()
    known = _registered(client, card, run_id)
    if known is not None:
        return Candidate(name=card.name, version=known, uri=f"models:/{card.name}/{known}")
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        directory = Path(folder) / "model"
        _assemble(card, members, directory)
        # Made beforehand, or it would be filed under whatever experiment is active.
        experiment = client.get_run(run_id).info.experiment_id
        model = client.create_logged_model(experiment, card.name, source_run_id=run_id)
        # mlflow.pyfunc.log_model takes no run; this is what it calls, and it leaves the active run alone.
        with _uncompiled():
            Model.log(
                artifact_path=None,
                flavor=mlflow.pyfunc,
                run_id=run_id,
                model_id=model.model_id,
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"model": str(directory)},
                code_paths=[str(package_copy(Path(folder) / "code"))],
                pip_requirements=requirements(),
                input_example=[_example(card.channels)],
            )
    version = _register(client, card, model.model_id, run_id)
    return Candidate(name=card.name, version=version, uri=f"models:/{card.name}/{version}")


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Let imports leave no compiled code: MLflow tries a model's code, and stores what lies beside it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _example(channels: int) -> dict[str, str]:
    """Return a request with a small image, which MLflow sends to the model before it stores both."""
    ramp = np.linspace(0, 255, 64 * 64 * channels).reshape(64, 64, channels).astype(np.uint8)
    if channels == 1:
        return {"image": encode_png(ramp[..., 0])}
    return {"image": encode_png(ramp) if channels == 3 else encode_npy(ramp)}


def _registered(client: MlflowClient, card: ModelCard, run_id: str) -> int | None:
    """Return the version that an earlier call made of the same trial, such as before a study was resumed."""
    quoted, tags = card.name.replace("'", "''"), _tags(card)
    found = client.search_model_versions(f"name = '{quoted}' and run_id = '{run_id}'")
    return next((int(v.version) for v in found if tags.items() <= v.tags.items()), None)


def _tags(card: ModelCard) -> dict[str, str]:
    return {"microseg.study": card.study, "microseg.trial": card.trial, "microseg.candidate": card.kind}


def _register(client: MlflowClient, card: ModelCard, model_id: str, run_id: str) -> int:
    """Make a logged model the next version of its name, alias ``candidate``."""
    try:
        client.create_registered_model(card.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = client.get_logged_model(model_id).artifact_location
    made = client.create_model_version(
        card.name, source, run_id, tags=_tags(card), description=card.description, model_id=model_id
    )
    client.set_registered_model_alias(card.name, CANDIDATE, made.version)
    return int(made.version)


def _assemble(card: ModelCard, members: Sequence[Path], directory: Path) -> None:
    directory.mkdir()
    if not members:
        raise MicrosegError(f"model '{card.name}': no networks given; give the .keras file of each fold")
    for number, member in enumerate(members):
        if not member.is_file():
            raise MicrosegError(f"{member}: no such file; the network of fold {number} is missing")
        shutil.copyfile(member, directory / f"fold-{number:03d}.keras")
    card.write(directory)


def package_copy(folder: Path) -> Path:
    """Copy the package without its compiled leftovers, which MLflow would take along."""
    source = Path(microseg.__file__).parent
    return Path(
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    )
