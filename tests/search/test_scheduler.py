"""ASHA compares equal epochs of the first fold, the race equal folds; both outlive the process."""

from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.config import AshaConfig, SearchConfig, TrialConfig
from microseg.search.records import TrialRecord
from microseg.search.scheduler import FoldRace, rungs

TRIAL = TrialConfig.model_validate({"model": {"name": "unet"}})
EPOCHS, FOLDS = 27, 5
ASHA = AshaConfig(grace=3, reduction=3)


def race(asha=ASHA, epochs=EPOCHS, exhausted=None, **changes) -> FoldRace:
    return FoldRace(SearchConfig(space={}, asha=asha, **changes), epochs, FOLDS, exhausted)


def report(scheduler, number, step, objective, scores=(), **more) -> bool:
    """Tell the scheduler a report; returns whether the trial goes on."""
    result = {"number": number, "step": step, "objective": objective, "scores": list(scores), **more}
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id="any"), result) == "CONTINUE"


def curve(scheduler, number, values) -> int | None:
    """Report a first fold's curve; returns the epoch at which it was stopped."""
    best = -1.0
    for step, value in enumerate(values, 1):
        best = max(best, value)
        if not report(scheduler, number, step, best):
            return step
    return None


def folds(scheduler, number, scores, **more) -> int | None:
    """Report a trial's folds; returns the fold after which it was stopped."""
    for done in range(1, len(scores) + 1):
        ended = {"state": "completed"} if done == FOLDS else {}
        if not report(scheduler, number, EPOCHS + done, 0.0, scores[:done], **ended, **more):
            return done
    return None


@pytest.mark.parametrize("epochs", [1, 3, 4, 9, 10, 27, 28, 81])
def test_no_rung_lies_at_or_after_the_last_epoch(epochs):
    """A late bloomer that passed the last rung keeps its folds, however it ends the first one."""
    found = rungs(SearchConfig(space={}, asha=ASHA), epochs)
    assert found == tuple(milestone for milestone in (3, 9, 27) if milestone < epochs)
    scheduler = race(epochs=epochs)
    inside = [] if scheduler._asha is None else [m for m, _ in scheduler._asha._brackets[0]._rungs]
    assert sorted(inside) == list(found)
    assert rungs(SearchConfig(space={}, asha=None), epochs) == ()


def test_a_hopeless_trial_stops_at_a_rung_and_says_where():
    scheduler = race()
    assert curve(scheduler, 0, [0.9] * EPOCHS) is None
    assert curve(scheduler, 1, [0.1] * EPOCHS) == 3
    assert scheduler.stopped == {1: ("pruned", "ASHA at epoch 3")}


def test_asha_compares_equal_epochs_of_the_first_fold_and_nothing_else():
    """The value in each rung is the best score until exactly that epoch, of fold 1, for every trial."""
    scheduler = race(race=None)
    curves = {
        number: [0.1 * (number + 1) + 0.01 * epoch for epoch in range(EPOCHS)] for number in (3, 2, 1, 0)
    }
    alive = {number: curve(scheduler, number, values) is None for number, values in curves.items()}
    for number in (n for n, going in alive.items() if going):
        folds(scheduler, number, [0.99] * FOLDS)  # later folds are no epochs
    for milestone, recorded in scheduler._asha._brackets[0]._rungs:
        assert recorded
        for trial_id, value in recorded.items():
            assert value == max(curves[int(trial_id)][:milestone])


def test_a_curve_that_patience_ended_is_compared_at_every_later_rung():
    scheduler = race(asha=AshaConfig(grace=3, reduction=2))
    curve(scheduler, 0, [0.5] * EPOCHS)
    curve(scheduler, 1, [0.6] * EPOCHS)  # the reporter carries a short curve's best on to the last epoch
    assert [len(recorded) for _, recorded in scheduler._asha._brackets[0]._rungs] == [2, 2, 2, 2]


def noisy(mean, offsets=(0.01, -0.01, 0.02, -0.02, 0.0)):
    return [mean + offset for offset in offsets]


