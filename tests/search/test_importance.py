"""Importance of parameters: found where it is known, and not claimed of too few trials."""

import random

import optuna
import pytest

from microseg.search.importance import FEWEST, importances


def trials(count, seed=0):
    """The model decides much, the learning rate some; the tile and a conditional depth nothing."""
    draw = random.Random(seed)
    parameters, scores = [], []
    for _ in range(count):
        rate, model = 10 ** draw.uniform(-5, -2), draw.choice(["unet", "u2net"])
        own = {"model/name": model, "rate": str(rate), "tile": str(draw.choice([64, 128])), "seed": "7"}
        parameters.append(own | ({"depth": str(draw.choice([2, 3]))} if model == "unet" else {}))
        scores.append(0.1 * (model == "unet") + 0.05 * (1e-4 < rate < 1e-3) + 0.001 * draw.random())
    return parameters, scores


def test_what_decides_comes_first_and_what_is_the_same_in_all_not_at_all():
    found = importances(*trials(120))
    assert set(list(found)[:2]) == {"model/name", "rate"}
    assert found["model/name"] + found["rate"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)
    assert "seed" not in found and list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_too_few_trials_say_nothing(count):
    assert importances(*trials(count)) == {}


def test_trials_that_do_not_differ_say_nothing():
    parameters, scores = trials(FEWEST)
    assert importances(parameters, [0.5] * FEWEST) == {}
    assert importances([{"seed": "7"}] * FEWEST, scores) == {}


def test_text_that_looks_like_a_number_in_some_trials_is_a_choice():
    _, scores = trials(FEWEST)
    mixed = [{"weights": "nan" if score < 0.1 else str(score)} for score in scores]
    assert importances(mixed, scores) == {"weights": 1.0}


def test_the_verbosity_of_optuna_stays_as_it_was():
    before = optuna.logging.get_verbosity()
    importances(*trials(FEWEST))
    assert optuna.logging.get_verbosity() == before
