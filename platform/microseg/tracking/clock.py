"""The time of day, as the MLflow server has it: clocks of machines differ, and are set while a study runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

NEGLIGIBLE = 5.0  # seconds: servers tell whole ones


def _steady() -> float:
    """Return seconds that only go on, also while a laptop sleeps; nobody sets them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


_zero = time.time() - _steady()  # the time at which the steady seconds began


def follow(uri: str) -> None:
    """Take the time from the server of a tracking store; without a server it stays that of this machine.

    Raises
    ------
    MlflowException
        If the server does not answer.
    """
    global _zero
    if not uri.startswith(("http:", "https:")):
        return
    server = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    answer = http_request(server, "/health", "GET", raise_on_status=False)  # type: ignore[no-untyped-call]
    told = answer.headers.get("Date")
    if told is None:
        return
    theirs = parsedate_to_datetime(told).timestamp()
    if abs(theirs - _zero - _steady()) > NEGLIGIBLE:
        _zero = theirs - _steady()


def milliseconds() -> int:
    """Return the time in milliseconds since 1970, as MLflow keeps it."""
    return int((_zero + _steady()) * 1000)


def moment() -> datetime:
    """Return the time as a date in UTC."""
    return datetime.fromtimestamp(_zero + _steady(), UTC)


def days_ahead() -> float:
    """Return how far the clock of this machine is ahead of the server's now, in days; negative if behind."""
    return (time.time() - _zero - _steady()) / 86400
