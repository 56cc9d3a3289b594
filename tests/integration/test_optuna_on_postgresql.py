"""The trials of many studies in one PostgreSQL database: none meets another's, and none is lost with a connection."""

import threading

import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from ray import cloudpickle

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.search import database, patience
from microseg.search.trials import Trials, read_records
from microseg.space import parse_space

pytestmark = pytest.mark.slow

VALUES = {
    "model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 4]}}},
    "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
}
CONFIG = SearchConfig.model_validate({"space": VALUES, "seed": 3})


@pytest.fixture
def address(postgres, monkeypatch):
    """An empty database, which the environment names."""
    url = postgres.database("optuna")
    monkeypatch.setenv(database.URL, url)
    monkeypatch.setattr(patience, "WAITS", (0.3,) * 30)
    return url


def trials_in(folder, study="first"):
    return Trials(folder / "optuna.db", study, parse_space(VALUES), CONFIG)


def test_people_who_begin_at_once_in_an_empty_database_have_a_study_each(address, tmp_path):
    """All make the tables, and all call their study the same."""
    homes = [tmp_path / str(number) for number in range(4)]
    threads = [threading.Thread(target=lambda home=home: trials_in(home).propose()) for home in homes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [read_records(home / "optuna.db", "first") for home in homes]
    assert [[record.number for record in records] for records in found] == [[0]] * 4
    assert not list(tmp_path.rglob("optuna.db"))


def test_a_study_is_found_again_and_goes_on_as_on_a_file(address, tmp_path, monkeypatch):
    for _ in range(2):
        trials = trials_in(tmp_path)
        record = trials.propose()
        trials.epoch(record.number, 1, 0.4)
        trials.finish(record.number, "completed", "all folds", 0.5)
    again = trials_in(tmp_path, "first again")
    again.add(record.config, "trial-000-seed-1", 0)
    assert [again.count(), again.waiting(), trials_in(tmp_path).count()] == [0, 1, 2]
    on_server = read_records(tmp_path / "optuna.db", "first")
    monkeypatch.delenv(database.URL)
    here = trials_in(tmp_path / "here")
    assert [here.propose().config for _ in range(1)] == [on_server[0].config]


def test_a_study_of_another_database_is_not_begun_anew(address, tmp_path, postgres, monkeypatch):
    trials_in(tmp_path)
    monkeypatch.setenv(database.URL, postgres.database("other"))
    with pytest.raises(MicrosegError, match="'first' are in another database than other on 127") as caught:
        trials_in(tmp_path)
    assert postgres.password not in str(caught.value)


def test_a_wrong_password_is_one_line(address, postgres, monkeypatch):
    monkeypatch.setenv(database.URL, address.replace(postgres.password, "pl4nted"))
    with pytest.raises(MicrosegError, match=r"\(password authentication failed for user \"lab\"\)") as caught:
        database.check()
    assert "pl4nted" not in str(caught.value)


def test_a_restart_of_the_server_is_not_noticed(address, tmp_path, postgres):
    trials = trials_in(tmp_path)
    trials.propose()
    outage = threading.Thread(target=postgres.outage, args=(1,))
    outage.start()
    trials.finish(0, "completed", "all folds", 0.5)
    trials.propose()
    outage.join()
    assert [record.state for record in trials.records()] == ["completed", "running"]


@pytest.mark.parametrize("method", ["_create_new_trial", "set_trial_state_values", "set_trial_user_attr"])
def test_an_answer_that_is_lost_doubles_nothing(address, tmp_path, monkeypatch, method):
    """The server has done it, and the connection breaks before it can say so."""
    original, lost = getattr(RDBStorage, method), []

    def once(self, *given, **named):
        done = original(self, *given, **named)
        if not lost:
            lost.append(method)
            raise sqlalchemy.exc.OperationalError("COMMIT", {}, ConnectionError("terminated"))
        return done

    monkeypatch.setattr(RDBStorage, method, once)
    trials = trials_in(tmp_path)
    expected = trials.propose().config
    trials.finish(0, "completed", "all folds", 0.5)
    trials.propose()
    assert lost
    monkeypatch.undo()
    monkeypatch.setenv(database.URL, address)
    records = trials_in(tmp_path).records()
    assert [(record.number, record.state) for record in records] == [(0, "completed"), (1, "running")]
    assert records[0].config == expected


def test_the_password_is_in_nothing_that_is_pickled(address, tmp_path, postgres):
    """Ray Tune writes its searcher, and so the trials, to a file of the study."""
    assert postgres.password.encode() not in cloudpickle.dumps(trials_in(tmp_path))
