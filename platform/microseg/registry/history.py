"""The alias ``champion``: its moves, their history, and the way back.

Every change is one tag of its own on the registered model. Two people who promote at once then
cannot erase each other's record, and at least one of them sees the other's before the alias moves.
"""

from __future__ import annotations

import random
import time
import uuid
from datetime import datetime
from typing import Literal

from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from microseg.config import Strict, did_you_mean
from microseg.errors import MicrosegError
from microseg.tracking import clock
from microseg.tracking.environment import user
from microseg.tracking.rights import allowed

CHAMPION = "champion"
CANDIDATE = "candidate"

_EVENT = "microseg.promotion."
_WITHDRAWN = "withdrawn"  # a tag is overwritten: to delete it takes more rights than to move an alias
_TRIES, _PAUSE = 5, (0.5, 2.0)  # seconds, at random: two who gave way to each other do not meet again


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
    return _move(name, "promote", (champion(name), version), why)


def succeed(name: str, version: int, former: int | None) -> Promotion:
    """Make a version the champion in the place of one that it has met, None where there was none.

    Raises
    ------
    MicrosegError
        As `challenger`, or if another version is champion by now: that one it has not met.
    """
    return _move(name, "promote", (former, challenger(name, version)))


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
    return _move(name, "rollback", (serving, earlier[-1]))


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
    name: str, action: Literal["promote", "rollback"], change: tuple[int | None, int], why: str = ""
) -> Promotion:
    """Move the alias from one version to another, unless somebody moves it at the same time."""
    (former, version), now = change, clock.moment()
    move = Promotion(name=name, action=action, former=former, version=version, user=user(), when=now, why=why)
    if former != version:
        client = MlflowClient()
        with allowed(f"the registered model '{name}'"):
            _announce(client, move)
            client.set_registered_model_alias(name, CHAMPION, str(version))
    return move


def _announce(client: MlflowClient, move: Promotion) -> None:
    """Record a move before it is made, and give way to whoever does so at the same time.

    MLflow changes an alias whatever it was. But each writes a record before it looks for others, so that of
    two at least one sees the other, withdraws, and finds another champion a little later. A move without its
    record could not be undone, a record without its move can.
    """
    for _ in range(_TRIES):
        before = _settled(move.name)
        if _alias(before, CHAMPION) != move.former:
            raise MicrosegError(
                f"model '{move.name}' got another champion meanwhile (version {_alias(before, CHAMPION)}); "
                "promote again, to meet that one"
            )
        key = f"{_EVENT}{_after(before):020d}-{uuid.uuid4().hex[:8]}"
        client.set_registered_model_tag(move.name, key, move.model_dump_json())
        if not set(_records(_model(move.name))) - set(_records(before)) - {key}:
            return
        client.set_registered_model_tag(move.name, key, _WITHDRAWN)
        time.sleep(random.uniform(*_PAUSE))
    raise MicrosegError(f"others change the champion of model '{move.name}' all the time; try again later")


def _settled(name: str) -> RegisteredModel:
    """Return a model as it is once the last move that is recorded is made, or was given time to be.

    Whoever records a move looks for others, and only then moves the alias: until then its record alone tells
    of it.
    """
    model = _model(name)
    events = _events(model)
    if events and events[-1].version != _alias(model, CHAMPION):
        time.sleep(max(_PAUSE))
        model = _model(name)
    return model


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
    records = _records(model)
    return [Promotion.model_validate_json(records[key]) for key in sorted(records)]


def _records(model: RegisteredModel) -> dict[str, str]:
    """Return the records of moves by the names of their tags, which sort in the order of the moves."""
    return {key: text for key, text in model.tags.items() if key.startswith(_EVENT) and text != _WITHDRAWN}


def _after(model: RegisteredModel) -> int:
    """Return the time in nanoseconds or, where another clock was ahead, what follows the last record."""
    numbers = (int(key.removeprefix(_EVENT).partition("-")[0]) for key in _records(model))
    return max(time.time_ns(), max(numbers, default=0) + 1)


def _alias(model: RegisteredModel, alias: str) -> int | None:
    version = model.aliases.get(alias)
    return None if version is None else int(version)


def _versions(name: str) -> set[int]:
    quoted = name.replace("'", "''")
    return {int(found.version) for found in MlflowClient().search_model_versions(f"name = '{quoted}'")}


def _versions_hint(name: str) -> str:
    return ", ".join(str(version) for version in sorted(_versions(name))) or "none is registered"
