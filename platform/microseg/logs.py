"""Structured logs: one JSON object a line on standard error, in which no credentials are left."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any

from microseg.errors import MicrosegError, did_you_mean

FORMAT = "MICROSEG_LOG"
HIDDEN = "***"

_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|_KEY$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_SHORTEST = 6  # characters: a value such as "true" is no secret, and is in half of all lines


def names_secret(variable: str) -> bool:
    """Say whether the name of a variable of the environment tells that nobody should read its value."""
    return bool(_SECRET_NAME.search(variable))


def redacted(text: str) -> str:
    """Return a text without the credentials of addresses and without the secrets of the environment.

    Those are the values of variables whose names say so, such as ``AWS_SECRET_ACCESS_KEY``.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and names_secret(name):
            text = text.replace(value, HIDDEN)
    return _IN_ADDRESS.sub(HIDDEN, text)


def log_event(logger: logging.Logger, name: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log what happened under a short name that a program can count, with plain values as its fields."""
    logger.log(level, name, extra={"fields": fields})


def configure(default: str = "text") -> None:
    """Send the logs of this process to standard error, as ``MICROSEG_LOG`` says: json or text.

    Parameters
    ----------
    default : {"text", "json"}
        Where the variable is not set.

    Raises
    ------
    MicrosegError
        If it says something else.
    """
    wanted = os.environ.get(FORMAT) or default
    if wanted not in _FORMATTERS:
        raise MicrosegError(f"{FORMAT} is '{wanted}'; {did_you_mean(wanted, _FORMATTERS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATTERS[wanted]())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("microseg").setLevel(logging.INFO)
    logging.captureWarnings(True)


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, event, the event's fields, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        shown = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        texts = {name: redacted(value) if isinstance(value, str) else value for name, value in shown.items()}
        return json.dumps(texts, ensure_ascii=False, default=lambda value: redacted(str(value)))


class TextLines(logging.Formatter):
    """A record for people: time, level, event, and the fields as ``name=value``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it where there is one."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return redacted(super().format(record) + fields)


_FORMATTERS = {"json": JsonLines, "text": TextLines}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields
