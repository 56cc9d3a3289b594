"""Where trials are kept, and what is said where that cannot be used; the real server is in tests/integration."""

import sqlite3

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from microseg.errors import MicrosegError
from microseg.search import database, patience
from microseg.search.database import patient

SECRET = "pl4nted"


def lost(cause: Exception) -> StorageInternalError:
    """Return what Optuna raises when the connection breaks."""
    error = StorageInternalError("an exception is raised during the commit")
    error.__cause__ = OperationalError("SELECT 1", {}, cause)
    return error


class Asked:
    """Something whose server is away some times."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    @patient
    def value(self, number: int) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return number


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    return slept


def test_a_server_that_is_away_is_asked_again_later_and_later(waits):
    assert Asked(*[lost(ConnectionError("refused"))] * 3).value(7) == 7
    assert waits == [1, 2, 4]


def test_after_minutes_it_is_given_up_in_one_line(waits):
    asked = Asked(*[lost(ConnectionError("refused"))] * 99)
    with pytest.raises(
        MicrosegError, match=r"stays away \(refused\); nothing is lost: go on with --resume"
    ) as caught:
        asked.value(7)
    assert 180 < sum(waits) < 300
    assert "\n" not in str(caught.value)


def server_said(text: str) -> Exception:
    return ConnectionError(
        f'connection failed: connection to server at "db", port 5432 failed: FATAL:  {text}'
    )


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "lab"',
        'role "lab" does not exist',
        'database "trials" does not exist',
        'no pg_hba.conf entry for host "10.0.0.1", user "lab", database "trials", no encryption',
        'permission denied for database "trials"',
    ],
)
def test_a_server_that_lets_nobody_in_is_not_asked_again(waits, text):
    with pytest.raises(
        MicrosegError, match="nothing is lost: go on with --resume once it lets you"
    ) as caught:
        Asked(lost(server_said(text))).value(7)
    assert f"refuses ({text})" in str(caught.value) and "\n" not in str(caught.value)
    assert waits == []


@pytest.mark.parametrize(
    "text",
    [
        "the database system is starting up",
        "the database system is shutting down",
        "sorry, too many clients already",
        "terminating connection due to administrator command",
    ],
)
def test_a_server_that_will_let_us_in_is_asked_again(waits, text):
    assert Asked(lost(server_said(text))).value(7) == 7
    assert waits == [1]


@pytest.mark.parametrize(
    "error", [lost(sqlite3.OperationalError("disk is full")), StorageInternalError("too long"), ValueError()]
)
def test_what_no_server_can_mend_is_raised_at_once(waits, error):
    with pytest.raises(type(error)):
        Asked(error).value(7)
    assert waits == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (f"lab:{SECRET}@host/trials", "is no address of a database; give one such as postgresql"),
        (f"postgresql+psycopg://lab:{SECRET}@host:port/trials", "is no address of a database"),
        (f"mysql://lab:{SECRET}@host/trials", r"names no PostgreSQL database \(given: mysql\)"),
        (f"postgresql+psycopg://lab:{SECRET}@host", "names no PostgreSQL database"),
        (f"postgresql+nodriver://lab:{SECRET}@host/trials", r"names trials on host, .*Can't load plugin"),
        (
            f"postgresql+pg8000://lab:{SECRET}@host/trials",
            "driver is missing .*pip install 'microseg.services",
        ),
        (
            f"postgresql+psycopg://lab:{SECRET}@127.0.0.1:1/trials",
            r"names trials on 127.0.0.1:1, which cannot be used \(.*refused.*\); start it, or correct",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line_without_its_password(monkeypatch, given, words):
    monkeypatch.setenv(database.URL, given)
    with pytest.raises(MicrosegError, match=words) as caught:
        database.check()
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


def test_without_the_variable_trials_are_in_the_file_of_the_study(monkeypatch, tmp_path):
    monkeypatch.delenv(database.URL, raising=False)
    database.check()
    storage, name = database.opened(tmp_path / "new" / "optuna.db", "first")
    database.remember(tmp_path / "new" / "optuna.db", name)
    assert (name, storage.engine.dialect.name) == ("first", "sqlite")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["optuna.db"]


def test_a_study_that_began_elsewhere_is_not_begun_again_here(monkeypatch, tmp_path):
    monkeypatch.setenv(database.URL, "postgresql+psycopg://lab@127.0.0.1:1/trials")
    (tmp_path / "optuna.db").touch()
    with pytest.raises(MicrosegError, match=r"study 'first' are in .*optuna.db; unset MICROSEG_OPTUNA_URL"):
        database.opened(tmp_path / "optuna.db", "first")
    monkeypatch.delenv(database.URL)
    (tmp_path / "optuna.db").rename(tmp_path / database.KEY)
    with pytest.raises(MicrosegError, match="study 'first' are in a database; set MICROSEG_OPTUNA_URL to it"):
        database.opened(tmp_path / "optuna.db", "first")
