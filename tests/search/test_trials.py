"""Optuna's storage tells the truth: how trials ended, and what they would be proposed again."""

import optuna
import pytest
from optuna.trial import TrialState

from microseg.config import Constraint, SearchConfig
from microseg.errors import MicrosegError
from microseg.search.trials import Trials, read_records
from microseg.space import parse_space

VALUES = {
    "model": {
        "one_of": [
            {"name": "unet", "params": {"depth": {"int_uniform": [2, 4]}}},
            {"name": "encoder_unet", "params": {"depth": {"int_uniform": [3, 5]}}},
        ]
    },
    "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
}
SPACE = parse_space(VALUES)


def config(**changes) -> SearchConfig:
    mode = {"mode": changes["mode"], "metric": "val/loss"} if changes.get("mode") == "min" else {}
    return SearchConfig.model_validate({"space": VALUES, "seed": 3} | changes | mode)


@pytest.fixture
def book(tmp_path):
    def opened(space=SPACE, **changes) -> Trials:
        return Trials(tmp_path / "optuna.db", "study", space, config(**changes))

    return opened


def stored(folder):
    return optuna.load_study(storage=f"sqlite:///{folder}/optuna.db", study_name="study").get_trials()


@pytest.mark.parametrize(("sampler", "infeasible"), [("tpe", TrialState.PRUNED), ("random", TrialState.FAIL)])
def test_states_are_told_truly(book, tmp_path, sampler, infeasible):
    """A sampler that learns from a constraint is told of infeasible trials by one, others see a failure."""
    trials = book(sampler=sampler)
    ends = ("pruned", "raced_out", "out_of_memory", "diverged", "collapsed", "failed", "completed")
    for number, state in enumerate(ends):
        trials.propose()
        trials.epoch(number, 1, 0.4)
        trials.epoch(number, 2, float("nan"))  # `tell` of a NaN would raise, and leave the trial running
        trials.finish(number, state, f"why {state}", 0.7 if state == "completed" else None)
    trials.propose()
    found = stored(tmp_path)
    pruned, failed = TrialState.PRUNED, TrialState.FAIL
    assert [trial.state for trial in found] == [
        pruned, pruned, infeasible, infeasible, infeasible, failed, TrialState.COMPLETE, TrialState.RUNNING
    ]  # fmt: skip
    assert all(trial.intermediate_values == {1: 0.4} for trial in found[:7])
    assert [trial.value for trial in found if trial.state == TrialState.COMPLETE] == [0.7]
    assert [trial.user_attrs["infeasible"] for trial in found[:7]] == [0, 0, 1, 1, 1, 0, 0]
    records = trials.records()
    assert [(record.state, record.reason) for record in records[:7]] == [(e, f"why {e}") for e in ends]
    assert (records[7].state, records[6].score, records[0].score) == ("running", 0.7, None)


def test_what_is_known_of_folds_is_kept(book):
    trials = book()
    trials.propose()
    trials.fold(0, [0.8, 0.6], seconds=[1.0, 2.0], epochs=[3, 4], memory_mib=900.0, gpu_memory_mib=0.0)
    record = book().records()[0]
    assert (record.scores, record.seconds, record.epochs, record.memory_mib) == (
        (0.8, 0.6), (1.0, 2.0), (3, 4), 900.0
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "order"), [("max", [1, 2, 0]), ("min", [0, 2, 1])])
def test_only_trials_with_all_folds_are_ranked(book, mode, order):
    trials = book(mode=mode)
    for number, score in enumerate([0.1, 0.9, 0.5]):
        trials.propose()
        trials.finish(number, "completed", "all folds", score)
    trials.propose()
    trials.epoch(3, 1, 0.99 if mode == "max" else 0.01)
    trials.finish(3, "pruned", "ASHA at epoch 1")
    assert [record.number for record in trials.ranked()] == [*order, 3]


def run(trials: Trials, count: int) -> None:
    for number in range(trials.count(), count):
        record = trials.propose()
        trials.finish(number, "completed", "", record.config.optimizer.params["learning_rate"])


def test_an_interrupted_study_proposes_what_the_uninterrupted_one_would_have(tmp_path):
    """TPE's generator starts anew in a new process; here a trial's proposal depends on seed and history alone."""
    whole = Trials(tmp_path / "whole.db", "study", SPACE, config())
    run(whole, 14)
    for stop in (5, 14):
        run(Trials(tmp_path / "parts.db", "study", SPACE, config()), stop)
    parts = Trials(tmp_path / "parts.db", "study", SPACE, config())
    assert [record.config for record in parts.records()] == [record.config for record in whole.records()]


def test_other_seeds_propose_other_trials(tmp_path):
    one, other = (Trials(tmp_path / f"{seed}.db", "study", SPACE, config(seed=seed)) for seed in (1, 2))
    assert one.propose().config != other.propose().config


def test_trials_left_in_flight_come_back_as_they_were(book):
    proposed = book().propose()
    assert book().unfinished() == [proposed]