RIVALS = {
    0: noisy(0.80),
    1: noisy(0.79, (0.02, 0.0, -0.01, 0.01, -0.02)),
    2: noisy(0.78, (0, 0.03, 0, -0.03, 0)),
}


def test_no_race_before_three_trials_have_all_folds():
    scheduler = race(asha=None)
    for number in (0, 1):
        assert folds(scheduler, number, RIVALS[number]) is None
    assert folds(scheduler, 9, noisy(0.3)) is None


def test_a_trial_that_cannot_win_is_raced_out_on_the_same_folds():
    scheduler = race(asha=None)
    for number, scores in RIVALS.items():
        folds(scheduler, number, scores)
    assert folds(scheduler, 7, noisy(0.6)) == 1
    state, reason = scheduler.stopped[7]
    assert state == "raced_out"
    assert reason.startswith("fold 1: 0.2 behind trial-000 on the same folds, margin 0.0")
    assert folds(scheduler, 8, noisy(0.81)) is None
    assert folds(scheduler, 9, noisy(0.7)) == 1
    assert "behind trial-008" in scheduler.stopped[9][1]  # the incumbent at the time of the decision


def test_losses_are_raced_the_other_way_round():
    scheduler = race(asha=None, metric="val/loss", mode="min")
    for number, scores in RIVALS.items():
        folds(scheduler, number, [-score for score in scores])
    assert folds(scheduler, 7, [-score for score in noisy(0.6)]) == 1


def test_the_race_can_be_left_out():
    scheduler = race(asha=None, race=None)
    for number, scores in RIVALS.items():
        folds(scheduler, number, scores)
    assert folds(scheduler, 7, noisy(0.1)) is None


def test_a_cheaper_trial_is_not_ended_by_a_dearer_one():
    """With a second objective it may belong on the front, however much worse it is."""
    scheduler = race(asha=None, against="parameters")
    for number, scores in RIVALS.items():
        folds(scheduler, number, scores, cost=1000.0 * (number + 1))
    assert folds(scheduler, 7, noisy(0.5), cost=500.0) is None
    assert folds(scheduler, 8, noisy(0.5), cost=1500.0) == 1
    assert "behind trial-000" in scheduler.stopped[8][1]


def test_a_spent_budget_interrupts_and_calls_nothing_pruned():
    said = []
    scheduler = race(exhausted=lambda: said[0] if said else None)
    assert report(scheduler, 0, 1, 0.5)
    said.append("the budget of 1 hours is spent")
    assert not report(scheduler, 0, 2, 0.5)
    assert scheduler.stopped[0] == ("interrupted", said[0])


def test_an_outcome_of_its_own_is_not_judged():
    scheduler = race()
    curve(scheduler, 0, [0.9] * 9)
    assert report(scheduler, 1, 3, -1.0, state="diverged", reason="fold 1")


def record(number, values, state="running", scores=()) -> TrialRecord:
    return TrialRecord(
        number=number, name=f"trial-{number:03d}", state=state, config=TRIAL, scores=tuple(scores),
        steps=dict(enumerate(values, 1)),
    )  # fmt: skip


def test_rungs_and_scores_are_as_before_after_a_restart():
    """Ray forgets a scheduler's state: after `Tuner.restore` all rungs are empty."""
    whole, curves = race(), {0: [0.9] * EPOCHS, 1: [0.8] * EPOCHS, 2: [0.95] * EPOCHS}
    for number, values in curves.items():
        curve(whole, number, values)
    for number, scores in RIVALS.items():
        folds(whole, number, scores)
    resumed = race()
    resumed.replay([record(0, curves[0], "completed", RIVALS[0]), record(1, curves[1][:3], "pruned"), record(2, curves[2], "completed", RIVALS[2])])  # fmt: skip
    rows = {number: dict(rung) for number, rung in whole._asha._brackets[0]._rungs}
    assert {number: dict(rung) for number, rung in resumed._asha._brackets[0]._rungs} == rows
    assert resumed._scores == {0: tuple(RIVALS[0]), 1: (), 2: tuple(RIVALS[2])}
    assert rows[3].keys() == {"0", "1", "2"} and rows[9].keys() == {"0", "2"}


