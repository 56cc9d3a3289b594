"""The files of deploy/, read as their tools read them."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def deploy() -> Path:
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def variables(deploy) -> dict[str, str]:
    """What .env.example sets, and to what."""
    lines = (deploy / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def interpolated(text: str, values: dict[str, str]) -> str:
    """Fill in variables as compose does: ``${NAME:-default}``, ``${NAME:?message}``, ``$$`` for ``$``.

    Raises
    ------
    KeyError
        If a variable with a message is not set, or empty.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name, kind, rest = match[1], match[2], match[3]
        if values.get(name):
            return values[name]
        if kind == ":?":
            raise KeyError(f"{name}: {rest}")
        return rest

    return re.sub(r"\$\$|\$\{(\w+)(:-|:\?)([^}]*)\}", value, text)


@pytest.fixture(scope="session")
def read(deploy) -> Callable[[dict[str, str]], dict[str, Any]]:
    """Return a function from what .env sets to what compose.yaml says then."""
    text = (deploy / "compose.yaml").read_text(encoding="utf-8")
    return lambda values: yaml.safe_load(interpolated(text, values))


@pytest.fixture(scope="session")
def filled(variables) -> dict[str, str]:
    """.env as somebody has it who has filled in every secret, and the name of a proxy."""
    given = {name: value or f"{name.lower()}-0123456789" for name, value in variables.items()}
    hosts = f"{given['MLFLOW_SERVER_ALLOWED_HOSTS']},mlflow.lab.example"
    page = {"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://mlflow.lab.example"}
    return given | page | {"MLFLOW_SERVER_ALLOWED_HOSTS": hosts}


@pytest.fixture(scope="session")
def compose(read, filled) -> dict[str, Any]:
    """compose.yaml with that .env."""
    return read(filled)


@pytest.fixture(scope="session")
def built(deploy) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function from a folder of k8s/ to the objects that kustomize makes of it."""

    def build(folder: str) -> list[dict[str, Any]]:
        kubectl = Path(sys.executable).with_name("kubectl")
        done = subprocess.run(
            [kubectl, "kustomize", deploy / "k8s" / folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return build


@pytest.fixture(scope="session")
def written(deploy) -> list[dict[str, Any]]:
    """All objects of k8s/ as they are written, without what kustomize adds."""
    files = [file for file in sorted((deploy / "k8s").rglob("*.yaml")) if file.name != "kustomization.yaml"]
    texts = [file.read_text(encoding="utf-8") for file in files if file.name != "workers.yaml"]
    return [entry for text in texts for entry in yaml.safe_load_all(text)]
