"""ASHA compares equal epochs of the first fold, and nothing after it."""

import pytest

from microseg.config import AshaConfig, SearchConfig
from microseg.folds import Fold
from microseg.search import job as worker
from microseg.search.job import Job, Reporter
from microseg.search.runner import scheduler


class Ray:
    """Stands where Ray's session is: collects what a worker reports."""

    def __init__(self) -> None:
        self.results: list[dict] = []

    def report(self, metrics: dict) -> None:
        self.results.append(metrics)


@pytest.fixture
def reported(monkeypatch):
    ray = Ray()
    monkeypatch.setattr(worker, "tune", ray)
    return ray.results


def reporter(epochs: int = 9, folds: int = 3, mode: str = "max") -> Reporter:
    parts = tuple(Fold(index=index, train=("a",), valid=("b",)) for index in range(folds))
    return Reporter(Job.model_construct(folds=parts, metric="val/dice", mode=mode, epochs=epochs), number=4)


def test_the_objective_is_the_best_so_far_then_the_mean_over_folds(reported):
    trial = reporter(epochs=3, folds=2)
    for epoch, value in enumerate([0.2, 0.5, 0.4], 1):
        trial.epoch(0, epoch, value)
    trial.fold(0, 0.5, 3)
    trial.epoch(1, 1, 0.9)  # an epoch of the second fold is no step
    trial.fold(1, 0.7, 3)
    assert [(row["step"], row["objective"]) for row in reported] == [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.5), (4, 0.5), (5, 0.6)]  # fmt: skip
    assert [row.get("state") for row in reported] == [None] * 5 + ["completed"]


def test_a_curve_that_patience_ended_carries_its_best_to_the_later_rungs(reported):
    trial = reporter(epochs=9)
    for epoch, value in enumerate([0.3, 0.6, 0.5], 1):
        trial.epoch(0, epoch, value)
    trial.fold(0, 0.6, 3)
    assert [row["step"] for row in reported] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert {row["objective"] for row in reported[3:]} == {0.6}


@pytest.mark.parametrize(("mode", "worst"), [("max", -1.0), ("min", 1e6)])
def test_an_objective_is_never_nan(reported, mode, worst):
    """ASHA never stops a trial that reports NaN."""
    trial = reporter(mode=mode)
    trial.epoch(0, 1, float("nan"))
    assert reported[0]["objective"] == worst


class Trial:
    def __init__(self, name: str) -> None:
        self.trial_id = name


def decisions(asha, curves: dict[str, list[float]], epochs: int, folds: int) -> dict[str, int | None]:
    """Feed whole curves, one trial after the other; return the step at which each was stopped."""
    stopped: dict[str, int | None] = {}
    for name, curve in curves.items():
        trial, best = Trial(name), 0.0
        asha.on_trial_add(None, trial)
        stopped[name] = None
        for step in range(1, epochs + folds + 1):
            best = max(best, curve[min(step, len(curve)) - 1])
            if asha.on_trial_result(None, trial, {"step": step, "objective": best}) == "STOP":
                stopped[name] = step
                break
    return stopped


def test_a_hopeless_trial_stops_at_a_rung_and_a_finished_fold_stops_nothing():
    asha = scheduler(SearchConfig(space={}, asha=AshaConfig(grace=3, reduction=3)), epochs=27)
    curves = {"good": [0.9] * 27, "fair": [0.8] * 27, "hopeless": [0.1] * 27}
    assert decisions(asha, curves, epochs=27, folds=5) == {"good": None, "fair": 3, "hopeless": 3}


def test_no_rung_lies_at_or_after_the_last_epoch():
    """A late bloomer that passed the last rung keeps its folds, however it ends the first one."""
    asha = scheduler(SearchConfig(space={}, asha=AshaConfig(grace=3, reduction=3)), epochs=9)
    assert [milestone for milestone, _ in asha._brackets[0]._rungs] == [3]


def test_asha_can_be_left_out():
    assert type(scheduler(SearchConfig(space={}, asha=None), epochs=9)).__name__ == "FIFOScheduler"
