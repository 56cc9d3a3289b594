"""The alias ``champion``: its moves, their history, and the way back.

Every change is one tag of its own on the registered model. Two people who promote at once then
cannot erase each other's record; which of them moves the alias last, MLflow decides.
"""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Literal

from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from microseg.config import Strict, did_you_mean
from microseg.errors import MicrosegError
from microseg.tracking.environment import user

CHAMPION = "champion"
CANDIDATE = "candidate"

_EVENT = "microseg.promotion."


class Promotion(Strict):
    """One move of the alias ``champion``: who moved it, when (UTC), from which version to which.

    ``why`` is the reason of a promotion that was forced, empty for one that was decided on a hold-out.
    """

    name: str
    action: Literal["promote", "rollback"]
    former: int | None
    version: int
    user: str
    when: datetime
    why: str = ""


def challenger(name: str, version: int | None = None) -> int:
    """Return the version that is to be promoted: the given one, or that under the alias ``candidate``.

    Raises
    ------
    MicrosegError
        For an unknown model or version, or if there is no candidate.
    """
    model = _model(name)
    if version is None:
        version = _alias(model, CANDIDATE)
        if version is None:
            raise MicrosegError(f"model '{name}' has no {CANDIDATE}; give a version: {_versions_hint(name)}")
    if version not in _versions(name):
        raise MicrosegError(f"model '{name}' has no version {version}; allowed: {_versions_hint(name)}")
    return version


def champion(name: str) -> int | None:
    """Return the version that serves, None before the first promotion.

    Raises
    ------
    MicrosegError
        For an unknown model.
    """
    return _alias(_model(name), CHAMPION)


def promote(name: str, version: int | None = None, why: str = "") -> Promotion:
    """Make a version the champion; whether it deserves that is `microseg.study.promotion`'s question.

    Parameters
    ----------
    name : str
        The registered model.
    version : int, optional
        Which version; the one under the alias ``candidate`` where none is given.
    why : str
        The reason, where no hold-out was asked.

    Returns
    -------
    Promotion
        What was done. A version that is champion already stays so, and nothing is recorded.

    Raises
    ------
    MicrosegError
        As `challenger`.
    """
    version = challenger(name, version)
    return _move(_model(name), "promote", version, why)


def rollback(name: str) -> Promotion:
    """Return to the version that was champion before the present one; repeat it to go further back.

    Raises
    ------
    MicrosegError
        For an unknown model, or if no earlier champion is left.
    """
    model = _model(name)
    serving, present = _alias(model, CHAMPION), _versions(name)
    earlier = [former for former in _former_champions(model) if former in present]
    # A move that was recorded but interrupted, or made twice, leads to where we are already.
    while earlier and earlier[-1] == serving:
        earlier.pop()
    if not earlier:
        raise MicrosegError(
            f"model '{name}' has no earlier champion; promote a version: {_versions_hint(name)}"
        )
    return _move(model, "rollback", earlier[-1])


def history(name: str) -> list[Promotion]:
    """Return every move of the alias ``champion`` that was made here, oldest first.

    Raises
    ------
    MicrosegError
        For an unknown model.
    """
    return _events(_model(name))


def _former_champions(model: RegisteredModel) -> list[int]:
    """Replay the history: a promotion lays the former champion down, a rollback takes it up again."""
    former: list[int] = []
    for event in _events(model):
        if event.action == "promote" and event.former is not None:
            former.append(event.former)
        elif event.action == "rollback" and event.version in former:
            del former[len(former) - 1 - former[::-1].index(event.version) :]
    return former


def _move(
    model: RegisteredModel, action: Literal["promote", "rollback"], version: int, why: str = ""
) -> Promotion:
    former = _alias(model, CHAMPION)
    now = datetime.now(UTC)
    move = Promotion(
        name=model.name, action=action, former=former, version=version, user=user(), when=now, why=why
    )
    if former != version:
        client = MlflowClient()
        # Recorded first: a move without its record could not be undone, a record without its move can.
        key = f"{_EVENT}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        client.set_registered_model_tag(model.name, key, move.model_dump_json())
        client.set_registered_model_alias(model.name, CHAMPION, str(version))
    return move


def _model(name: str) -> RegisteredModel:
    client = MlflowClient()
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    known = [model.name for model in client.search_registered_models()]
    hint = did_you_mean(name, known) if known else "none is registered yet; run 'microseg search' first"
    raise MicrosegError(f"unknown model '{name}'; {hint}")


def _events(model: RegisteredModel) -> list[Promotion]:
    keys = sorted(key for key in model.tags if key.startswith(_EVENT))
    return [Promotion.model_validate_json(model.tags[key]) for key in keys]


def _alias(model: RegisteredModel, alias: str) -> int | None:
    version = model.aliases.get(alias)
    return None if version is None else int(version)


def _versions(name: str) -> set[int]:
    quoted = name.replace("'", "''")
    return {int(found.version) for found in MlflowClient().search_model_versions(f"name = '{quoted}'")}


def _versions_hint(name: str) -> str:
    return ", ".join(str(version) for version in sorted(_versions(name))) or "none is registered"
