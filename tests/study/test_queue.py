"""What a study tries first: stated points, then the best of an earlier study; and what it tries again."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from microseg.checks import check_space
from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.search import database
from microseg.search.job import Job
from microseg.search.trials import Trials
from microseg.study import Request, StudyState, folder, resume
from microseg.study.queue import add_replicates, again_name, cost, first_points, kept_points
from microseg.study.request import alone, optuna_file, state_file, write_text

VALUES = {
    "model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 5]}}},
    "patience": {"int_uniform": [1, 9]},
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))


def prepared(tmp_path, name="second", values=VALUES, **changes):
    config = SearchConfig.model_validate({"space": values} | changes)
    request = Request(name=name, data=tmp_path, config=config)
    return SimpleNamespace(request=request, space=check_space(config, name))


def earlier(tmp_path, scores):
    """Write a study whose trials reached some scores."""
    given = prepared(tmp_path, "first", sampler="random")
    trials = Trials(optuna_file("first"), "first", given.space, given.request.config)
    for score in scores:
        record = trials.propose()
        trials.finish(record.number, "completed" if score else "failed", "", score)
    state = StudyState(request=given.request, digest="d" * 64, run_id="r")
    write_text(state_file("first"), state.model_dump_json())
    return trials.records()


def test_stated_points_come_before_those_of_the_earlier_study(tmp_path):
    records = earlier(tmp_path, [0.5, 0.9, None, 0.7])
    start = [{"model": {"name": "unet", "params": {"depth": 4}}}]
    given = prepared(tmp_path, start_with=start, warm_start={"study": "first", "best": 2})
    points = first_points(given, Console(quiet=True))
    assert points[0] == {"model/params/depth": 4}
    best = [records[1].config, records[3].config]
    assert [point["patience"] for point in points[1:]] == [config.patience for config in best]


def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    records = earlier(tmp_path, [0.5, 0.9, 0.7, 0.6, 0.8])
    depths = {record.config.model.params["depth"] for record in records}
    assert len(depths) > 1
    narrow = VALUES | {"model": {"name": "unet", "params": {"depth": min(depths)}}}
    said = Console(file=io.StringIO(), width=200)
    points = first_points(prepared(tmp_path, values=narrow, warm_start={"study": "first"}), said)
    fitting = [record for record in records if record.config.model.params["depth"] == min(depths)]
    assert len(points) == len(fitting)
    assert said.file.getvalue().count("warm start, left out: ") == len(records) - len(fitting)


def test_an_earlier_study_that_helps_nothing_is_refused(tmp_path):
    earlier(tmp_path, [None])
    with pytest.raises(
        MicrosegError, match="nothing of study 'first' can be tried here; it has no trial with all"
    ):
        first_points(prepared(tmp_path, warm_start={"study": "first"}), Console(quiet=True))
    with pytest.raises(MicrosegError, match="there is no study 'nobody'"):
        first_points(prepared(tmp_path, warm_start={"study": "nobody"}), Console(quiet=True))


def test_a_resumed_study_tries_first_what_it_began_with(tmp_path):
    """The file that it read may be gone, and the study that it started from may have gone on."""
    begun = prepared(tmp_path, start_with=["gone.yaml"])
    kept = {"a": 1, "b": 1.0, "c": True, "d": "true", "e": "1"}
    written = StudyState(request=begun.request, digest="d" * 64, run_id="r", points=(kept,))
    state = StudyState.model_validate_json(written.model_dump_json())
    (points,) = kept_points(state, begun, Console(quiet=True))
    assert {key: (type(value), value) for key, value in points.items()} == {
        key: (type(value), value) for key, value in kept.items()
    }
    changed = prepared(tmp_path, start_with=[{"patience": 4}])
    assert kept_points(state, changed, Console(quiet=True)) == [{"patience": 4}]


def test_the_cost_is_that_of_the_trials_to_go(tmp_path):
    first = prepared(tmp_path, "first", sampler="random", trials=5)
    given = SimpleNamespace(**vars(first), manifest=SimpleNamespace(digest="d" * 64))
    trials = Trials(optuna_file("first"), "first", first.space, first.request.config)
    states = ("completed", "pruned", "refused", "interrupted")
    for state in states:
        trials.finish(trials.propose().number, state, "", 0.5 if state == "completed" else None)
    job = Job.model_construct(folds=(None,) * 2, epochs=3)
    assert cost(given, job, trials, 0.0).startswith(
        "at most 6 fold trainings of 3 epochs (3 trials, 2 folds)"
    )


def test_the_pace_of_a_study_in_a_database_that_is_not_at_hand_is_done_without(tmp_path):
    earlier(tmp_path, [0.5])
    other = prepared(tmp_path, "other", sampler="random")
    given = SimpleNamespace(**vars(other), manifest=SimpleNamespace(digest="d" * 64))
    trials = Trials(optuna_file("other"), "other", other.space, other.request.config)
    optuna_file("first").rename(folder("first") / database.KEY)
    job = Job.model_construct(folds=(None,) * 2, epochs=3)
    assert cost(given, job, trials, 0.0).startswith("at most")
    with pytest.raises(MicrosegError, match="set MICROSEG_OPTUNA_URL to it"):
        first_points(prepared(tmp_path, warm_start={"study": "first"}), Console(quiet=True))


def test_the_cost_of_repeats_is_that_of_those_to_go(tmp_path):
    earlier(tmp_path, [0.5, 0.9, 0.7])
    first = prepared(tmp_path, "first", sampler="random", trials=3, replicates=2, finalists=2)
    given = SimpleNamespace(**vars(first), manifest=SimpleNamespace(digest="d" * 64))
    job, config = Job.model_construct(folds=(None,) * 2, epochs=3), first.request.config
    trials = Trials(optuna_file("first"), "first", first.space, config)
    assert "(0 trials and 4 repeats, 2 folds)" in cost(given, job, trials, 0.0)
    again = Trials(optuna_file("first"), again_name("first"), first.space, config)
    add_replicates(trials, again, config)
    again.finish(again.propose().number, "completed", "", 0.8)
    assert "(0 trials and 3 repeats, 2 folds)" in cost(given, job, trials, 0.0)
    for state in ("failed", "completed", "completed"):
        again.finish(again.propose().number, state, "", 0.8 if state == "completed" else None)
    assert cost(given, job, trials, 0.0) == "all trials are done"


def test_the_cost_of_retraining_is_that_of_what_is_not_there(tmp_path):
    records = earlier(tmp_path, [0.5, 0.9])
    first = prepared(tmp_path, "first", sampler="random", trials=2, candidate="retrained")
    given = SimpleNamespace(**vars(first), manifest=SimpleNamespace(digest="d" * 64))
    job = Job.model_construct(folds=(None,) * 2, epochs=3)
    trials = Trials(optuna_file("first"), "first", first.space, first.request.config)
    assert cost(given, job, trials, 0.0).startswith("at most one training on all images for 3 epochs")
    network = folder("first") / records[1].name / "retrained/0123-3.keras"
    network.parent.mkdir(parents=True)
    network.touch()
    assert cost(given, job, trials, 0.0) == "all trials are done"


def test_the_finalists_are_queued_with_seeds_of_their_own(tmp_path):
    earlier(tmp_path, [0.5, 0.9, 0.7])
    given = prepared(tmp_path, "first", sampler="random", replicates=2, finalists=2)
    trials = Trials(optuna_file("first"), "first", given.space, given.request.config)
    again = Trials(optuna_file("first"), "first again", given.space, given.request.config)
    for _ in range(2):  # as a study that is resumed does
        add_replicates(trials, again, given.request.config)
    assert again.waiting() == 4
    records = [again.propose() for _ in range(4)]
    assert [(r.name, r.replicate_of, r.config.seed) for r in records] == [
        ("trial-001-seed-1", 1, 1000), ("trial-002-seed-1", 2, 1000),
        ("trial-001-seed-2", 1, 2000), ("trial-002-seed-2", 2, 2000),
    ]  # fmt: skip


def test_a_study_is_run_by_one_process_at_a_time():
    refused = pytest.raises(MicrosegError, match="study 'first' is being run by another process")
    with alone("first"), refused, alone("first"):
        pass
    with alone("first"):
        assert (folder("first") / "lock").exists()


def test_a_study_that_runs_already_is_not_even_looked_at(tmp_path):
    """To read and check the images again and to start Ray would take a minute, for nothing."""
    earlier(tmp_path, [0.5])
    request = prepared(tmp_path / "no such data", "first").request
    with alone("first"), pytest.raises(MicrosegError, match="study 'first' is being run by another process"):
        resume(request, False, Console(quiet=True))
    with pytest.raises(MicrosegError, match="study 'first' began with "):
        resume(request, False, Console(quiet=True))
