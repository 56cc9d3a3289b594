"""The simulated benchmark of search methods: its optimum, its clock, and what becomes of a method's answer."""

import random
import statistics

import pytest
from replay import METHODS, best, replay, search
from responses import RATES, START, Simulated, best_score, operations, seconds, true_score
from search_study import Study

from microseg.config import SearchConfig, TrialConfig, read_yaml

EPOCHS, FOLDS = 6, 3


@pytest.fixture(scope="module")
def values(project):
    found = read_yaml(project / "search_spaces" / "unet_family.yaml")
    return found | {"space": found["space"] | {"epochs": EPOCHS}, "seed": 1}


@pytest.fixture
def play(values, tmp_path):
    def played(folds=FOLDS, workers=1, budget=12, **changes):
        config = SearchConfig.model_validate(values | changes)
        study = Study(config, Simulated(1, EPOCHS, FOLDS), tmp_path, folds, workers)
        return study.play(budget), study.trials.records()

    return played


def test_no_configuration_of_the_space_is_better_than_the_best_score(values):
    rates = values["space"]["optimizer"]["params"]["learning_rate"]["log_uniform"]
    assert tuple(rates) == RATES
    top, rng = best_score(60), random.Random(0)
    scores = []
    for _ in range(3000):
        size = {"depth": rng.randint(2, 5), "filters": rng.choice([8, 16, 32])}
        gates = {name: rng.choice([False, True]) for name in ("attention", "residual")}
        loss = rng.choice(
            [{"name": "bce_dice"}, {"name": "tversky", "params": {"alpha": rng.uniform(0.3, 0.7)}}]
        )
        augment = {"name": "elastic", "params": {"displacement": rng.uniform(1, 8)}}
        rate = 10 ** rng.uniform(-3.5, -2)
        config = TrialConfig.model_validate(
            {
                "model": {"name": "unet", "params": size | gates},
                "loss": loss,
                "augment": rng.choice([{"name": "none"}, {"name": "flips"}, augment]),
                "optimizer": {"name": "adam", "params": {"learning_rate": max(rate, RATES[0])}},
            }
        )
        scores.append(true_score(config, 60))
    assert max(scores) <= top
    assert top - max(scores) < 0.005


def test_the_clock_follows_the_operations_of_the_networks(play):
    assert operations(4, 32, 256) == pytest.approx(24e9, rel=0.01)
    alone, records = play(asha=None, race=None, sampler="random")
    each = [START + FOLDS * EPOCHS * seconds(record.config) for record in records]
    assert alone.gpu_hours == alone.hours == pytest.approx(sum(each) / 3600)
    several, records = play(asha=None, race=None, sampler="random", workers=2)
    each = [START + FOLDS * EPOCHS * seconds(record.config) for record in records]
    assert several.gpu_hours == pytest.approx(sum(each) / 3600)
    assert several.gpu_hours / 2 <= several.hours < several.gpu_hours


def test_an_answer_is_the_trial_with_the_best_score_of_all_folds_that_the_method_trains(play):
    for folds in (FOLDS, 1):
        played, records = play(folds=folds, race=None)
        done = [record for record in records if record.state == "completed"]
        assert all(len(record.scores) == folds for record in done)
        winner = max(done, key=lambda record: statistics.fmean(record.scores))
        assert played.at(played.used).truth == true_score(winner.config, EPOCHS)
        assert played.at(0.5) is None
        assert played.begun == sum(max(1, len(record.scores)) for record in records)


TABLE = [(0.9, 0.5, 0.5), (0.6, 0.8, 0.7), (0.5, 0.6, 0.6), (0.2, 0.1, 0.2), (0.55, 0.5, 0.6)]


def test_a_replay_tells_what_each_fold_training_led_to():
    done = replay(TABLE, random.Random(0), factor=float("inf"))
    assert (done.finished, done.after, done.trainings) == ([0, 1, 2, 3, 4], [3, 6, 9, 12, 15], 15)
    assert best(TABLE) == 1
    assert best(TABLE, [0, 2]) == 0
    for seed in range(20):
        whole = search(TABLE, "random, all folds", seed, [2, 15])
        assert whole.trainings == 15
        assert whole.regrets == [None, pytest.approx(0.0)]
    raced = [search(TABLE, "platform's race", seed, [15]) for seed in range(20)]
    assert {one.trainings < 15 for one in raced} == {True, False}
    assert METHODS["random, one fold"][0] == 1
    misled = [search(TABLE, "random, one fold", seed, [5]).regrets[0] for seed in range(20)]
    assert 0.0 in [round(regret, 9) for regret in misled]
    assert max(misled) == pytest.approx(0.7 - statistics.fmean(TABLE[0]))
