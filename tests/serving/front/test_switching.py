"""The front follows the alias, and whatever fails, the version that serves goes on."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from microseg.errors import MicrosegError
from microseg.serving.front.pauses import LONGEST, Pauses


@pytest.fixture
def stored(asked):
    return asked.Stored()


def port_of(answer):
    """Return the port of the model server that answered: a process that was killed may still be in the lists."""
    return answer.body["predictions"][0]["port"]


def test_under_load_the_alias_moves_on_and_back_and_no_request_fails(asked, stored, front_of, events):
    seen, done = [], threading.Event()

    def ask(front):
        while not done.is_set():
            seen.append(front.post(sleep=0.01))

    with front_of(stored) as front, ThreadPoolExecutor(3) as pool:
        front.serving("1")
        first = port_of(front.post())
        for _ in range(3):
            pool.submit(ask, front)
        for version in ("2", "1"):
            stored.alias = version
            front.serving(version)
        asked.wait_for(lambda: len(events("drained")) == 2)
        done.set()
        pool.shutdown()
        assert front.metric("microseg_switches_total") == 2
        labels = {"model": "cells", "alias": "champion"}
        assert front.metric("microseg_model_info", **labels, version="1") == 1
        assert front.metric("microseg_model_info", **labels, version="2") is None
    assert {answer.status for answer in seen} == {200}
    versions = [answer.body["predictions"][0]["version"] for answer in seen]
    assert [answer.headers["X-Microseg-Version"] for answer in seen] == versions
    assert set(versions) == {"1", "2"}
    asked.wait_for(lambda: not asked.listens(first))
    assert [fields["version"] for fields in events("serving")] == ["1", "2", "1"]


def test_the_former_server_ends_its_request_first(asked, stored, front_of):
    with front_of(stored) as front, ThreadPoolExecutor(1) as pool:
        front.serving("1")
        slow = pool.submit(front.post, sleep=1.0)
        asked.wait_for(lambda: front.metric("microseg_requests_in_flight") == 1)
        stored.alias = "2"
        front.serving("2")
        assert front.post().headers["X-Microseg-Version"] == "2"
        assert not slow.done()
        answer = slow.result()
        assert (answer.status, answer.headers["X-Microseg-Version"]) == (200, "1")
        asked.wait_for(lambda: not asked.listens(port_of(answer)))


def test_a_request_that_does_not_end_is_not_waited_for_beyond_its_limit(asked, stored, front_of):
    with front_of(stored, seconds=0.5) as front, ThreadPoolExecutor(1) as pool:
        front.serving("1")
        port = port_of(front.post())
        slow = pool.submit(front.post, sleep=60)
        asked.wait_for(lambda: front.metric("microseg_requests_in_flight") == 1)
        stored.alias = "2"
        front.serving("2")
        assert slow.result().status == 504
        asked.wait_for(lambda: not asked.listens(port))


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("broken", "the model server of version broken ended before it answered"),
        ("mute", "version mute is not ready after 0.8 s"),
        ("other", "answers with an empty mask, or as version 9"),
        ("maskless", "answers with an empty mask"),
    ],
)
def test_a_version_that_does_not_come_up_changes_nothing(asked, stored, front_of, events, version, reason):
    with front_of(stored, start=0.8 if version == "mute" else 10.0) as front:
        front.serving("1")
        stored.alias = version
        failure = asked.wait_for(
            lambda: next((found for found in events("start_failed") if found["version"] == version), None)
        )
        assert front.metric("microseg_failed_starts_total") >= 1
        assert front.post().headers["X-Microseg-Version"] == "1"
        assert reason in failure["reason"]
        assert front.metric("microseg_switches_total") == 0
        stored.alias = "2"
        front.serving("2")
    assert "hunter22" not in str(events("start_failed"))
    assert ("no network in postgresql://***@db" in failure["last_words"]) == (version == "broken")


def test_a_version_that_is_rolled_back_while_it_starts_never_serves(asked, stored, front_of, events):
    with front_of(stored) as front:
        front.serving("1")
        first = port_of(front.post())
        stored.alias = "slow"
        asked.wait_for(lambda: stored.started == ["1", "slow"])
        stored.alias = "1"
        asked.wait_for(lambda: events("start_abandoned"))
        assert port_of(front.post()) == first
        assert front.metric("microseg_failed_starts_total") == 0
    assert [fields["version"] for fields in events("serving")] == ["1"]


@pytest.mark.parametrize(
    ("state", "event"), [(None, "alias_missing"), (MicrosegError("nobody there"), "registry_away")]
)
def test_without_an_alias_or_a_registry_the_version_serves_on(asked, stored, front_of, events, state, event):
    with front_of(stored) as front:
        front.serving("1")
        stored.alias = state
        asked.wait_for(lambda: events(event))
        before = front.metric("microseg_registry_read_timestamp_seconds")
        assert front.post(sleep=0.2).status == 200
        answered = front.metric("microseg_registry_read_timestamp_seconds") > before
        assert answered == (state is None)
        stored.alias = "2"
        front.serving("2")
    assert len(events(event)) == 1  # a state that lasts is said once


def test_before_the_first_promotion_the_front_waits(asked, front_of, events):
    stored = asked.Stored(None)
    with front_of(stored) as front:
        asked.wait_for(lambda: events("alias_missing"))
        answer = front.post()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert front.send("GET", "/ping").status == 503
        assert front.metric("microseg_model_up") == 0
        stored.alias = "1"
        front.serving("1")
        assert front.metric("microseg_model_up") == 1
        assert front.metric("microseg_switches_total") == 0  # the first is no change


def test_a_server_that_dies_is_started_again(asked, stored, front_of, events):
    with front_of(stored) as front:
        front.serving("1")
        answer = front.post(die=True)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        front.serving("1")
        assert front.metric("microseg_restarts_total") == 1
        assert "ended with exit code 3" in events("server_ended")[0]["last_words"]


def test_where_the_new_version_is_broken_the_proven_one_is_restarted(asked, stored, front_of):
    with front_of(stored) as front:
        front.serving("1")
        stored.alias = "broken"
        asked.wait_for(lambda: front.metric("microseg_failed_starts_total"))
        front.post(die=True)
        front.serving("1")
        assert front.post().status == 200


def test_pauses_grow_from_none_to_five_minutes_and_are_of_one_version(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pauses = Pauses(10.0)
    lengths = []
    for _ in range(8):
        pauses.failed("1")
        start = now
        while pauses.pausing("1"):
            now += 5.0
        lengths.append(now - start)
    assert lengths == [0, 10, 20, 40, 80, 160, LONGEST, LONGEST]
    pauses.failed("1")
    assert pauses.pausing("1") and not pauses.pausing("2")
    pauses.failed("1", lived=3600.0)  # had served long: no sign that it fails always
    assert not pauses.pausing("1")