def test_the_last_step_of_a_trial_in_flight_is_judged_again():
    """The driver may have been killed after it recorded the step and before it acted on it."""
    scheduler = race()
    scheduler.replay([record(0, [0.9] * EPOCHS, "completed"), record(1, [0.1, 0.1, 0.1])])
    assert report(scheduler, 1, 1, 0.1) and report(scheduler, 1, 2, 0.1)
    assert not report(scheduler, 1, 3, 0.1)
    passed = race()
    passed.replay([record(0, [0.5] * EPOCHS, "completed"), record(1, [0.1, 0.1, 0.6, 0.6])])
    assert report(passed, 1, 3, 0.6) and report(passed, 1, 4, 0.6)


def trials_of(seed: int) -> list[list[tuple[int, float, tuple[float, ...]]]]:
    """Return what each of 9 trials would report: step, objective and scores."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(9):
        level, scores = rng.uniform(0.5, 0.9), []
        best = np.maximum.accumulate(level * np.linspace(0.7, 1, EPOCHS) + rng.normal(0, 0.03, EPOCHS))
        reports = [(step, float(value), ()) for step, value in enumerate(best, 1)]
        for fold in range(1, FOLDS + 1):
            scores.append(float(level + rng.normal(0, 0.02)))
            reports.append((EPOCHS + fold, fmean(scores), tuple(scores)))
        found.append(reports)
    return found


def drive(scheduler, trials, first=0) -> dict[int, tuple]:
    """Run trials one after the other; returns the step at which each ended, and how."""
    ended = {}
    for number, reports in list(enumerate(trials))[first:]:
        for step, objective, scores in reports:
            over = {"state": "completed", "reason": "all folds"} if len(scores) == FOLDS else {}
            if not report(scheduler, number, step, objective, scores, **over):
                break
        state = scheduler.stopped.get(number, ("completed", "all folds"))
        ended[number] = (step, *state)
    return ended


def kept(number, reports, state="running") -> TrialRecord:
    scores, steps = reports[-1][2], {step: objective for step, objective, _ in reports}
    return TrialRecord(
        number=number, name=f"trial-{number:03d}", state=state, config=TRIAL, scores=scores, steps=steps
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**16), number=st.integers(0, 8), at=st.one_of(st.just(1.0), st.floats(0, 1)))
def test_killed_after_any_report_the_verdicts_are_those_of_the_uninterrupted_study(seed, number, at):
    """The last report was recorded; whether it was acted on, nobody knows."""
    trials = trials_of(seed)
    whole = drive(race(), trials)
    ended = [kept(other, trials[other][: whole[other][0]], whole[other][1]) for other in range(number)]
    last = max(1, round(at * whole[number][0]))
    resumed = race()
    resumed.replay([*ended, kept(number, trials[number][:last])])
    assert drive(resumed, trials, number) == {other: whole[other] for other in range(number, len(trials))}


def test_those_studies_have_all_kinds_of_ends():
    assert {state for _, state, _ in drive(race(), trials_of(1)).values()} == {
        "completed", "pruned", "raced_out",
    }  # fmt: skip


def test_only_the_last_report_of_a_trial_in_flight_is_judged_again():
    """With several trials at once rivals finished since: what had passed against those before them goes on."""
    scheduler = race(asha=None)
    rivals = [record(number, [], "completed", scores) for number, scores in RIVALS.items()]
    scheduler.replay([*rivals, record(7, [], scores=noisy(0.6)[:2])])
    assert report(scheduler, 7, EPOCHS + 1, 0.6, noisy(0.6)[:1])
    assert not report(scheduler, 7, EPOCHS + 2, 0.6, noisy(0.6)[:2])
