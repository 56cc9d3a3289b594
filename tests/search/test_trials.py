"""Optuna's storage tells the truth: how trials ended, and what they would be proposed again."""

import optuna
import pytest
from optuna.trial import TrialState

from microseg.search.trials import Trials
from microseg.space import parse_space

SPACE = parse_space(
    {
        "model": {
            "one_of": [
                {"name": "unet", "params": {"depth": {"int_uniform": [2, 4]}}},
                {"name": "encoder_unet", "params": {"depth": {"int_uniform": [3, 5]}}},
            ]
        },
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
    }
)


@pytest.fixture
def book(tmp_path):
    return lambda mode="max": Trials(tmp_path / "optuna.db", "study", SPACE, seed=3, mode=mode)


def stored(book_path):
    study = optuna.load_study(storage=f"sqlite:///{book_path}", study_name="study")
    return study.get_trials()


def test_states_are_told_truly(book, tmp_path):
    trials = book()
    for _ in range(4):
        trials.propose()
    trials.epoch(0, 1, 0.4)
    trials.epoch(0, 2, float("nan"))  # `tell` of a NaN would raise, and Optuna would leave the trial running
    trials.finish(0, "pruned", "ASHA at epoch 2")
    trials.fold(1, [0.8, 0.6])
    trials.finish(1, "completed", "all folds", 0.7)
    trials.finish(2, "diverged", "fold 1 diverged")
    pruned, complete, diverged, running = stored(tmp_path / "optuna.db")
    assert pruned.state == TrialState.PRUNED
    assert pruned.intermediate_values == {1: 0.4}
    assert (complete.state, complete.value) == (TrialState.COMPLETE, 0.7)
    assert (diverged.state, diverged.value) == (TrialState.FAIL, None)
    assert running.state == TrialState.RUNNING
    assert [record.state for record in trials.records()] == ["pruned", "completed", "diverged", "running"]
    assert trials.records()[1].scores == (0.8, 0.6)


@pytest.mark.parametrize(("mode", "order"), [("max", [1, 2, 0]), ("min", [0, 2, 1])])
def test_only_trials_with_all_folds_are_ranked(book, mode, order):
    trials = book(mode)
    for number, score in enumerate([0.1, 0.9, 0.5]):
        trials.propose()
        trials.finish(number, "completed", "all folds", score)
    trials.propose()
    trials.epoch(3, 1, 0.99 if mode == "max" else 0.01)
    trials.finish(3, "pruned", "ASHA at epoch 1")
    assert [record.number for record in trials.ranked()] == [*order, 3]


def run(trials: Trials, count: int) -> None:
    for number in range(trials.count(), count):
        _, config = trials.propose()
        trials.finish(number, "completed", "", config.optimizer.params["learning_rate"])


def test_an_interrupted_study_proposes_what_the_uninterrupted_one_would_have(tmp_path):
    """TPE's generator starts anew in a new process; here a trial's proposal depends on seed and history alone."""
    whole = Trials(tmp_path / "whole.db", "study", SPACE, seed=3, mode="max")
    run(whole, 14)
    for stop in (5, 14):
        run(Trials(tmp_path / "parts.db", "study", SPACE, seed=3, mode="max"), stop)
    parts = Trials(tmp_path / "parts.db", "study", SPACE, seed=3, mode="max")
    assert [record.config for record in parts.records()] == [record.config for record in whole.records()]


def test_other_seeds_propose_other_trials(tmp_path):
    one, other = (Trials(tmp_path / f"{seed}.db", "study", SPACE, seed=seed, mode="max") for seed in (1, 2))
    assert one.propose()[1] != other.propose()[1]


def test_trials_left_in_flight_come_back_as_they_were(book):
    _, config = book().propose()
    assert book().unfinished() == [(0, config)]


def test_a_trial_that_was_stopped_while_it_was_proposed_is_sampled_to_the_end(book, tmp_path):
    expected = Trials(tmp_path / "other.db", "study", SPACE, seed=3, mode="max").propose()[1]
    book()
    optuna.load_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="study").ask()
    assert book().unfinished() == [(0, expected)]
