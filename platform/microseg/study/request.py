"""What a study was asked for, and where it keeps that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import BeforeValidator, Field

from microseg import folds
from microseg.config import SearchConfig, Strict, did_you_mean, parse
from microseg.data.audit import Finding
from microseg.data.files import replacing
from microseg.data.manifest import Manifest
from microseg.data.open import DataOptions
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.space import Scalar, Space
from microseg.storage import home


class Request(Strict):
    """What a study was asked for; kept with it, so that it can be resumed by its name alone.

    ``data`` is an absolute path or an ``s3://`` URI.
    """

    name: str
    data: Annotated[str, BeforeValidator(str)]
    options: DataOptions = DataOptions()
    config: SearchConfig
    model: str = ""


class StudyState(Strict):
    """What resuming a study needs: the request, the data and code it began with, and its run in MLflow.

    ``points`` are the parameters it tries first, as they were found then: files and the study that a warm
    start reads may change.
    """

    request: Request
    digest: str
    code: dict[str, str] = Field(default_factory=dict)
    run_id: str
    points: tuple[dict[str, Scalar], ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A checked request: nothing has been written yet but caches."""

    request: Request
    space: Space
    manifest: Manifest
    development: Manifest
    folds: Sequence[Fold]
    findings: Sequence[Finding]


def folder(name: str) -> Path:
    """Return a study's folder.

    Raises
    ------
    MicrosegError
        If the name cannot be a folder's.
    """
    if not name or name.startswith(".") or any(letter in name for letter in "/\\'`\"\n"):
        raise MicrosegError(f"study name {name!r}: use letters, digits, '-' and '_', such as nuclei-2026")
    return home() / "studies" / name


def splits_file(manifest: Manifest) -> Path:
    """Return the file that keeps the hold-out of a data set, which all its studies here share."""
    return folds.splits_file(manifest, home())


def state_file(name: str) -> Path:
    """Return the file that says what a study was asked for."""
    return folder(name) / "study.json"


def read_state(name: str) -> StudyState:
    """Read what a study was asked for.

    Raises
    ------
    MicrosegError
        If there is no such study here.
    """
    file = state_file(name)
    if not file.is_file():
        here = [path.parent.name for path in file.parent.parent.glob("*/study.json")]
        hint = did_you_mean(name, here) if here else "there are none yet"
        raise MicrosegError(f"there is no study '{name}' in {home()}; {hint}")
    return StudyState.model_validate_json(file.read_text(encoding="utf-8"))


def optuna_file(name: str) -> Path:
    """Return the file of Optuna's storage of a study."""
    return folder(name) / "optuna.db"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold a study: two processes that run one would train and record everything twice.

    Raises
    ------
    MicrosegError
        If another process runs it.
    """
    folder(name).mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder(name) / "lock").acquire(timeout=0)
    except Timeout as error:
        raise MicrosegError(
            f"study '{name}' is being run by another process; wait for its end, or stop it first"
        ) from error
    with lock:
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def single(values: dict[str, Any], source: str) -> SearchConfig:
    """Return the search that trains all folds of one configuration.

    Raises
    ------
    MicrosegError
        If the values do not describe a search.
    """
    return parse(SearchConfig, {"space": values, "trials": 1, "asha": None}, source)