def test_an_interrupted_trial_stays_in_flight(book, tmp_path):
    trials = book()
    trials.propose()
    trials.finish(0, "interrupted", "the budget of 1 hours is spent")
    assert stored(tmp_path)[0].state == TrialState.RUNNING
    (left,) = book().unfinished()
    assert (left.state, left.reason) == ("interrupted", "the budget of 1 hours is spent")
    trials.started(0, "run")
    assert book().records()[0].state == "running"


def test_a_trial_that_was_stopped_while_it_was_proposed_is_sampled_to_the_end(book, tmp_path):
    expected = Trials(tmp_path / "other.db", "study", SPACE, config()).propose().config
    book()
    optuna.load_study(storage=f"sqlite:///{tmp_path}/optuna.db", study_name="study").ask()
    assert [record.config for record in book().unfinished()] == [expected]


def test_an_end_that_was_recorded_but_not_told_is_told(book, tmp_path, monkeypatch):
    """The driver may be killed between the two."""
    trials = book()
    trials.propose()
    with monkeypatch.context() as patch:
        patch.setattr(trials, "_tell", lambda number, outcome: None)
        trials.finish(0, "completed", "all folds", 0.8)
    assert stored(tmp_path)[0].state == TrialState.RUNNING
    assert book().unfinished() == []
    assert (stored(tmp_path)[0].state, stored(tmp_path)[0].value) == (TrialState.COMPLETE, 0.8)


def test_what_is_queued_comes_first_and_only_once(book):
    points = [{"model": "unet", "model/unet/params/depth": 3, "optimizer/params/learning_rate": 0.003}]
    for _ in range(2):  # the second time stands for a study that was killed while it filled its queue
        book().enqueue(points)
    trials = book()
    assert (trials.count(), trials.waiting()) == (0, 1)
    first, second = trials.propose().config, trials.propose().config
    assert first.model.params["depth"] == 3 and first.optimizer.params["learning_rate"] == 0.003
    assert second != first
    assert trials.count() == 2


def test_constraints_refuse_proposals_which_cost_no_trial(book):
    rule = Constraint(when={"model/name": "unet"}, need={"model/params/depth": {"min": 4}}, reason="too flat")
    space = parse_space(VALUES, constraints=[rule])
    trials = book(space, sampler="random")
    for number in range(8):
        record = trials.propose()
        assert record.config.model.name == "encoder_unet" or record.config.model.params["depth"] == 4
        trials.finish(record.number, "completed", "", 0.1 * number)
    refused = [record for record in trials.records() if record.state == "refused"]
    assert refused and all("too flat" in record.reason for record in refused)
    assert trials.count() == 8 and len(trials.ranked()) == 8


def test_constraints_that_leave_nothing_are_said(book, monkeypatch):
    monkeypatch.setattr("microseg.search.trials.MOST_REFUSED", 5)
    rules = [Constraint(need={"optimizer/params/learning_rate": {"min": 0.009, "max": 0.00901}})]
    with pytest.raises(MicrosegError, match="the constraints refused 5 proposals in a row"):
        book(parse_space(VALUES, constraints=rules), sampler="random").propose()


def test_two_objectives_are_both_told(book, tmp_path):
    trials = book(against="parameters")
    for number in range(3):
        trials.propose()
        trials.epoch(number, 1, 0.3)  # Optuna has no intermediate values for two objectives
    trials.finish(0, "completed", "", 0.8, 1000.0)
    trials.finish(1, "raced_out", "fold 2")
    trials.finish(2, "diverged", "fold 1")
    found = stored(tmp_path)
    assert found[0].values == [0.8, 1000.0]
    assert [trial.state for trial in found[1:]] == [TrialState.PRUNED, TrialState.PRUNED]
    assert trials.records()[0].cost == 1000.0
    trials.propose()  # the sampler copes with what it was told


def test_a_changed_choice_is_said_in_one_line(tmp_path):
    values = {"model": {"name": "unet"}}
    one = Trials(
        tmp_path / "optuna.db", "study", parse_space(values | {"tile": {"choice": [32, 64]}}), config()
    )
    one.finish(one.propose().number, "completed", "", 0.5)
    other = Trials(
        tmp_path / "optuna.db", "study", parse_space(values | {"tile": {"choice": [32, 128]}}), config()
    )
    with pytest.raises(MicrosegError, match="holds trials of a space with other choices"):
        other.propose()


def test_hours_add_up_over_runs(book):
    book().spend({"hours": 1.5, "gpu_hours": 0.5})
    assert book().spent() == {"hours": 1.5, "gpu_hours": 0.5}


def test_repetitions_are_queued_once_with_their_own_configuration(book):
    first = book().propose().config
    again = first.model_copy(update={"seed": 1000})
    for _ in range(2):
        book().add(again, "trial-000-seed-1", 0)
    record = book().propose()
    assert (record.config, record.name, record.replicate_of) == (again, "trial-000-seed-1", 0)
    assert book().waiting() == 0


def test_another_study_can_be_read(book, tmp_path):
    trials = book()
    trials.propose()
    trials.finish(0, "completed", "", 0.4)
    assert read_records(tmp_path / "optuna.db", "study") == trials.records()
    assert read_records(tmp_path / "missing.db", "study") == []
    assert read_records(tmp_path / "optuna.db", "nobody") == []
