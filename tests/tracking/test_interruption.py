"""Killed at any write and told everything anew, a trial's runs are what they would have been without it."""

import itertools
from pathlib import Path

import pytest
from mlflow import MlflowClient

from microseg.tracking import recorder, tree

WRITES = (
    "create_run",
    "log_batch",
    "log_artifact",
    "log_artifacts",
    "set_tag",
    "update_run",
    "set_terminated",
)
NEVER = 10**9


class KilledError(Exception):
    """The process ended here."""


class Mortal(MlflowClient):
    """A client whose process is killed at a write: before it, in its midst, or before the answer came."""

    left = NEVER
    how = "unwritten"

    def __getattribute__(self, name):
        method = super().__getattribute__(name)
        return self._mortally(method) if name in WRITES else method

    def _mortally(self, method):
        def call(run_id, *args, **kwargs):
            Mortal.left -= 1
            if Mortal.left:
                return method(run_id, *args, **kwargs)
            if Mortal.how == "unanswered":
                method(run_id, *args, **kwargs)
            elif Mortal.how == "half" and method.__name__ == "log_batch":
                method(run_id, metrics=kwargs.get("metrics", ()))
            elif Mortal.how == "half" and method.__name__ == "log_artifacts":
                first, *_ = sorted(Path(args[0]).iterdir())
                self.log_artifact(run_id, str(first), *args[1:])
            raise KilledError

        return call


@pytest.fixture
def mortal(client, monkeypatch):
    monkeypatch.setattr(recorder, "MlflowClient", Mortal)
    monkeypatch.setattr(Mortal, "left", NEVER)
    return Mortal(client.tracking_uri)


@pytest.mark.parametrize(
    ("how", "folds"),
    [
        ("half", 1),
        pytest.param("unwritten", 2, marks=pytest.mark.slow),
        pytest.param("half", 2, marks=pytest.mark.slow),
        pytest.param("unanswered", 2, marks=pytest.mark.slow),
    ],
)
def test_a_trial_killed_at_any_write_and_told_anew_is_as_if_it_had_not_been(
    mortal, monkeypatch, told, train, contents, how, folds
):
    events = told(folds)
    whole = tree.open_study(mortal, f"whole {how} {folds}")
    train(mortal, whole, events)
    expected = contents(mortal, whole)
    assert [run[0] for run in expected] == ["trial-000", "trial-000/fold-1", "trial-000/fold-2"][: 1 + folds]
    monkeypatch.setattr(Mortal, "how", how)
    for write in itertools.count(1):
        study = tree.open_study(mortal, f"killed {how} {folds} {write}")
        Mortal.left = write
        try:
            train(mortal, study, events)
        except KilledError:
            Mortal.left = NEVER
            train(mortal, study, events)
            assert contents(mortal, study) == expected, f"killed at write {write}"
        else:
            break
        finally:
            Mortal.left = NEVER
    assert write > 6 * folds + 4
