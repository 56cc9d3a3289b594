"""A study that is killed anywhere and resumed is the study that was not; Ray and training are simulated."""

import numpy as np
import pytest
import simulation

from microseg.config import AshaConfig, SearchConfig
from microseg.search.trials import Trials
from microseg.space import parse_space
from microseg.tracking import store, tree

VALUES = {
    "model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 5]}}},
    "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
    "epochs": 4,
}
SPACE = parse_space(VALUES)


def config(trials=7, concurrency=1) -> SearchConfig:
    return SearchConfig(
        space=VALUES, trials=trials, concurrency=concurrency, asha=AshaConfig(grace=2, reduction=3), seed=5
    )


def objective(trial, fold, epoch) -> float:
    """Deterministic: best at a learning rate of 1e-3, early epochs tell depth 2 alone; folds differ."""
    rate, depth = np.log10(trial.optimizer.params["learning_rate"]), trial.model.params["depth"]
    if epoch <= 2:
        return 0.3 if depth > 2 else 0.2
    return float(0.8 - 0.1 * (rate + 3) ** 2 + 0.02 * fold + 0.003 * ((fold * 7 + depth * 3) % 5))


class Desk:
    """A study of its own, in a folder of its own."""

    def __init__(self, client, folder, search):
        self.client, self.folder, self.search = client, folder, search
        self.study = tree.open_study(client, "study")
        self.workers = []

    def run(self, stop_after=None) -> None:
        trials = Trials(self.folder / "optuna.db", "study", SPACE, self.search)
        workers = simulation.Workers(simulation.job(self.search, 4, self.folder, folds=3), objective, seed=1)
        self.workers.append(workers)
        simulation.run(self.search, trials, workers, (self.client, self.study), stop_after)

    def records(self) -> list:
        trials = Trials(self.folder / "optuna.db", "study", SPACE, self.search)
        return [record.model_copy(update={"run_id": ""}) for record in trials.records()]

    def runs(self) -> dict:
        found = {}
        for run in self.tree(self.study.run_id):
            assert run.info.run_name not in found, "recorded twice"
            points = {
                name: [(p.step, p.value) for p in self.client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
                if not name.startswith("seconds")
            }
            tags = {name: run.data.tags.get(name) for name in (tree.STATE, tree.REASON, tree.LEVEL)}
            found[run.info.run_name] = (run.info.status, tags, points, run.data.params)
        return found

    def tree(self, parent):
        for run in tree.children(self.client, self.study.experiment_id, parent):
            yield run
            yield from self.tree(run.info.run_id)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """One store for all: to make its tables takes longer than a study."""
    return store.connect(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    desk = Desk(client, tmp_path_factory.mktemp("whole"), config())
    desk.run()
    return desk


@pytest.fixture
def desk(client, tmp_path):
    return lambda search: Desk(client, tmp_path, search)


def test_the_simulated_study_has_all_there_is(whole):
    states = [record.state for record in whole.records()]
    assert len(states) == 7 and {"completed", "pruned", "raced_out"} <= set(states)


def seldom(stops):
    """Further places to stop at, for whoever has a minute."""
    return pytest.param(stops, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "stops",
    [[1], seldom([3, 4]), [9, 1, 1, 30], seldom([17, 22]), seldom([40, 2, 5])],
)
def test_at_concurrency_1_it_equals_the_uninterrupted_one(whole, desk, stops):
    desk = desk(config())
    for stop in [*stops, None]:
        desk.run(stop)
    assert desk.records() == whole.records()
    assert desk.runs() == whole.runs()


@pytest.mark.parametrize("stops", [[5], seldom([20, 3]), [33, 18]])
def test_at_concurrency_3_nothing_is_lost_or_double(desk, stops):
    desk = desk(config(trials=8, concurrency=3))
    for stop in [*stops, None]:
        desk.run(stop)
    records = desk.records()
    assert [record.number for record in records] == list(range(8))
    assert not [record for record in records if record.state in ("running", "interrupted")]
    runs = desk.runs()
    assert len([name for name in runs if "/" not in name]) == 8
    for record in records:
        folds = [name for name in runs if name.startswith(f"{record.name}/")]
        assert len(folds) >= len(record.scores)
        assert runs[record.name][1][tree.STATE] == record.state


def test_a_longer_study_goes_on_where_the_shorter_one_ended(whole, desk):
    desk = desk(config(trials=3))
    desk.run()
    assert len(desk.records()) == 3
    desk.search = config()
    desk.run()
    assert desk.records() == whole.records()
