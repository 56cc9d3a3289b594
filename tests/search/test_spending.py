"""Hours and GPU-hours add up over runs, end a study, and are projected."""

from types import SimpleNamespace

import pytest

from microseg.config import Budget, TrialConfig
from microseg.search.records import TrialRecord
from microseg.search.spending import Spending, ToGo, duration, projection


class Book:
    """Keeps what Optuna's storage would."""

    def __init__(self, hours=0.0, gpu_hours=0.0):
        self.kept = {"hours": hours, "gpu_hours": gpu_hours}

    def spent(self):
        return dict(self.kept)

    def spend(self, spent):
        self.kept = dict(spent)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def trial(name, gpu):
    return SimpleNamespace(trial_id=name, config={"share": {"gpu": gpu}})


def test_gpu_hours_are_those_of_the_trials_that_run():
    clock, book = Clock(), Book()
    spending = Spending(book, None, clock)
    spending.on_trial_start(0, [], trial("a", 0.5))
    spending.on_trial_start(0, [], trial("b", 1.0))
    clock.now += 3600
    spending.on_trial_complete(0, [], trial("b", 1.0))
    clock.now += 3600
    spending.on_trial_error(0, [], trial("a", 0.5))
    clock.now += 3600
    assert spending.note() == pytest.approx({"hours": 3.0, "gpu_hours": 2.0})
    spending.write()
    assert book.kept == pytest.approx({"hours": 3.0, "gpu_hours": 2.0})


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(hours=2), "the budget of 2 hours is spent"),
        (Budget(gpu_hours=1.5), "the budget of 1.5 GPU-hours is spent"),
        (None, None),
    ],
)
def test_a_budget_counts_all_runs_of_a_study(budget, reason):
    clock = Clock()
    spending = Spending(Book(hours=1.5, gpu_hours=1.0), budget, clock)
    assert spending.exhausted() is None
    spending.on_trial_start(0, [], trial("a", 1))
    clock.now += 1800
    assert spending.exhausted() == reason


def test_what_was_spent_is_written_now_and_then():
    clock, book = Clock(), Book()
    spending = Spending(book, None, clock)
    clock.now += 5
    spending.note()
    assert book.kept["hours"] == 0.0
    clock.now += 30
    spending.note()
    assert book.kept["hours"] == pytest.approx(35 / 3600)


def timed(seconds, epochs) -> TrialRecord:
    config = TrialConfig.model_validate({"model": {"name": "unet"}})
    return TrialRecord(
        number=0, name="trial-000", state="completed", config=config, seconds=seconds, epochs=epochs
    )


def test_the_cost_is_projected_from_earlier_folds_or_said_to_be_unknown():
    assert projection(2, (5, 60), ToGo(40), [], 0) == (
        "at most 200 fold trainings of 60 epochs (40 trials, 5 folds); how long they take is known after the "
        "first epochs"
    )
    text = projection(2, (5, 60), ToGo(40), [timed((30.0, 90.0), (20, 40))], 0.5)  # 2 s an epoch
    assert "(40 trials, 5 folds): 3.3 h and 3.3 GPU-hours without early stopping, at the 2 s an epoch" in text


def test_repeats_are_part_of_the_projected_cost():
    text = projection(1, (5, 60), ToGo(50, 6), [], 0)
    assert text.startswith("at most 280 fold trainings of 60 epochs (50 trials and 6 repeats, 5 folds)")
    assert projection(1, (5, 60), ToGo(0), [], 0) == "all trials are done"


def test_retraining_is_part_of_the_projected_cost():
    """A network on all images takes 5/4 of a fold's time an epoch, and nothing runs beside it."""
    text = projection(2, (5, 60), ToGo(40, retrainings=1), [timed((60.0,), (60,))], 0.5)
    assert text.startswith(
        "at most 200 fold trainings of 60 epochs (40 trials, 5 folds) and one training on all images for 60 "
        "epochs: 1.7 h and 1.7 GPU-hours"
    )
    single = projection(1, (1, 1), ToGo(1), [], 0)
    assert single.startswith("at most 1 fold training of 1 epoch (1 trial, 1 fold);")
    alone = projection(1, (1, 60), ToGo(0, retrainings=1), [timed((60.0,), (60,))], 0)
    assert alone.startswith("at most one training on all images for 60 epochs: 60 s without")


def test_a_time_is_said_in_its_unit():
    assert [duration(seconds) for seconds in (5, 89, 600, 7200)] == ["5 s", "89 s", "10 min", "2.0 h"]
