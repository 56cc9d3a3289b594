"""The tree of runs: found again by key, opened once, ended with what became of it."""

import math
from typing import get_args

import pytest
from mlflow import MlflowClient

from microseg import training
from microseg.errors import MicrosegError
from microseg.tracking import store, tree
from microseg.tracking.recorder import flatten, log_metrics


def opened(
    client: MlflowClient, study: tree.StudyRun, number: int, parameters: dict[str, str] | None = None
) -> tree.TrialRun:
    return tree.open_trial(client, study, tree.trial_name(number), parameters or {}, number)


def test_trials_and_folds_are_found_again_instead_of_made_twice(client):
    study = tree.open_study(client, "again")
    first = opened(client, study, 7, {"model/name": "unet"})
    fold = tree.open_fold(client, first, 1)
    assert opened(client, study, 7, {"model/name": "another"}) == first  # parameters are written once
    assert tree.open_fold(client, first, 1).info.run_id == fold.info.run_id
    run = client.get_run(first.run_id)
    assert (run.info.run_name, fold.info.run_name) == ("trial-007", "trial-007/fold-2")
    assert run.data.params == {"model/name": "unet"}
    assert (run.data.tags[tree.PARENT], fold.data.tags[tree.PARENT]) == (study.run_id, first.run_id)


def test_two_studies_of_one_name_keep_their_trials_apart(client):
    one, other = tree.open_study(client, "twin"), tree.open_study(client, "twin")
    assert opened(client, one, 0).run_id != opened(client, other, 0).run_id


def test_the_run_that_mlflow_made_is_the_parent_and_workers_do_not_inherit_it(client, monkeypatch):
    import os

    experiment = client.create_experiment("project")
    given = client.create_run(experiment, run_name="amusing-crow-1").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    study = tree.open_study(client, "named")
    assert (study.run_id, study.experiment_id) == (given, experiment)
    assert client.get_run(given).info.run_name == "named"
    assert "MLFLOW_RUN_ID" not in os.environ


def test_on_resume_the_former_run_goes_on_and_the_new_one_points_to_it(client, monkeypatch):
    former = tree.open_study(client, "long")
    tree.end(client, former.run_id, "interrupted")
    new = client.create_run(former.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", new)
    assert tree.open_study(client, "long", former.run_id) == former
    assert client.get_run(former.run_id).info.status == "RUNNING"
    assert client.get_run(new).data.tags[tree.RESUMES] == former.run_id
    assert client.get_run(new).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("completed", "FINISHED"),
        ("pruned", "KILLED"),
        ("raced_out", "KILLED"),
        ("interrupted", "KILLED"),
        ("out_of_memory", "FAILED"),
        ("diverged", "FAILED"),
        ("collapsed", "FAILED"),
        ("failed", "FAILED"),
    ],
)
def test_states_end_a_run_with_a_status_and_a_reason(client, state, status):
    study = tree.open_study(client, f"ends-{state}")
    tree.end(client, study.run_id, state, "because")
    run = client.get_run(study.run_id)
    assert (run.info.status, run.data.tags[tree.STATE], run.data.tags[tree.REASON]) == (
        status,
        state,
        "because",
    )


def test_every_way_a_trial_may_end_has_a_status():
    from microseg.search.records import State

    assert set(tree.STATUS) == set(get_args(State)) - {"running"}
    assert set(get_args(training.State)) <= set(tree.STATUS)


def test_a_run_that_ended_keeps_its_end_until_it_ends_otherwise(client):
    run_id = tree.open_study(client, "ended").run_id
    tree.end(client, run_id, "failed", "because")
    ended = client.get_run(run_id)
    tree.end(client, run_id, "failed", "again")
    assert client.get_run(run_id).to_dictionary() == ended.to_dictionary()
    tree.end(client, run_id, "interrupted", "later")
    assert client.get_run(run_id).data.tags[tree.STATE] == "interrupted"


def test_a_run_that_was_killed_while_it_was_reopened_is_running_afterwards(client):
    study = tree.open_study(client, "reopened")
    run_id = opened(client, study, 0).run_id
    tree.end(client, run_id, "interrupted")
    client.update_run(run_id, status="RUNNING")
    opened(client, study, 0)
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags[tree.STATE]) == ("RUNNING", "running")


def test_parameters_that_a_killed_driver_had_not_written_are_written_later(client):
    study = tree.open_study(client, "half")
    run_id = opened(client, study, 0, {"tile": "64"}).run_id
    opened(client, study, 0, {"tile": "128", "seed": "1"})
    assert client.get_run(run_id).data.params == {"tile": "64", "seed": "1"}


def test_more_parameters_than_fit_a_batch_are_written(client):
    many = {f"model/params/{number:03d}": str(number) for number in range(230)}
    trial = opened(client, tree.open_study(client, "wide"), 0, many)
    assert client.get_run(trial.run_id).data.params == many


def test_a_replicate_is_a_row_of_its_own_beside_the_trials(client):
    study = tree.open_study(client, "repeated")
    trial = opened(client, study, 7)
    again = tree.open_trial(client, study, "trial-007-seed-2", {}, 20, replicate_of=7)
    fold = tree.open_fold(client, again, 0)
    run = client.get_run(again.run_id)
    assert (run.info.run_name, again.name, again.number) == ("trial-007-seed-2", "trial-007-seed-2", 20)
    assert (run.data.tags[tree.LEVEL], run.data.tags[tree.REPLICATE_OF]) == ("replicate", "trial-007")
    assert (run.data.tags[tree.PARENT], fold.info.run_name) == (study.run_id, "trial-007-seed-2/fold-1")
    tags = client.get_run(trial.run_id).data.tags
    assert tags[tree.LEVEL] == "trial" and tree.REPLICATE_OF not in tags


