"""Where the runs are kept: MLflow's tracking store, made ready once before any worker writes to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import mlflow
from botocore.exceptions import BotoCoreError, ClientError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from microseg.errors import MicrosegError, one_line
from microseg.tracking import clock
from microseg.tracking.databases import refused

EXPERIMENT = "microseg"
# What MLflow raises where a server refuses or is away: requests and files, its own server, S3.
FAILURES = (MlflowException, OSError, BotoCoreError, ClientError)
RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
# MLflow's client asks a server that is away again after 0, 2, 4, 8, ... seconds: 8 times are four minutes.
SETTINGS = {
    RETRIES: "8",
    TIMEOUT: "120",  # seconds: it hands large files on to S3 before it answers
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # of a model that anybody may have registered
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a line, and a request, for every run that ends
}


def connect(uri: str | None = None) -> MlflowClient:
    """Return a client of the tracking store, whose tables exist afterwards; its calls are `patient`.

    From now on `microseg.tracking.clock` tells the time as its server does.

    Four processes that create an sqlite store at the same time fail (``table experiments already
    exists``), so the process that starts workers calls this first.

    Parameters
    ----------
    uri : str, optional
        The store; by default ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working folder. A user and a
        password in it go to the environment, see `apart`.

    Raises
    ------
    MicrosegError
        If the store does not answer, or not to this user.
    """
    given = uri or mlflow.get_tracking_uri()
    address = apart(given)
    if uri is None and address != given:
        mlflow.set_tracking_uri(address)
    patient()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    refusal = refused(address) if address.startswith("postgresql") else ""
    if refusal:
        raise MicrosegError(f"the database {address} refuses ({refusal}); correct MLFLOW_TRACKING_URI")
    try:
        with _impatient():
            client = MlflowClient(address)
            client.search_experiments(max_results=1)
            clock.follow(address)
    except (MlflowException, OSError) as error:
        raise MicrosegError(_refusal(address, error)) from error
    return client


def apart(uri: str) -> str:
    """Return an address without its user and password, which go to where libraries look for them.

    The address is printed, and is part of links, of records, and of what workers are told.
    """
    parts = urlsplit(uri)
    if parts.username is None:
        return uri
    user, password = unquote(parts.username), unquote(parts.password or "")
    if parts.scheme in ("http", "https"):
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", user)
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", password)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.scheme.startswith("postgresql") and password:
        os.environ["PGPASSWORD"] = password  # what PostgreSQL's own library reads
        name, _, host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{name.partition(':')[0]}@{host}").geturl()
    return uri


def _refusal(address: str, error: Exception) -> str:
    """Say in a line why a store cannot be used; the cause may quote an address, so no more of it is shown."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if getattr(error, "error_code", "") == "UNAUTHENTICATED":
        who = f"does not let '{user}' in" if user else "asks who you are"
        return (
            f"the MLflow server {address} {who}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "to a user of that server and its password"
        )
    reason = one_line(error).rsplit(": ", 1)[-1].rstrip(")\"'")
    return f"the MLflow store {address} does not answer ({reason}); start it, or set MLFLOW_TRACKING_URI"


def patient() -> None:
    """Let the MLflow calls of this process, and of those it starts, wait for a server that is away.

    A worker on another machine does not inherit this from the process that called `connect`. Whatever the
    environment says already holds.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def _impatient() -> Iterator[None]:
    """Give up within a minute: a server that is not there, or stands still, at the start needs somebody."""
    asked = {name: os.environ[name] for name in (RETRIES, TIMEOUT)}
    os.environ[RETRIES], os.environ[TIMEOUT] = "3", str(min(10, int(asked[TIMEOUT])))
    try:
        yield
    finally:
        os.environ.update(asked)


def experiment_for(client: MlflowClient, run_id: str | None) -> str:
    """Return the experiment's id: that of a given run, else the one the environment names, else ours.

    Raises
    ------
    MicrosegError
        If the experiment of that name was deleted.
    """
    if run_id:
        return str(client.get_run(run_id).info.experiment_id)
    if "MLFLOW_EXPERIMENT_ID" in os.environ:
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise MicrosegError(
            f"the experiment '{name}' was deleted; restore it, or set MLFLOW_EXPERIMENT_NAME to another"
        )
    return str(found.experiment_id)


def ui_command(client: MlflowClient) -> str:
    """Return the command that opens the store in a browser, or the address of its server."""
    uri = client.tracking_uri
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
