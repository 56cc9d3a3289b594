"""A tracking server that is killed and away for a minute while a trial is recorded: all of it arrives, once."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from microseg.tracking import store, tree
from microseg.training import Progress

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path, monkeypatch, tracking_server) -> Iterator[Any]:
    for name in store.SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    server = tracking_server(tmp_path)
    yield server
    server.kill()


def during(events: list[Progress], number: int, thread: threading.Thread) -> Iterator[Progress]:
    """Yield events; with one of them something else begins, and goes on while the rest are told."""
    for index, event in enumerate(events):
        if index == number:
            thread.start()
        yield event


def test_a_server_that_is_away_for_a_minute_gets_everything_once(server, told, train, contents):
    client, events = store.connect(server.address), told(4)
    whole = tree.open_study(client, "whole")
    train(client, whole, events)
    outage = threading.Thread(target=server.outage)
    study = tree.open_study(client, "outage")
    train(client, study, during(events, 6, outage))
    outage.join()
    assert contents(client, study) == contents(client, whole)
    assert len(client.search_runs([study.experiment_id], f"tags.`{tree.STUDY}` = 'outage'")) == 1 + 1 + 4


def test_a_request_that_the_server_did_and_never_answered_is_done_once(
    server, monkeypatch, told, train, contents
):
    """Every first answer is lost on its way, as that of a server which dies before it answers."""
    client, events = store.connect(server.address), told(2)
    whole, study = tree.open_study(client, "whole"), tree.open_study(client, "unanswered")
    train(client, whole, events)
    original, dropped = HTTPConnectionPool._make_request, set()

    def _make_request(self, connection, method, url, *args, **kwargs):
        response = original(self, connection, method, url, *args, **kwargs)
        if method != "GET" and (url, kwargs.get("body")) not in dropped:
            dropped.add((url, kwargs.get("body")))
            raise ConnectionResetError("the server died before it answered")
        return response

    monkeypatch.setattr(HTTPConnectionPool, "_make_request", _make_request)
    train(client, study, events)
    monkeypatch.undo()
    assert len(dropped) > 20
    assert contents(client, study) == contents(client, whole)
