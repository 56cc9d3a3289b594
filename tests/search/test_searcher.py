"""What Ray Tune reports is told to Optuna and MLflow as what it is, once."""

import pytest
from mlflow import MlflowClient
from ray.tune.search import Searcher

from microseg.config import SearchConfig
from microseg.search import incidents
from microseg.search.job import Job
from microseg.search.resources import Node, Packing
from microseg.search.scheduler import FoldRace, Stopped
from microseg.search.searcher import StudySearcher, reconcile
from microseg.search.trials import Trials
from microseg.space import parse_space
from microseg.tracking import store, tree

VALUES = {"model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 4]}}}, "epochs": 3}
CONFIG = SearchConfig(space=VALUES, trials=2)
MACHINE = (Node(4.0, 0.0, 2.0**33),)


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> MlflowClient:
    return store.connect(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.fixture
def study(client, tmp_path):
    run = tree.open_study(client, tmp_path.name)

    def opened(total=2, concurrency=1):
        trials = Trials(tmp_path / "optuna.db", "study", parse_space(VALUES), CONFIG)
        race = FoldRace(CONFIG, 3, 2)
        job = Job.model_construct(workdir=tmp_path)
        packing = Packing(CONFIG.model_copy(update={"concurrency": concurrency}), MACHINE)
        return (
            trials,
            race,
            StudySearcher(trials, total, (client, run), race, packing, job),
        )

    opened.run = run
    return opened


def result(step: int, objective: float, scores: tuple[float, ...] = (), **more):
    peaks = {"memory_mib": 900.0, "gpu_memory_mib": 0.0, "seconds": [2.0] * len(scores)}
    told = {"step": step, "objective": objective, "scores": list(scores), "fold": 0, "epoch": step}
    return told | {"accumulation": 1, "epochs": [3] * len(scores)} | (peaks if scores else {}) | more


def runs(client, settings):
    trial = tree.TrialRun.model_validate(settings["trial"])
    tree.open_fold(client, trial, 0)
    return trial


@pytest.mark.parametrize(
    "why", [Stopped("pruned", "ASHA at epoch 2"), Stopped("raced_out", "fold 1: 0.2 behind trial-003")]
)
def test_a_trial_the_scheduler_stopped_is_told_why_in_both(client, study, why):
    trials, race, searcher = study()
    trial = runs(client, searcher.suggest("a"))
    searcher.on_trial_result("a", result(1, 0.5))
    race.stopped[0] = why
    searcher.on_trial_complete("a", result(2, 0.6))  # Ray hands the stopping report to this method alone
    record = trials.records()[0]
    assert (record.state, record.reason, record.score) == (*why, None)
    assert record.steps == {1: 0.5, 2: 0.6}
    run = client.get_run(trial.run_id)
    assert (run.info.status, run.data.tags[tree.STATE]) == ("KILLED", why.state)
    (fold,) = tree.children(client, run.info.experiment_id, trial.run_id)
    assert (fold.info.status, fold.data.tags[tree.STATE]) == ("KILLED", why.state)


def test_a_trial_with_all_folds_is_complete_with_their_mean(client, study):
    trials, _, searcher = study()
    trial = runs(client, searcher.suggest("a"))
    searcher.on_trial_result("a", result(3, 0.6))
    searcher.on_trial_result("a", result(4, 0.6, (0.6,)))
    last = result(5, 0.7, (0.6, 0.8), state="completed", reason="all folds")
    searcher.on_trial_result("a", last)
    searcher.on_trial_complete("a", last)
    record = trials.records()[0]
    assert (record.state, record.score, record.scores) == ("completed", 0.7, (0.6, 0.8))
    assert (record.seconds, record.epochs, record.memory_mib) == ((2.0, 2.0), (3, 3), 900.0)
    assert client.get_run(trial.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("state", ["out_of_memory", "diverged", "collapsed", "failed"])
def test_a_trial_that_ends_without_a_score_has_none(client, study, state):
    trials, _, searcher = study()
    settings = searcher.suggest("a")
    searcher.on_trial_complete("a", result(2, 0.5, state=state, reason="why"))
    assert [(r.state, r.reason, r.score) for r in trials.records()] == [(state, "why", None)]
    run = client.get_run(settings["trial"]["run_id"])
    assert (run.info.status, run.data.tags[tree.STATE]) == ("FAILED", state)


def test_a_worker_that_could_not_even_tell_is_failed_with_the_error(client, study):
    trials, _, searcher = study()
    failed = searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.9))
    searcher.on_trial_complete("a", error=True)
    assert trials.records()[0].reason == "the worker failed in epoch 2"
    searcher.explain(failed, "ValueError: no such thing")
    assert [(r.state, r.reason) for r in trials.records()] == [("failed", "ValueError: no such thing")]
    assert client.get_run(failed["trial"]["run_id"]).data.tags[tree.REASON] == "ValueError: no such thing"


def test_workers_that_memory_ended_before_their_first_word_leave_a_trial_out_of_memory(study, tmp_path):
    trials, _, searcher = study()
    name = searcher.suggest("a")["trial"]["name"]
    (tmp_path / name).mkdir()
    for _ in range(2):
        incidents.note(tmp_path / name, incidents.Incident("out_of_memory", "no memory"))
    searcher.on_trial_complete("a", error=True)
    assert [(r.state, r.reason) for r in trials.records()] == [("out_of_memory", "no memory")]


def test_a_worker_that_fails_after_its_last_word_has_said_how_the_trial_ended(study):
    trials, _, searcher = study()
    searcher.suggest("a")
    searcher.on_trial_result("a", result(5, 0.7, (0.6, 0.8), state="completed", reason="all folds"))
    searcher.on_trial_complete("a", error=True)
    assert [(r.state, r.score) for r in trials.records()] == [("completed", 0.7)]


def test_the_checkpoints_of_a_trial_that_has_ended_are_deleted_those_of_an_interrupted_one_stay(
    study, tmp_path
):
    _, race, searcher = study()
    for name in ("a", "b"):
        settings = searcher.suggest(name)
        folder = tmp_path / settings["trial"]["name"] / "fold-0" / "checkpoint"
        folder.mkdir(parents=True)
    race.stopped = {0: Stopped("pruned", "ASHA at epoch 1"), 1: Stopped("interrupted", "the budget is spent")}
    for name in ("a", "b"):
        searcher.on_trial_complete(name, result(1, 0.5))
    assert [path.parts[-3] for path in sorted(tmp_path.rglob("checkpoint"))] == ["trial-001"]


def test_what_is_reported_again_is_recorded_once(study):
    """A worker that was started again tells its epochs from the first on."""
    trials, _, searcher = study()
    searcher.suggest("a")
    for objective in (0.4, 0.9):  # the second time with other values, to see which are kept
        for step in (1, 2, 3):
            searcher.on_trial_result("a", result(step, objective))
        searcher.on_trial_result("a", result(4, objective, (objective,)))
    record = trials.records()[0]
    assert record.steps == {1: 0.4, 2: 0.4, 3: 0.4, 4: 0.4}
    assert record.scores == (0.4,)
    _, _, again = study()
    again.suggest("b")
    again.on_trial_result("b", result(2, 0.9))
    assert trials.records()[0].steps[2] == 0.4


def test_batches_in_more_parts_belong_to_the_configuration(client, study):
    trials, _, searcher = study()
    settings = searcher.suggest("a")
    searcher.on_trial_result("a", result(1, 0.5, accumulation=2))
    assert trials.records()[0].config.accumulation == 2
    assert client.get_run(settings["trial"]["run_id"]).data.tags["microseg.accumulation"] == "2"


def test_the_study_ends_at_its_total_and_resumes_what_was_in_flight(client, study):
    _, _, searcher = study()
    first = searcher.suggest("a")
    _, _, again = study()
    assert again.suggest("b") == first  # the same trial, in the same run
    again.suggest("c")
    assert again.suggest("d") == Searcher.FINISHED
    parents = list(tree.children(client, study.run.experiment_id, study.run.run_id))
    assert [run.info.run_name for run in parents] == ["trial-000", "trial-001"]


@pytest.mark.parametrize(
    ("total", "concurrency", "followed"),
    [(1, 1, "0"), (3, 1, "110"), (2, 2, "00"), (3, 2, "100"), (5, 2, "11100"), (2, 4, "00")],
)
def test_as_many_processes_are_prepared_as_there_are_trials_that_follow_another(
    study, total, concurrency, followed
):
    _, _, searcher = study(total, concurrency)
    settings = [searcher.suggest(str(number)) for number in range(total)]
    assert [one["followed"] for one in settings] == [one == "1" for one in followed]


def test_nothing_is_proposed_once_the_budget_is_spent(study):
    trials, race, searcher = study()
    race.exhausted = lambda: "the budget of 1 hours is spent"
    assert searcher.suggest("a") == Searcher.FINISHED
    assert trials.count() == 0


def test_runs_of_trials_that_ended_are_ended_too(client, study):
    """The driver may be killed between telling Optuna and ending the runs."""
    trials, _, searcher = study()
    ended, flying = runs(client, searcher.suggest("a")), runs(client, searcher.suggest("b"))
    trials.finish(0, "pruned", "ASHA at epoch 1")
    reconcile(client, study.run, trials.records())
    assert client.get_run(ended.run_id).data.tags[tree.STATE] == "pruned"
    (fold,) = tree.children(client, ended.experiment_id, ended.run_id)
    assert fold.info.status == "KILLED"
    assert client.get_run(flying.run_id).info.status == "RUNNING"


@pytest.mark.parametrize("state", ["completed", "refused"])
def test_runs_that_an_interruption_ended_get_the_state_that_optuna_was_told(client, study, state):
    """Refused: in flight, when the study was forced to go on with constraints that exclude it."""
    trials, _, searcher = study()
    ended, flying = runs(client, searcher.suggest("a")), runs(client, searcher.suggest("b"))
    trials.finish(0, state, "why", 0.5)
    tree.interrupt(client, study.run)
    reconcile(client, study.run, trials.records())
    (fold,) = tree.children(client, ended.experiment_id, ended.run_id)
    found = [client.get_run(run_id) for run_id in (ended.run_id, fold.info.run_id, flying.run_id)]
    assert [run.data.tags[tree.STATE] for run in found] == [state, state, "interrupted"]
