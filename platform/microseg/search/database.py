"""Where Optuna keeps the trials of a study: a file in its folder, or a PostgreSQL server that many share."""

from __future__ import annotations

import functools
import os
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from microseg.data.files import replacing
from microseg.errors import MicrosegError
from microseg.search.patience import patiently
from microseg.tracking.databases import reason, refusal

URL = "MICROSEG_OPTUNA_URL"
KEY = "optuna.key"
LIKE = "postgresql+psycopg://USER:PASSWORD@HOST:5432/DATABASE"

# Of a connection that was lost in silence the system would tell after two hours.
_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds: keepalives are silent while an answer is due
    "application_name": "microseg",
}
# A connection for each transaction: a study asks little, waits for hours, and the server has few to give.
_ENGINE: dict[str, Any] = {"poolclass": NullPool, "connect_args": _CONNECTION}
_LOCK = sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtext('microseg'))")

Method = TypeVar("Method", bound=Callable[..., Any])


def check() -> None:
    """Refuse a database that cannot be used, before a study begins; without the variable there is none.

    Raises
    ------
    MicrosegError
        If the address is malformed, or no server answers there, or it does not let us in.
    """
    if os.environ.get(URL):
        _server(os.environ[URL])


def opened(file: Path, study: str) -> tuple[RDBStorage, str]:
    """Open Optuna's storage of a study; return it, and the name that the study has there.

    In a database that people share, a study of the same name is another one: a key in the study's folder
    tells them apart, which `remember` writes once the study is there.

    Parameters
    ----------
    file : Path
        The sqlite file, for a study that keeps its trials on this machine.
    study : str
        The study's name.

    Raises
    ------
    MicrosegError
        As `check`, or if the study began elsewhere than where ``MICROSEG_OPTUNA_URL`` points now.
    """
    url, key = os.environ.get(URL, ""), file.with_name(KEY)
    if not url:
        if key.is_file():
            raise MicrosegError(f"the trials of study '{study}' are in a database; set {URL} to it")
        file.parent.mkdir(parents=True, exist_ok=True)
        return RDBStorage(f"sqlite:///{file.resolve()}"), study
    if file.is_file():
        raise MicrosegError(f"the trials of study '{study}' are in {file}; unset {URL} to use them")
    storage = _server(url)
    return storage, f"{study} {_known_key(key, storage, study) or uuid.uuid4().hex[:12]}"


def _known_key(key: Path, storage: RDBStorage, study: str) -> str:
    if not key.is_file():
        return ""
    known = key.read_text(encoding="utf-8")
    if not any(name.endswith(known) for name in optuna.get_all_study_names(storage)):
        raise MicrosegError(
            f"the trials of study '{study}' are in another database than {_shown(storage.engine.url)}; "
            f"set {URL} to the one in which it began"
        )
    return known


def remember(file: Path, name: str) -> None:
    """Keep the key of a study that is in a database; ``name`` is its name there."""
    key = file.with_name(KEY)
    if os.environ.get(URL) and not key.is_file():
        with replacing(key) as text:
            text.write(name.rpartition(" ")[2].encode())


def forget(file: Path, study: str) -> None:
    """Delete a study's trials from a database that people share; a file of its own goes with its folder.

    Raises
    ------
    MicrosegError
        As `opened`.
    """
    key = file.with_name(KEY)
    if key.is_file():
        storage, name = opened(file, study)
        optuna.delete_study(study_name=name, storage=storage)
        storage.engine.dispose()
        key.unlink()


def _server(url: str) -> RDBStorage:
    """Open the storage on a server, and make its tables where they are missing.

    Two studies that begin at once would both make them, and one would fail: a lock of the server's lets one
    wait for the other.
    """
    address = _address(url)
    try:
        with sqlalchemy.create_engine(address, **_ENGINE).begin() as connection:
            connection.execute(_LOCK)
            shown = address.set(password=None).render_as_string()
            storage = RDBStorage(shown, engine_kwargs={"poolclass": NullPool, "creator": _connect})
    except ImportError as error:
        raise MicrosegError(
            f"{URL} names {_shown(address)}, but its driver is missing ({error}); "
            "install it: pip install 'microseg[services]'"
        ) from error
    except (SQLAlchemyError, RuntimeError) as error:  # the latter: tables of another version of Optuna
        raise MicrosegError(
            f"{URL} names {_shown(address)}, which cannot be used ({reason(error)}); start it, or correct "
            f"the address, user and password, or unset {URL} to keep trials in a file"
        ) from None  # the cause may hold the password
    return storage


def _connect() -> Any:
    """Connect as the environment says: Ray Tune writes the storage, and its address, to a file."""
    address = _address(os.environ[URL])
    dialect = sqlalchemy.create_engine(address).dialect
    given, named = dialect.create_connect_args(address)
    return dialect.connect(*given, **named, **_CONNECTION)


def _address(url: str) -> sqlalchemy.URL:
    try:
        address = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise MicrosegError(f"{URL} is no address of a database; give one such as {LIKE}") from None
    if address.get_backend_name() != "postgresql" or not address.database:
        kind = address.get_backend_name()
        raise MicrosegError(f"{URL} names no PostgreSQL database (given: {kind}); give one such as {LIKE}")
    return address


def _shown(address: sqlalchemy.URL) -> str:
    """Return an address without user and password."""
    port = f":{address.port}" if address.port else ""
    return f"{address.database} on {address.host or 'this machine'}{port}"


def away(error: BaseException | None) -> bool:
    """Say whether an error comes of a server that was stopped, is starting, or cannot be reached."""
    while error is not None:
        if isinstance(error, OperationalError | InterfaceError):
            return not isinstance(error.orig, sqlite3.Error) and not refusal(error)
        error = error.__cause__
    return False


def patient(method: Method) -> Method:
    """Let a method that may be repeated wait for a server that is away.

    What it did before the connection broke may be done or not: it must come to the same the second time.

    Raises
    ------
    MicrosegError
        If the server stays away for minutes, or no longer lets us in.
    """

    @functools.wraps(method)
    def asked(*given: Any, **named: Any) -> Any:
        try:
            return patiently(functools.partial(method, *given, **named), away)
        except (StorageInternalError, SQLAlchemyError) as error:
            if refusal(error):
                state, then = f"refuses ({refusal(error)})", "it lets you in"
            elif away(error):
                state, then = f"stays away ({reason(error.__cause__ or error)})", "it is back"
            else:
                raise
            raise MicrosegError(
                f"the database of {URL} {state}; nothing is lost: go on with --resume once {then}"
            ) from None

    return cast(Method, asked)
