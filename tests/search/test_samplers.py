"""Samplers propose alike after any restart, keep away from what cannot be trained, and refuse what they cannot search."""

import importlib.util
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.search.samplers import check_sampler, learns_constraints, sampler
from microseg.search.suggest import OptunaSuggest
from microseg.space import parse_space

RATE = {"log_uniform": [1e-4, 1e-2]}
NUMBERS = {"a": {"int_uniform": [2, 40]}, "b": {"uniform": [0.0, 1.0]}, "c": RATE}
CHOICES = NUMBERS | {"d": {"choice": [8, 16, 32]}, "e": {"one_of": [{"name": "bce"}, {"name": "dice"}]}}
BRANCHES = CHOICES | {
    "f": {"one_of": [{"name": "unet", "depth": {"int_uniform": [2, 5]}}, {"name": "u2net"}]}
}
TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="GP needs PyTorch")
SLOW_GP = pytest.param("gp", marks=[TORCH, pytest.mark.slow])
SPACES = {
    "tpe": BRANCHES,
    "random": BRANCHES,
    "qmc": CHOICES,
    "cmaes": NUMBERS,
    "gp": CHOICES,
}
NAMES = [pytest.param(name, marks=TORCH) if name == "gp" else name for name in SPACES]


def config(name, values=None, **rest):
    return SearchConfig(space=values or SPACES[name], sampler=name, **rest)


def memory(costs=0):
    return optuna.create_study(directions=["maximize"] + ["minimize"] * costs)


def opened(file, costs=0):
    """Return the study as a new process finds it."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    event.listen(
        storage.engine, "connect", lambda connection, _: connection.execute("pragma synchronous=off")
    )
    directions = ["maximize"] + ["minimize"] * costs
    return optuna.create_study(storage=storage, study_name="s", directions=directions, load_if_exists=True)


def asked(study, search):
    number = len(study.get_trials(deepcopy=False))
    study.sampler = sampler(search, number, len(study.directions) - 1)
    return study.ask()


def finish(study, trial, values):
    """Tell a score that depends on the values, and every fourth trial as stopped."""
    if trial.number % 4 == 3 and len(study.directions) == 1:
        trial.report(0.1, 1)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        scores = [values["b"], values["c"]]
        study.tell(trial, scores[: len(study.directions)])


def run(study, search, until):
    space = parse_space(search.space)
    for _ in range(len(study.get_trials(deepcopy=False)), until):
        trial = asked(study, search)
        finish(study, trial, space.sample(OptunaSuggest(trial)))
    return [trial.params for trial in study.get_trials()]


def half(study, search):
    """Ask for a trial, and be killed after its first value was drawn."""
    OptunaSuggest(asked(study, search)).number("a", parse_space(NUMBERS).dimensions()[0].node)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes", SLOW_GP])
@pytest.mark.parametrize("start", [2, 11])
def test_a_killed_study_proposes_what_the_uninterrupted_one_would_have(name, start, tmp_path):
    """Of a proposal that was killed half way Optuna answers the drawn values from its storage: from one stream
    of random numbers the others would differ, and so would all later points of a sequence that it counts."""
    search = config(name, seed=3)
    whole = run(memory(), search, start + 3)
    study = opened(tmp_path / "optuna.db")
    assert run(study, search, start) == whole[:start]
    half(study, search)
    study = opened(tmp_path / "optuna.db")
    study.sampler = sampler(search, start, 0)
    trial = optuna.Trial(study, study.get_trials()[start]._trial_id)
    finish(study, trial, parse_space(search.space).sample(OptunaSuggest(trial)))
    assert run(study, search, start + 3) == whole


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes"])
def test_after_a_warm_start_the_earlier_study_is_not_proposed_again(name):
    """With the same seed the same numbers were drawn: what is tried first came twice."""
    earlier = run(memory(), config(name), 3)
    search = config(name, warm_start={"study": "earlier"})
    later = run(memory(), search, 3)
    assert not any(point in earlier for point in later)
    assert run(memory(), search, 3) == later


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_study(name):
    assert run(memory(), config(name, seed=3), 4) != run(memory(), config(name, seed=4), 4)


@pytest.mark.slow
def test_proposals_do_not_depend_on_the_order_of_sets(tmp_path):
    """Optuna's TPE groups parameters by sets of names, whose order differs from process to process."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import test_samplers as t; from pathlib import Path\n"
        "print(t.run(t.opened(sys.argv[3]), t.config('tpe', seed=3), 16))"
    )
    tests, platform = __file__.rsplit("/", 1)[0], sys.modules["microseg"].__path__[0].rsplit("/", 1)[0]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, tests, platform, tmp_path / f"{seed}.db"],
            env={"PYTHONHASHSEED": str(seed), "PATH": ""}, check=True, capture_output=True, text=True,
        ).stdout
        for seed in (1, 2, 3)
    }  # fmt: skip
    assert len(outputs) == 1 and "depth" in outputs.pop()


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", SLOW_GP])
def test_two_objectives(name, tmp_path):
    search = config(name, against="parameters")
    check_sampler(search, parse_space(search.space), "s")
    run(opened(tmp_path / "optuna.db", costs=1), search, 10)
    assert run(opened(tmp_path / "optuna.db", costs=1), search, 12) == run(memory(1), search, 12)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("tpe", "random")])
