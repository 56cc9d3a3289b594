"""The cache of trials answers what Optuna's own does, and reads only what was written to."""

import pytest
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage

from microseg.config import SearchConfig
from microseg.search import trials as module
from microseg.search.trials import Trials
from microseg.space import parse_space

VALUES = {
    "model": {
        "one_of": [
            {"name": "unet", "params": {"depth": {"int_uniform": [2, 5]}}},
            {"name": "encoder_unet", "params": {"filters": {"choice": [8, 16]}}},
        ]
    },
    "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
}
ENDS = ("completed", "pruned", "diverged", "failed", "interrupted", "raced_out")


@pytest.fixture
def book(tmp_path):
    def opened(name="study", sampler="tpe") -> Trials:
        config = SearchConfig.model_validate({"space": VALUES, "seed": 3, "sampler": sampler})
        return Trials(tmp_path / "optuna.db", name, parse_space(VALUES), config)

    return opened


def searched(trials, count=24, at_once=4):
    """Propose, report and end trials with some in flight; returns all records on the way, and the queue's length."""
    flying, seen = [], []
    trials.enqueue([{"model": "unet", "model/unet/params/depth": 3}])
    for number in range(count):
        flying.append(trials.propose().number)
        trials.started(number, f"run {number}")
        for other in flying:
            trials.epoch(other, number + 1, (other * 7 % 11) / 11)
        trials.fold(flying[0], [0.5, flying[0] / count])
        if len(flying) == at_once:
            ended, state = flying.pop(0), ENDS[number % len(ENDS)]
            trials.finish(ended, state, state, ended * 5 % 9 / 9 if state == "completed" else None)
        seen.append((trials.records(), trials.count(), trials.waiting()))
    return seen


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_goes_as_with_optunas_own_cache(book, monkeypatch, sampler):
    ours = searched(book("ours", sampler))
    assert {record.state for record in ours[-1][0]} == {"running", *ENDS}
    with monkeypatch.context() as patch:
        patch.setattr(module, "OneWriter", _CachedStorage)
        assert searched(book("ours again", sampler)) == ours
    assert book("ours", sampler).records() == ours[-1][0]


def test_only_trials_that_were_written_to_are_read_again(book, monkeypatch):
    read = []

    def spied(storage, *given):
        found = original(storage, *given)
        read.append([trial.number for trial in found])
        return found

    original = RDBStorage._get_trials
    monkeypatch.setattr(RDBStorage, "_get_trials", spied)
    trials = book()
    for _ in range(5):
        trials.propose()
    trials.records()
    read.clear()
    trials.epoch(1, 1, 0.5)
    trials.fold(3, [0.5])
    trials.finish(4, "pruned", "ASHA at epoch 1")
    assert [record.state for record in trials.records()] == ["running"] * 4 + ["pruned"]
    assert trials.records()[3].scores == (0.5,)
    assert read == [[1, 3, 4], []]


def test_what_was_written_before_the_server_went_away_is_read(book, monkeypatch):
    """A write may fail although it was done, and so may the first look after it."""
    trials = book()
    trials.propose()
    write = RDBStorage.set_trial_user_attr

    def written(*given, **named):
        write(*given, **named)
        raise ConnectionError

    def away(*given):
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(RDBStorage, "set_trial_user_attr", written)
        with pytest.raises(ConnectionError):
            trials.fold(0, [0.25])
        patch.setattr(RDBStorage, "_get_trials", away)
        with pytest.raises(ConnectionError):
            trials.records()
    assert trials.records()[0].scores == (0.25,)
