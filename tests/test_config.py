"""Strict configuration: unknown keys and unfit values are one line that teaches."""

from pathlib import Path

import pytest

from microseg.config import SearchConfig, TrialConfig, did_you_mean, parse, read_search, read_yaml
from microseg.errors import MicrosegError

MODEL = {"model": {"name": "unet"}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**MODEL, "epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"model": {"name": "unet", "parms": {}}}, "unknown key 'model.parms'; did you mean 'params'?"),
        ({}, "model: Field required"),
        ({**MODEL, "epochs": 0}, "epochs: Input should be greater than or equal to 1 (given: 0)"),
        (
            {**MODEL, "precision": "half"},
            "precision: Input should be 'auto', 'float32', 'bfloat16' or 'float16'",
        ),
        ({**MODEL, "epochs": "many"}, "epochs: Input should be a whole number (given: 'many')"),
        ({"model": "unet"}, "model: Input should be a mapping (given: 'unet')"),
        ([], "expected a mapping of keys to values, got list"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_with_its_source(values, said):
    with pytest.raises(MicrosegError) as caught:
        parse(TrialConfig, values, "best.yaml")
    assert str(caught.value).startswith("best.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"folds": "abc"}, "folds: Input should be a whole number or 'given' (given: 'abc')"),
        ({"gpus_per_trial": "all"}, "gpus_per_trial: Input should be a number or 'auto' (given: 'all')"),
        ({"start_with": [3]}, "start_with.0: Input should be a mapping or text (given: 3)"),
        ({"start_with": "best.yaml"}, "start_with: Input should be a list (given: 'best.yaml')"),
        ({"budget": {"hours": "x"}}, "budget.hours: Input should be a number (given: 'x')"),
        ({"constraints": [{"ned": {"tile": 3}}]}, "unknown key 'constraints.0.ned'; did you mean 'need'?"),
    ],
)
def test_of_alternatives_all_are_said_and_no_type_of_the_library(values, said):
    with pytest.raises(MicrosegError) as caught:
        parse(SearchConfig, {"space": {}} | values, "s.yaml")
    assert str(caught.value).startswith(f"s.yaml: {said}")


def test_nested_search_settings_are_strict_too():
    with pytest.raises(MicrosegError, match=r"unknown key 'asha.graze'; did you mean 'grace'\?"):
        parse(SearchConfig, {"space": {}, "asha": {"graze": 3}}, "s.yaml")


def test_asha_does_not_stop_what_costs_little():
    """It would compare by the metric alone, and a cheap network belongs on the front however it ranks."""
    values = {"space": {}, "against": "parameters"}
    assert parse(SearchConfig, values, "file").asha is None
    with pytest.raises(MicrosegError, match="with against: parameters leave asha out"):
        parse(SearchConfig, values | {"asha": {"grace": 3}}, "file")


def test_a_batch_is_accumulated_of_equal_parts():
    values = {"model": {"name": "unet"}, "batch_size": 6, "accumulation": 4}
    with pytest.raises(
        MicrosegError, match="accumulation must divide batch_size into equal parts; 4 does not"
    ):
        parse(TrialConfig, values, "file")


def test_a_configuration_is_frozen_and_survives_a_round_trip():
    config = TrialConfig.model_validate(MODEL)
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path):
    with pytest.raises(MicrosegError, match="no such file"):
        read_search(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("space: {a: [1, 2\nb: 3")
    with pytest.raises(MicrosegError, match="not valid YAML") as caught:
        read_yaml(broken)
    assert "\n" not in str(caught.value)


def test_a_yaml_file_cannot_run_code(tmp_path: Path):
    hostile = tmp_path / "hostile.yaml"
    hostile.write_text(
        f"!!python/object/apply:pathlib.Path.touch [!!python/name:pathlib.Path '{tmp_path}/ran']"
    )
    with pytest.raises(MicrosegError, match="not valid YAML"):
        read_yaml(hostile)
    assert not (tmp_path / "ran").exists()


def test_the_hint_names_the_nearest_and_all():
    assert did_you_mean("dise", ["dice", "bce"]) == "did you mean 'dice'? allowed: bce, dice"
    assert did_you_mean("zzz", ["dice", "bce"]) == "allowed: bce, dice"
