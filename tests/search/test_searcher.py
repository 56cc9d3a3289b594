"""What Ray Tune reports is told to Optuna and MLflow as what it is."""

import pytest
from mlflow import MlflowClient
from ray.tune.search import Searcher

from microseg.search.searcher import StudySearcher
from microseg.search.trials import Trials
from microseg.space import parse_space
from microseg.tracking import store, tree

SPACE = parse_space({"model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 4]}}}, "epochs": 3})


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> MlflowClient:
    return store.connect(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.fixture
def study(client, tmp_path):
    run = tree.open_study(client, tmp_path.name)
    trials = Trials(tmp_path / "optuna.db", "study", SPACE, seed=0, mode="max")
    return trials, StudySearcher(trials, 2, client, run)


def result(step: int, objective: float, scores: tuple[float, ...] = (), **more: str):
    return {"step": step, "objective": objective, "scores": list(scores), "fold": 0, "epoch": step, **more}


def runs(client, settings):
    trial = tree.TrialRun.model_validate(settings["trial"])
    tree.open_fold(client, trial, 0)
    return trial


def test_a_trial_the_scheduler_stopped_is_pruned_in_both(client, study):
    trials, searcher = study
    trial = runs(client, searcher.suggest("a"))
    searcher.on_trial_result("a", result(1, 0.5))
    searcher.on_trial_complete("a", result(2, 0.6))  # Ray hands the stopping report to this method alone
    record = trials.records()[0]
    assert (record.state, record.reason, record.score) == ("pruned", "ASHA at epoch 2", None)
    run = client.get_run(trial.run_id)
    assert (run.info.status, run.data.tags[tree.STATE]) == ("KILLED", "pruned")
    (fold,) = tree.children(client, run.info.experiment_id, trial.run_id)
    assert (fold.info.status, fold.data.tags[tree.STATE]) == ("KILLED", "pruned")


def test_a_trial_with_all_folds_is_complete_with_their_mean(client, study):
    trials, searcher = study
    trial = runs(client, searcher.suggest("a"))
    searcher.on_trial_result("a", result(3, 0.6))
    searcher.on_trial_result("a", result(4, 0.6, (0.6,)))
    last = result(5, 0.7, (0.6, 0.8), state="completed", reason="all folds")
    searcher.on_trial_result("a", last)
    searcher.on_trial_complete("a", last)
    record = trials.records()[0]
    assert (record.state, record.score, record.scores) == ("completed", 0.7, (0.6, 0.8))
    assert client.get_run(trial.run_id).info.status == "FINISHED"


def test_a_diverged_and_a_failed_trial_have_no_score(client, study):
    trials, searcher = study
    diverged, failed = searcher.suggest("a"), searcher.suggest("b")
    searcher.on_trial_complete("a", result(2, 0.5, state="diverged", reason="fold 1 diverged"))
    searcher.on_trial_result("b", result(1, 0.9))
    searcher.on_trial_complete("b", error=True)
    searcher.explain(failed, "ValueError: no such thing")
    states = [(record.state, record.reason, record.score) for record in trials.records()]
    assert states == [("diverged", "fold 1 diverged", None), ("failed", "ValueError: no such thing", None)]
    for settings in (diverged, failed):
        assert client.get_run(settings["trial"]["run_id"]).info.status == "FAILED"


def test_the_study_ends_at_its_total_and_resumes_what_was_in_flight(client, study):
    trials, searcher = study
    first = searcher.suggest("a")
    again = StudySearcher(trials, 2, client, searcher._study)
    assert again.todo() == 2
    assert again.suggest("b") == first  # the same trial, in the same run
    again.suggest("c")
    assert again.suggest("d") == Searcher.FINISHED
    parents = list(tree.children(client, searcher._study.experiment_id, searcher._study.run_id))
    assert [run.info.run_name for run in parents] == ["trial-000", "trial-001"]
