"""Search spaces: parsing, sampling, naming, and the corners that are checked before training."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.errors import MicrosegError
from microseg.space import Number, parse_space


class Drawn:
    """Draws by a seeded generator and remembers every name with its distribution."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.names: dict[str, object] = {}

    def number(self, name, distribution: Number):
        assert name not in self.names
        self.names[name] = distribution
        if distribution.kind == "int_uniform":
            return self.random.randint(int(distribution.low), int(distribution.high))
        return self.random.uniform(distribution.low, distribution.high)

    def choice(self, name, labels):
        assert name not in self.names
        self.names[name] = tuple(labels)
        return self.random.choice(labels)


SPACE = {
    "model": {
        "one_of": [
            {"name": "unet", "params": {"depth": {"int_uniform": [2, 4]}, "filters": {"choice": [8, 16]}}},
            {"name": "encoder_unet", "params": {"depth": {"int_uniform": [3, 5]}}},
        ]
    },
    "loss": {"one_of": [{"name": "dice"}, {"name": "tversky", "params": {"alpha": {"uniform": [0.3, 0.7]}}}]},
    "preprocess": {"name": "percentile", "params": {"channels": {"choice": [[0], [0, 1]]}}},
    "epochs": 10,
}


def test_a_sample_has_the_shape_of_the_yaml_and_names_by_path():
    drawn = Drawn()
    sample = parse_space(SPACE).sample(drawn)
    assert sample["epochs"] == 10
    assert set(drawn.names) <= {
        "model", "model/unet/params/depth", "model/params/filters", "model/encoder_unet/params/depth",
        "loss", "loss/params/alpha", "preprocess/params/channels",
    }  # fmt: skip
    assert sample["preprocess"]["params"]["channels"] in ([0], [0, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_one_name_always_means_one_distribution(seed):
    """Optuna refuses a categorical parameter whose options change from trial to trial."""
    space, seen = parse_space(SPACE), {}
    for step in range(5):
        drawn = Drawn(seed + step)
        space.sample(drawn)
        for name, distribution in drawn.names.items():
            assert seen.setdefault(name, distribution) == distribution


def test_corners_hold_every_alternative_and_both_ends():
    corners = list(parse_space(SPACE).corners())
    models = [corner["model"] for corner in corners]
    assert {"name": "unet", "params": {"depth": 2, "filters": 8}} in models
    assert {"name": "unet", "params": {"depth": 4, "filters": 8}} in models
    assert {"name": "unet", "params": {"depth": 2, "filters": 16}} in models
    assert {"name": "encoder_unet", "params": {"depth": 5}} in models
    assert {"name": "tversky", "params": {"alpha": 0.7}} in [corner["loss"] for corner in corners]
    assert all(isinstance(model["params"]["depth"], int) for model in models)


def test_nested_branches():
    space = parse_space({"a": {"one_of": [{"one_of": [{"name": "x"}, {"name": "y"}]}, {"name": "z"}]}})
    assert {space.sample(Drawn(seed))["a"]["name"] for seed in range(30)} == {"x", "y", "z"}


def test_two_options_of_one_name_keep_distinct_labels():
    space = parse_space(
        {"m": {"one_of": [{"name": "unet", "params": {"d": 1}}, {"name": "unet", "params": {"d": 2}}]}}
    )
    drawn = Drawn()
    space.sample(drawn)
    assert drawn.names["m"] == ("unet", "unet-2")


def test_a_single_option_is_no_parameter():
    space = parse_space({"tile": {"choice": [64]}, "loss": {"one_of": [{"name": "dice"}]}})
    drawn = Drawn()
    assert space.sample(drawn) == {"tile": 64, "loss": {"name": "dice"}}
    assert drawn.names == {} and space.dimensions() == []


def test_the_dimensions_are_what_is_drawn_and_which_of_it_is_conditional():
    space, names = parse_space(SPACE), set()
    for seed in range(30):
        drawn = Drawn(seed)
        space.sample(drawn)
        names |= drawn.names.keys()
    dimensions = {dimension.name: dimension.conditional for dimension in space.dimensions()}
    assert dimensions.keys() == names
    assert {name for name, conditional in dimensions.items() if not conditional} == {
        "model", "loss", "preprocess/params/channels",
    }  # fmt: skip


def test_what_is_fixed_is_the_same_in_every_configuration():
    assert parse_space(SPACE).fixed() == {"epochs": 10}


def test_the_numbers_between_the_ends_are_those_of_short_whole_ranges():
    depth = {"int_uniform": [2, 5]}
    assert parse_space({"depth": depth}).part("depth", between=True) == [2, 3, 4, 5]
    assert parse_space({"depth": depth}).part("depth") == [2, 5]
    assert parse_space({"filters": {"int_uniform": [8, 512]}}).part("filters", between=True) == [8, 512]
    assert parse_space({"rate": {"uniform": [1, 3]}}).part("rate", between=True) == [1, 3]


def test_yaml_scientific_notation_without_a_dot_is_a_number():
    """YAML 1.1 reads 1e-4 as text."""
    (low, high) = parse_space({"lr": {"log_uniform": ["1e-4", "1e-2"]}}).part("lr")
    assert (low, high) == (1e-4, 1e-2)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"uniform": [1]}, "uniform takes [low, high]"),
        ({"uniform": [2, 1]}, "low < high"),
        ({"uniform": "1 to 2"}, "uniform takes [low, high]"),
        ({"log_uniform": [0, 1]}, "log_uniform needs low > 0"),
        ({"int_uniform": [1.5, 3]}, "int_uniform takes whole numbers"),
        ({"choice": []}, "choice takes a list of at least one option"),
        ({"choice": [1, 1]}, "the option 1 is given twice"),
        ({"choice": [1], "uniform": [0, 1]}, "'choice' stands alone"),
        ({"unifrom": [0, 1]}, "unknown distribution 'unifrom'; did you mean 'uniform'?"),
        ({"choise": [0, 1]}, "unknown distribution 'choise'; did you mean 'choice'?"),
    ],
)
def test_a_malformed_distribution_names_its_path(node, said):
    with pytest.raises(MicrosegError) as caught:
        parse_space({"model": {"params": {"depth": node}}}, "s.yaml")
    assert str(caught.value).startswith("s.yaml: model/params/depth: ")
    assert said in str(caught.value)
