"""Whether a database lets us in, asked once: MLflow goes on asking for a minute and a half in any case."""

from __future__ import annotations

import re

import sqlalchemy
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from microseg.errors import one_line

# What PostgreSQL says to who will not be let in later either, unlike when it starts, ends or is full.
_FOR_GOOD = re.compile(
    "authentication failed|does not exist|no pg_hba.conf entry|permission denied|not permitted to log in"
)


def reason(error: BaseException) -> str:
    """Return what the server or the driver says; SQLAlchemy adds the statement, and links."""
    return one_line(getattr(error, "orig", None) or error).rpartition("FATAL: ")[2].strip()


def refusal(error: BaseException | None) -> str:
    """Return why a server that is there does not let us in; empty if the error is any other.

    Parameters
    ----------
    error : BaseException or None
        Its causes are looked at too.
    """
    while error is not None:
        if isinstance(error, OperationalError) and "FATAL: " in str(error.orig):
            said = reason(error)
            return said if _FOR_GOOD.search(said) else ""
        error = error.__cause__
    return ""


def refused(address: str) -> str:
    """Try to connect to a database, and return why its server refuses; empty if it does not, or is away.

    Parameters
    ----------
    address : str
        As SQLAlchemy takes it.
    """
    engine = sqlalchemy.create_engine(address, poolclass=NullPool)
    try:
        engine.connect().close()
    except OperationalError as error:
        return refusal(error)
    return ""
