"""A configuration that a space can give leads back to the parameters that give it."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.errors import MicrosegError
from microseg.space import parse_space

SPACE = parse_space(
    {
        "model": {
            "one_of": [
                {
                    "name": "unet",
                    "params": {"depth": {"int_uniform": [2, 4]}, "filters": {"choice": [8, 16]}},
                },
                {"name": "encoder_unet", "params": {"depth": {"int_uniform": [3, 5]}, "weights": "none"}},
                {"name": "encoder_unet", "params": {"depth": {"int_uniform": [3, 5]}, "weights": "imagenet"}},
            ]
        },
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
        "preprocess": {"name": "scale", "params": {"channels": {"choice": [None, [0], [0, 1]]}}},
        "tile": {"choice": [64, 128]},
        "epochs": 10,
    }
)


class Stated:
    """Draws stated values, and fails for one that is not stated."""

    def __init__(self, values):
        self.values = values

    def number(self, name, distribution):
        assert distribution.low <= self.values[name] <= distribution.high
        return self.values[name]

    def choice(self, name, labels):
        assert any(label is self.values[name] or label == self.values[name] for label in labels)
        return self.values[name]


class Any:
    """Draws whatever hypothesis likes."""

    def __init__(self, data):
        self.data = data

    def number(self, name, distribution):
        low, high = distribution.ends()
        numbers = st.integers(low, high) if distribution.whole else st.floats(low, high)
        return self.data.draw(numbers)

    def choice(self, name, labels):
        return self.data.draw(st.sampled_from(labels))


constants = st.none() | st.booleans() | st.integers(2, 9) | st.sampled_from(["a", "b", "none"])
leaves = st.one_of(
    constants,
    st.lists(st.integers(2, 4), max_size=2),
    st.tuples(st.integers(0, 3), st.integers(4, 9)).map(lambda ends: {"int_uniform": list(ends)}),
    st.tuples(st.floats(0.1, 1), st.floats(2, 9)).map(lambda ends: {"uniform": list(ends)}),
    st.tuples(st.floats(0.1, 1), st.floats(2, 9)).map(lambda ends: {"log_uniform": list(ends)}),
    st.lists(constants, min_size=1, max_size=3, unique=True).map(lambda options: {"choice": options}),
)
keys = st.sampled_from(["p", "q", "r"])


def components(inner):
    component = st.builds(
        lambda name, params: {"name": name, "params": params}, st.sampled_from("xyz"), inner
    )
    return st.lists(component, min_size=1, max_size=3, unique_by=json.dumps).map(
        lambda options: {"one_of": options}
    )


groups = st.dictionaries(
    keys,
    st.recursive(leaves, lambda inner: components(st.dictionaries(keys, inner, max_size=2)), max_leaves=6),
)


@settings(max_examples=150, deadline=None)
@given(groups, st.data())
def test_a_sample_leads_back_to_itself(values, data):
    space = parse_space(values)
    config = space.sample(Any(data))
    stored = json.loads(json.dumps(config))
    assert space.sample(Stated(space.parameters(stored))) == config


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["model", "optimizer", "preprocess", "tile", "epochs"]))
def test_what_is_left_out_is_left_open(data, part):
    config = SPACE.sample(Any(data))
    whole = SPACE.parameters(config)
    rest = SPACE.parameters({key: value for key, value in config.items() if key != part})
    assert rest == {name: value for name, value in whole.items() if name.split("/")[0] != part}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        ({}, {}),
        ({"model": {"name": "encoder_unet"}}, {"model": "encoder_unet"}),
        ({"model": {"params": {"weights": "imagenet"}}}, {"model": "encoder_unet-2"}),
        (
            {"model": {"name": "unet", "params": {"filters": 16}}},
            {"model": "unet", "model/params/filters": 16},
        ),
        ({"optimizer": {"params": {"learning_rate": "1e-3"}}}, {"optimizer/params/learning_rate": 1e-3}),
        ({"preprocess": {"params": {"channels": [0, 1]}}}, {"preprocess/params/channels": "[0, 1]"}),
        ({"preprocess": {"params": {"channels": None}}}, {"preprocess/params/channels": None}),
        ({"tile": 128.0, "epochs": 10}, {"tile": 128}),
        ({"loss": {}}, {}),
    ],
)
def test_part_of_a_configuration_gives_part_of_the_parameters(config, parameters):
    assert SPACE.parameters(config) == parameters


def test_the_option_that_leaves_the_least_open_is_meant():
    wide = {"name": "unet", "params": {"depth": 3, "filters": {"choice": [8, 16]}}}
    space = parse_space({"model": {"one_of": [wide, {"name": "unet", "params": {"depth": 3}}]}})
    assert space.parameters({"model": {"name": "unet", "params": {"depth": 3}}}) == {"model": "unet-2"}


def test_parameters_that_are_empty_do_not_turn_the_choice():
    """A stored component always has parameters, be they empty; a space may leave them out."""
    space = parse_space({"loss": {"one_of": [{"name": "dice", "params": {"gamma": 2}}, {"name": "dice"}]}})
    assert space.parameters({"loss": {"name": "dice", "params": {}}}) == {"loss": "dice-2"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"epochs": 11}, "epochs is 11; the space fixes it at 10"),
        ({"epochs": True}, "epochs is True; the space fixes it at 10"),
        ({"tile": 96}, "tile is 96; allowed: 64, 128"),
        ({"tiel": 64}, "tiel is 64; not in the space; did you mean 'tile'?"),
        ({"model": {"name": "u_net"}}, "model is {'name': 'u_net'}; allowed: unet, encoder_unet, encoder_unet-2"),
        ({"model": {"name": "unet", "params": {"depth": 5}}}, "model/params/depth is 5; allowed: whole numbers from 2 to 4"),
        ({"model": {"name": "unet", "params": {"depth": 2.5}}}, "model/params/depth is 2.5; allowed: whole numbers"),
        ({"model": {"name": "unet", "params": {"depth": True}}}, "model/params/depth is True; allowed: whole numbers"),
        ({"model": {"name": "unet", "params": {"dept": 3}}}, "model/params/dept is 3; not in the space; did you mean 'depth'?"),
        ({"model": {"name": "encoder_unet", "params": {"weights": "w.h5"}}}, "model/params/weights is 'w.h5'; the space fixes it at 'none'"),
        ({"optimizer": {"params": {"learning_rate": 0.1}}}, "optimizer/params/learning_rate is 0.1; allowed: numbers from 0.0001 to 0.01"),
        ({"optimizer": {"params": {"learning_rate": float("nan")}}}, "learning_rate is nan; allowed: numbers"),
        ({"optimizer": {"params": {"learning_rate": "fast"}}}, "learning_rate is 'fast'; allowed: numbers"),
        ({"optimizer": "adam"}, "optimizer is 'adam'; give a mapping with the keys name, params"),
        ({"preprocess": {"params": {"channels": [1]}}}, "preprocess/params/channels is [1]; allowed: None, [0], [0, 1]"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_no_point_of_the_space_is_refused(config, said):
    with pytest.raises(MicrosegError, match=f"^{re.escape(said)}|{re.escape(said)}") as caught:
        SPACE.parameters(config)
    assert "\n" not in str(caught.value)