def test_what_is_accepted_is_drawn_jointly(name):
    """What a sampler leaves out of the joint draw it would draw at random, as if nothing had been learned."""
    search = config(name)
    check_sampler(search, parse_space(search.space), "s")
    study = memory()
    run(study, search, 10)
    trial = asked(study, search)
    drawn = {dimension.name for dimension in parse_space(search.space).dimensions()}
    assert trial.relative_params.keys() == drawn


@pytest.mark.parametrize("name", ["cmaes", "qmc", pytest.param("gp", marks=TORCH)])
def test_what_is_refused_would_be_drawn_at_random(name):
    search = config(name, BRANCHES)
    with pytest.raises(MicrosegError):
        check_sampler(search, parse_space(search.space), "s")
    study = memory()
    run(study, config("random", BRANCHES), 10)
    trial = asked(study, search)
    drawn = {dimension.name for dimension in parse_space(search.space).dimensions()}
    assert not trial.relative_params.keys() >= drawn


@pytest.mark.parametrize(
    ("name", "values", "rest", "said"),
    [
        ("qmc", BRANCHES, {}, "s.yaml: sampler qmc takes no conditional parameters, but only some options of a one_of have f/depth; set sampler: tpe or random"),
        ("cmaes", BRANCHES, {}, "only some options of a one_of have f/depth"),
        ("cmaes", CHOICES, {}, "sampler cmaes takes numbers only, but d is a choice; set sampler: tpe, gp, qmc or random, or fix it"),
        ("cmaes", {"a": RATE, "d": {"choice": [8]}}, {}, "sampler cmaes needs at least 2 ranges of numbers, the space has 1"),
        ("cmaes", NUMBERS, {"against": "parameters"}, "sampler cmaes has one objective, but against is parameters"),
    ],
)  # fmt: skip
def test_a_sampler_that_cannot_search_the_space_is_refused(name, values, rest, said):
    with pytest.raises(MicrosegError) as caught:
        check_sampler(config(name, values, **rest), parse_space(values), "s.yaml")
    assert said in str(caught.value)


def test_gp_without_torch_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MicrosegError, match=r"sampler gp needs PyTorch, .*; install microseg\[gp\], or set"):
        check_sampler(config("gp"), parse_space(CHOICES), "s")


@pytest.mark.parametrize("name", ["gp", "qmc"])
def test_conditional_parameters_are_refused_by_gp_too(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(MicrosegError, match="conditional"):
        check_sampler(config(name, BRANCHES), parse_space(BRANCHES), "s")


def proposals(study, infeasible_as):
    """Let all trials with b above 0.5 be infeasible and return how many of the later proposals are."""
    search = config("tpe", NUMBERS, seed=1)
    for _ in range(40):
        trial = asked(study, search)
        values = parse_space(NUMBERS).sample(OptunaSuggest(trial))
        if values["b"] > 0.5:
            trial.set_user_attr("infeasible", 1.0)
            study.tell(trial, state=infeasible_as)
        else:
            trial.set_user_attr("infeasible", 0.0)
            study.tell(trial, values["c"])
    return sum(trial.params["b"] > 0.5 for trial in study.get_trials()[15:])


def test_tpe_keeps_away_from_what_was_infeasible():
    learned = memory()
    told = proposals(learned, TrialState.PRUNED)
    ignored = proposals(memory(), TrialState.FAIL)
    assert told < 0.6 * ignored
    for trial in learned.get_trials():
        assert trial.constraints == ({"infeasible": 1.0} if trial.state == TrialState.PRUNED else {})


@pytest.mark.parametrize("name", ["random", "qmc", "cmaes", pytest.param("gp", marks=TORCH)])
def test_other_samplers_do_not_see_what_was_infeasible(name):
    """Those that learn read complete trials only; told as PRUNED an infeasible trial changes nothing."""
    assert not learns_constraints(config(name))
    assert learns_constraints(config("tpe"))
    proposed = []
    for state in (TrialState.PRUNED, TrialState.FAIL):
        study, search = memory(), config(name, NUMBERS)
        run(study, search, 3)
        trial = asked(study, search)
        parse_space(NUMBERS).sample(OptunaSuggest(trial))
        trial.set_user_attr("infeasible", 1.0)
        study.tell(trial, state=state)
        assert study.get_trials()[3].constraints == {}
        proposed.append(run(study, search, 12)[4:])
    assert proposed[0] == proposed[1]


def test_a_queued_value_out_of_range_is_only_warned_of_by_optuna():
    """So that `Space.parameters` has to refuse it."""
    study = memory()
    study.enqueue_trial({"b": 7.0})
    trial = asked(study, config("random", NUMBERS))
    with pytest.warns(UserWarning, match="out of range"):
        assert parse_space(NUMBERS).sample(OptunaSuggest(trial))["b"] == 7.0
    with pytest.raises(MicrosegError, match=r"b is 7.0; allowed: numbers from 0 to 1"):
        parse_space(NUMBERS).parameters({"b": 7.0})