class Answered(MlflowClient):
    """A client of a server that created every run, died, and was asked again."""

    tracking_uri = "http://127.0.0.1:9"

    def create_run(self, *args, **kwargs):
        kwargs["start_time"] = 1_700_000_000_000
        super().create_run(*args, **kwargs)
        return super().create_run(*args, **kwargs)


def test_of_runs_that_a_server_made_twice_one_is_left(client):
    twice = Answered(client.tracking_uri)
    study = tree.open_study(twice, "twins")
    trial = opened(twice, study, 0)
    fold = tree.open_fold(twice, trial, 0)
    condition = f"tags.`{tree.STUDY}` = 'twins'"
    left = client.search_runs([study.experiment_id], condition)
    assert {run.info.run_id for run in left} == {study.run_id, trial.run_id, fold.info.run_id}
    assert len(left) == 3


def test_the_older_of_two_fold_runs_goes_on(client):
    trial = opened(client, tree.open_study(client, "older"), 0)
    first = tree.open_fold(client, trial, 0)
    tags = {name: first.data.tags[name] for name in (tree.KEY, tree.PARENT, tree.LEVEL)}
    younger = client.create_run(trial.experiment_id, start_time=first.info.start_time + 1, tags=tags)
    assert tree.open_fold(client, trial, 0).info.run_id == first.info.run_id
    assert client.get_run(younger.info.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(first.info.run_id).info.lifecycle_stage == "active"


def test_of_two_fold_runs_the_one_that_was_written_to_stays_and_ends_with_its_trial(client):
    """A server that stood still made the other one later, of a request that was given up."""
    trial = opened(client, tree.open_study(client, "late"), 0)
    used = tree.open_fold(client, trial, 0)
    client.log_metric(used.info.run_id, "val/dice", 0.5, step=1)
    tags = {name: used.data.tags[name] for name in (tree.KEY, tree.PARENT, tree.LEVEL)}
    late = client.create_run(trial.experiment_id, start_time=used.info.start_time - 1, tags=tags)
    tree.end_children(client, trial.experiment_id, trial.run_id, "completed", "all folds")
    assert client.get_run(late.info.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(used.info.run_id).info.status == "FINISHED"


def test_a_run_that_somebody_put_below_a_trial_is_left_alone(client):
    trial = opened(client, tree.open_study(client, "guest"), 0)
    guests = [client.create_run(trial.experiment_id, tags={tree.PARENT: trial.run_id}) for _ in range(2)]
    tree.open_fold(client, trial, 0)
    assert {client.get_run(run.info.run_id).info.lifecycle_stage for run in guests} == {"active"}


def test_what_a_dead_worker_left_running_is_ended_with_its_trial(client):
    study = tree.open_study(client, "dead")
    trial = opened(client, study, 0)
    done, left = (tree.open_fold(client, trial, fold).info.run_id for fold in (0, 1))
    tree.end(client, done, "completed")
    tree.end_children(client, trial.experiment_id, trial.run_id, "failed", "the worker failed")
    assert client.get_run(done).data.tags[tree.STATE] == "completed"
    assert client.get_run(left).data.tags[tree.STATE] == "failed"


def test_an_interrupted_study_leaves_nothing_running(client):
    study = tree.open_study(client, "stopped")
    ended, left = (opened(client, study, number) for number in (0, 1))
    tree.end(client, ended.run_id, "completed")
    fold = tree.open_fold(client, left, 0).info.run_id
    tree.interrupt(client, study)
    states = [client.get_run(run).data.tags[tree.STATE] for run in (ended.run_id, left.run_id, fold)]
    assert states == ["completed", "interrupted", "interrupted"]


def test_all_pages_of_runs_are_read(client):
    study = tree.open_study(client, "many")
    for number in range(12):
        opened(client, study, number)
    original = client.search_runs
    client.search_runs = lambda *args, **kwargs: original(*args, **{**kwargs, "max_results": 5})  # type: ignore[method-assign]
    try:
        names = [run.info.run_name for run in tree.children(client, study.experiment_id, study.run_id)]
    finally:
        client.search_runs = original  # type: ignore[method-assign]
    assert names == [f"trial-{number:03d}" for number in range(12)]


def test_an_infinite_value_is_stored_as_nan(client):
    """MLflow stores infinity as 1.8e308, which ruins every chart."""
    run = client.create_run("0").info.run_id
    log_metrics(client, run, {"val/loss": math.inf, "val/dice": 0.5}, step=2)
    (point,) = client.get_metric_history(run, "val/loss")
    assert math.isnan(point.value) and point.step == 2


def test_a_store_that_does_not_answer_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MicrosegError, match=r"does not answer .*; start it, or set MLFLOW_TRACKING_URI"):
        store.connect(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_parameters_are_named_by_path():
    values = {"model": {"name": "unet", "params": {"depth": 3}}, "tile": 64}
    assert flatten(values) == {"model/name": "unet", "model/params/depth": "3", "tile": "64"}
