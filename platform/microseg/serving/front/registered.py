"""A registered model as the front knows it: where its alias points, and how a version is served."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import mlflow
from mlflow.artifacts import download_artifacts

from microseg.errors import MicrosegError, first_line
from microseg.serving.front import launch
from microseg.serving.front.options import FrontOptions
from microseg.serving.stored import FAILURES

_EXAMPLE = "serving_input_example.json"  # MLflow's name for the body of a request that it stores with a model


class Model(Protocol):
    """What is followed and served. The first two may take seconds, and are called in threads."""

    def version(self) -> str | None:
        """Return the version that the alias names, None where it names none; raise where nobody answers."""

    def example(self, version: str) -> bytes:
        """Return the body of a request that the version must answer before others are sent to it."""

    def command(self, version: str, port: int) -> list[str]:
        """Return the command that serves a version on a port of this machine."""

    def environment(self) -> dict[str, str]:
        """Return the environment of that command."""


class RegisteredModel:
    """A model in MLflow's registry, served by ``mlflow models serve`` (see `Model`)."""

    def __init__(self, options: FrontOptions) -> None:
        self._options = options
        self._client = mlflow.MlflowClient()

    def version(self) -> str | None:
        """Return the version that the alias names now, or None.

        Raises
        ------
        MicrosegError
            If the registry does not answer.
        """
        try:
            found = self._client.get_registered_model(self._options.name)
        except FAILURES as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise MicrosegError(f"the registry does not answer ({first_line(error)})") from error
        version = found.aliases.get(self._options.alias)
        return None if version is None else str(version)

    def example(self, version: str) -> bytes:
        """Fetch the request that was stored with a version.

        Raises
        ------
        MicrosegError
            If there is none.
        """
        uri = f"models:/{self._options.name}/{version}"
        try:
            with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
                return Path(
                    download_artifacts(artifact_uri=f"{uri}/{_EXAMPLE}", dst_path=folder)
                ).read_bytes()
        except FAILURES as error:
            raise MicrosegError(
                f"{uri}: its {_EXAMPLE} cannot be fetched ({first_line(error)}); "
                "register the model with microseg, and see that its artifacts are reachable"
            ) from error

    def command(self, version: str, port: int) -> list[str]:
        """Return the command line of ``mlflow models serve`` for a version, on the loopback device only."""
        return [
            *(sys.executable, "-m", launch.__name__, f"models:/{self._options.name}/{version}"),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
            *("--timeout", str(math.ceil(self._options.seconds))),
        ]

    def environment(self) -> dict[str, str]:
        """Return this process's environment, with what the model server needs."""
        tools = Path(sys.executable).parent  # mlflow looks for uvicorn on the path
        return os.environ | {
            "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }
