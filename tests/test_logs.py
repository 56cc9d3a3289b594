"""Logs: one JSON object a line, or a line for people, and no credentials in either."""

import io
import json
import logging
import sys
import warnings
from datetime import datetime

import pytest

from microseg import logs
from microseg.errors import MicrosegError

SECRET = "hunter22"


@pytest.fixture
def lines(monkeypatch):
    """Return a function: configure the logs, let something be logged, and return the lines of standard error."""
    root, own = logging.getLogger(), logging.getLogger("microseg")
    before = root.handlers[:], root.level, own.level

    def log(act, default="json"):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        logs.configure(default)
        act(logging.getLogger("microseg.test"))
        return sys.stderr.getvalue().splitlines()

    yield log
    logging.captureWarnings(False)
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])


def test_an_event_is_one_object_with_its_fields(lines):
    (line,) = lines(lambda logger: logs.log_event(logger, "served", version="3", seconds=0.5, former=None))
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("time")).utcoffset().total_seconds() == 0
    assert found == {
        "level": "info", "logger": "microseg.test", "event": "served", "version": "3", "seconds": 0.5, "former": None,
    }  # fmt: skip


def test_what_libraries_log_and_warn_is_json_too(lines):
    def act(_):
        logging.getLogger("urllib3").warning("a table of\ntwo lines")
        logging.getLogger("urllib3").info("chatter")
        warnings.warn("soon gone", FutureWarning, stacklevel=1)
        try:
            raise OSError("s3://me:hunter22@host is away")
        except OSError:
            logging.getLogger("aiohttp").exception("failed")

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        table, warning, failure = map(json.loads, lines(act))
    assert table["event"] == "a table of\ntwo lines"
    assert "soon gone" in warning["event"]
    assert "OSError: s3://***@host is away" in failure["traceback"]


@pytest.mark.parametrize("kind", ["json", "text"])
def test_no_credential_is_left_in_a_line(lines, monkeypatch, kind):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")
    monkeypatch.setenv("SHORT_TOKEN", "e")  # half of all lines have this letter
    monkeypatch.setenv(logs.FORMAT, kind)

    def act(logger):
        reason = f"postgresql://lab:open-sesame@db/cells refused {SECRET}"
        logs.log_event(logger, "away", reason=reason, error=OSError("swordfish at http://a:b@c"))
        logger.info("swordfish")

    text = "\n".join(lines(act))
    assert "postgresql://***@db/cells refused ***" in text and "http://***@c" in text
    for secret in (SECRET, "swordfish", "open-sesame"):
        assert secret not in text


def test_text_is_for_people(lines):
    (line,) = lines(lambda logger: logs.log_event(logger, "served", version="3"), default="text")
    assert line.endswith("INFO served version=3")


def test_an_unknown_format_is_one_line(monkeypatch):
    monkeypatch.setenv(logs.FORMAT, "jsn")
    with pytest.raises(
        MicrosegError, match=r"MICROSEG_LOG is 'jsn'; did you mean 'json'\? allowed: json, text"
    ):
        logs.configure()
