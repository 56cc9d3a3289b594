"""Promotion, its history and the way back, on a real MLflow registry in sqlite."""

import time
from datetime import UTC, datetime
from importlib import import_module
from threading import Barrier, Thread

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from microseg.errors import MicrosegError
from microseg.registry import Promotion, history, promote, rollback, succeed

NAME = "nuclei"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


@pytest.fixture
def client(store, monkeypatch):
    """A client of a registry with the versions 1 to 3 and no alias."""
    monkeypatch.setattr(import_module("microseg.registry.history"), "_PAUSE", (0.05, 0.3))
    mlflow.set_tracking_uri(store)
    client = MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(3):
        client.create_model_version(NAME, source="file:///nowhere", await_creation_for=0)
    yield client
    client.delete_registered_model(NAME)
    mlflow.set_tracking_uri(None)  # as if it had never been set


def champion(client):
    return int(client.get_model_version_by_alias(NAME, "champion").version)


def test_the_candidate_becomes_champion_unless_a_version_is_given(client):
    client.set_registered_model_alias(NAME, "candidate", "2")
    first = promote(NAME)
    assert (first.former, first.version, champion(client)) == (None, 2, 2)
    second = promote(NAME, 3)
    assert (second.former, second.version, champion(client)) == (2, 3, 3)
    assert history(NAME) == [first, second]
    assert first.user and first.when <= second.when


def test_rollback_goes_back_step_by_step_and_then_refuses(client):
    for version in (1, 2, 3):
        promote(NAME, version)
    assert [rollback(NAME).version, rollback(NAME).version] == [2, 1]
    assert champion(client) == 1
    with pytest.raises(MicrosegError, match="no earlier champion; promote a version: 1, 2, 3"):
        rollback(NAME)
    assert [move.action for move in history(NAME)] == ["promote"] * 3 + ["rollback"] * 2


def test_a_promotion_after_a_rollback_returns_to_where_it_started(client):
    promote(NAME, 1)
    promote(NAME, 2)
    rollback(NAME)
    promote(NAME, 3)
    assert rollback(NAME).version == 1
    with pytest.raises(MicrosegError, match="no earlier champion"):
        rollback(NAME)


def test_promoting_the_champion_again_records_nothing(client):
    promote(NAME, 1)
    again = promote(NAME, 1)
    assert again.former == again.version == 1
    assert len(history(NAME)) == 1


def test_rollback_passes_over_a_version_that_was_deleted(client):
    for version in (1, 2, 3):
        promote(NAME, version)
    client.delete_model_version(NAME, "2")
    assert rollback(NAME).version == 1


def test_an_alias_moved_elsewhere_is_recorded_as_the_former_champion(client):
    promote(NAME, 1)
    client.set_registered_model_alias(NAME, "champion", "2")
    assert promote(NAME, 3).former == 2
    assert rollback(NAME).version == 2


def test_a_promotion_that_was_interrupted_before_the_alias_moved_can_be_repeated_and_undone(
    client, monkeypatch
):
    promote(NAME, 1)
    with monkeypatch.context() as broken:

        def interrupted(*_):
            raise KeyboardInterrupt

        broken.setattr(MlflowClient, "set_registered_model_alias", interrupted)
        with pytest.raises(KeyboardInterrupt):
            promote(NAME, 2)
    assert champion(client) == 1
    promote(NAME, 2)
    assert champion(client) == 2
    assert rollback(NAME).version == 1
    with pytest.raises(MicrosegError, match="no earlier champion"):
        rollback(NAME)


def test_who_promotes_while_somebody_else_does_is_told_and_both_records_are_kept(client, monkeypatch):
    promote(NAME, 1)
    original = MlflowClient.set_registered_model_tag

    def with_a_rival(self, *args):
        monkeypatch.setattr(MlflowClient, "set_registered_model_tag", original)
        promote(NAME, 2)  # between this promotion's reading and its writing
        original(self, *args)

    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", with_a_rival)
    with pytest.raises(MicrosegError, match=r"got another champion meanwhile \(version 2\); promote again"):
        promote(NAME, 3)
    assert champion(client) == 2
    assert [move.version for move in history(NAME)] == [1, 2]
    assert rollback(NAME).version == 1


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(client):
    promote(NAME, 1)
    start, told = Barrier(2), {}

    def beat_the_first(version):
        start.wait()
        try:
            told[version] = succeed(NAME, version, 1)
        except MicrosegError as error:
            told[version] = error

    threads = [Thread(target=beat_the_first, args=(version,)) for version in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (version for version, said in told.items() if not isinstance(said, MicrosegError))
    assert champion(client) == winner
    assert f"another champion meanwhile (version {winner})" in str(told[5 - winner])
    assert [move.version for move in history(NAME)] == [1, winner]


def test_a_move_that_is_recorded_but_not_made_yet_is_waited_for(client, monkeypatch):
    """The other one has looked already, and saw nobody; it moves the alias while this one waits."""
    promote(NAME, 1)
    original = MlflowClient.set_registered_model_alias
    waits = []

    def move_later(self, *args):
        monkeypatch.setattr(MlflowClient, "set_registered_model_alias", original)
        monkeypatch.setattr(time, "sleep", lambda pause: (waits.append(pause), original(self, *args)))
        with pytest.raises(MicrosegError, match=r"got another champion meanwhile \(version 2\)"):
            succeed(NAME, 3, 1)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", move_later)
    promote(NAME, 2)
    assert len(waits) == 1
    assert (champion(client), [move.version for move in history(NAME)]) == (2, [1, 2])


def test_moves_keep_their_order_whatever_the_clocks_of_those_who_made_them(client, monkeypatch):
    """The second one's clock is an hour behind; a rollback leads to the version before, not to the first."""
    promote(NAME, 1)
    promote(NAME, 2)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    promote(NAME, 3)
    assert [move.version for move in history(NAME)] == [1, 2, 3]
    assert rollback(NAME).version == 2


def test_a_record_whose_move_was_never_made_stops_nobody(client, monkeypatch):
    """Whoever wrote it was killed before the alias moved."""
    promote(NAME, 1)
    original, tried = MlflowClient.set_registered_model_tag, []

    def with_a_dead_rival(self, name, key, value):
        tried.append(key)
        if len(tried) == 1:
            dead = Promotion(
                name=NAME, action="promote", former=1, version=2, user="dead", when=datetime.now(UTC)
            )
            original(self, name, f"{key}-dead", dead.model_dump_json())
        original(self, name, key, value)

    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", with_a_dead_rival)
    assert promote(NAME, 3).version == champion(client) == 3
    assert len(tried) == 3  # written, withdrawn, written again
    assert rollback(NAME).version == 1


def test_mistakes_are_one_clear_line(client):
    with pytest.raises(MicrosegError, match="unknown model 'nuclie'; did you mean 'nuclei'"):
        promote("nuclie")
    with pytest.raises(MicrosegError, match="unknown model 'nuclie'; did you mean 'nuclei'"):
        rollback("nuclie")
    with pytest.raises(MicrosegError, match="no version 7; allowed: 1, 2, 3"):
        promote(NAME, 7)
    with pytest.raises(MicrosegError, match="has no candidate; give a version: 1, 2, 3"):
        promote(NAME)
    with pytest.raises(MicrosegError, match="no earlier champion"):
        rollback(NAME)
    assert history(NAME) == []


def test_an_empty_registry_says_how_to_fill_it(tmp_path, client):
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(MicrosegError, match="none is registered yet; run 'microseg search' first"):
        history(NAME)
    mlflow.set_tracking_uri(client.tracking_uri)
