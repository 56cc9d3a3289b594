"""A front in a thread, before model servers that hold no model."""

import asyncio
import http.client
import json
import logging
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from microseg.config import parse
from microseg.serving.front import FrontOptions, run


class Stored:
    """A registry of one model, whose alias a test moves; an exception is what asking it raises."""

    def __init__(self, alias="1"):
        self.alias, self.started = alias, []

    def version(self):
        if isinstance(self.alias, Exception):
            raise self.alias
        return self.alias

    def example(self, version):
        return b"{}"

    def command(self, version, port):
        self.started.append(version)
        script = Path(__file__).with_name("answering.py")
        return [sys.executable, "-S", str(script), version, str(port)]

    def environment(self):
        return dict(os.environ)


def wait_for(condition, seconds=10.0):
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def free_port(taken=False):
    """Give a port that is free, or one that something listens at."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
        if taken:
            yield port
    if not taken:
        yield port


class Asked:
    """The client's side of a front."""

    def __init__(self, port):
        self.port = port

    def send(self, method, path, body=None, headers=None):
        """Return status, decoded body and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            decoded = json.loads(text) if text.startswith(b"{") else text
            return SimpleNamespace(status=answer.status, body=decoded, text=text, headers=answer.headers)
        finally:
            connection.close()

    def post(self, **fields):
        """Ask for a mask; the fields are what the model server is to do."""
        return self.send(
            "POST", "/invocations", json.dumps(fields).encode(), {"Content-Type": "application/json"}
        )

    def metric(self, name, **labels):
        """Return the value of a metric, None where it is not there."""
        text = self.send("GET", "/metrics").text.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = [one.value for one in samples if one.name == name and one.labels == labels]
        return found[0] if found else None

    def serving(self, version):
        """Wait until a version takes requests."""
        wait_for(lambda: self.send("GET", "/ping").headers["X-Microseg-Version"] == version)


@pytest.fixture(scope="session")
def asked():
    return SimpleNamespace(
        Asked=Asked, Stored=Stored, wait_for=wait_for, listens=listens, free_port=free_port
    )


@contextmanager
def fronted(model, **changes):
    with free_port() as port:
        pass
    values = {"model": "models:/cells@champion", "port": port, "poll": 0.05, "seconds": 10.0, "start": 10.0}
    options = parse(FrontOptions, values | changes, "test")
    ready, handles = threading.Event(), {}

    async def main():
        handles.update(stop=asyncio.Event(), loop=asyncio.get_running_loop())
        ready.set()
        await run(model, options, handles["stop"])

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    wait_for(lambda: listens(port))
    try:
        yield Asked(port)
    finally:
        handles["loop"].call_soon_threadsafe(handles["stop"].set)
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def front_of():
    """Return a context in which a front of a model answers."""
    return fronted


@pytest.fixture
def events(caplog):
    """Return a function: what was logged under a name, the fields of each time."""
    caplog.set_level(logging.INFO, "microseg")
    return lambda name: [record.fields for record in caplog.records if record.getMessage() == name]
