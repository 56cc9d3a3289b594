"""What MLflow has marked as deleted, removed for good: ``mlflow gc``, which needs the database itself."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from urllib.parse import urlsplit

from mlflow import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from microseg.errors import MicrosegError, one_line
from microseg.tracking import clock
from microseg.tracking.databases import refused
from microseg.tracking.store import FAILURES

# As for `mlflow server`; never an option, which every process could read.
BACKEND = "MLFLOW_BACKEND_STORE_URI"
_PURGED = "has been permanently deleted"  # what MLflow prints for each


def database_of(client: MlflowClient) -> str:
    """Return the address of the tracking store's database; empty where only a server knows it."""
    uri = str(client.tracking_uri)
    return os.environ.get(BACKEND, "") if uri.startswith(("http:", "https:")) else uri


def purge(client: MlflowClient, database: str, days: int) -> int:
    """Remove runs, models and experiments that were deleted some days ago, with all their files.

    Parameters
    ----------
    client : MlflowClient
        The tracking store; files that its server keeps are deleted through it.
    database : str
        From `database_of`.
    days : int
        What was deleted later than so many days ago can still be restored, and stays.

    Returns
    -------
    int
        How many were removed.

    Raises
    ------
    MicrosegError
        If the database or the store of files cannot be used.
    """
    from mlflow.cli import gc  # imported late: all of MLflow's commands come with it

    # It counts from the time of this machine, but the server has noted when something was deleted.
    age = days + max(0.0, clock.days_ahead())
    arguments = ["--older-than", f"{age:.6f}d", "--backend-store-uri", database]
    said = io.StringIO()
    # It repeats at length what ends up in one line here.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
    try:
        refusal = refused(database)
        if refusal:
            raise MicrosegError(f"MLflow's database refuses ({refusal}); correct {BACKEND} and repeat this")
        with contextlib.redirect_stdout(said):
            # In this process: the command line of another shows the password.
            gc.main([*arguments, "--tracking-uri", str(client.tracking_uri)], standalone_mode=False)
    except (*FAILURES, SQLAlchemyError) as error:
        reason = _without_secrets(one_line(error), database)[:300]
        raise MicrosegError(
            f"mlflow gc ended with: {reason}; check {BACKEND}, that database and files can be reached; what "
            "was not removed will be the next time"
        ) from None  # the cause may hold the password
    return said.getvalue().count(_PURGED)


def _without_secrets(text: str, uri: str) -> str:
    password = urlsplit(uri).password
    return text.replace(uri, "the database").replace(password, "***") if password else text
