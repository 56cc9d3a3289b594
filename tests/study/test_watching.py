"""Which parameters the view of a study that begins has as columns, and how it is said where to look."""

from types import SimpleNamespace

import pytest

from microseg.config import SearchConfig, read_yaml
from microseg.space import parse_space
from microseg.study import watching
from microseg.study.watching import searched, watch

BRANCHES = {"one_of": [{"name": "unet", "params": {"depth": 2}}, {"name": "linknet"}]}


@pytest.mark.parametrize(
    ("values", "paths"),
    [
        ({"model": {"name": "unet"}, "tile": 64}, []),
        ({"model": {"name": "unet"}, "tile": {"choice": [64, 128]}}, ["tile"]),
        ({"model": BRANCHES}, ["model/name"]),  # the depth of the only branch that has one is no choice
        ({"model": {"name": "unet", "params": {"depth": {"int_uniform": [2, 4]}}}}, ["model/params/depth"]),
    ],
)
def test_columns_are_the_values_in_which_trials_can_differ(values, paths):
    assert searched(parse_space(values)) == paths


def test_the_columns_of_a_space_that_comes_with_the_package(project):
    space = parse_space(read_yaml(project / "search_spaces/unet_family.yaml")["space"])
    assert {"loss/name", "loss/params/alpha", "model/params/depth", "augment/name"} <= set(searched(space))
    assert not {"loss", "model/name", "epochs"} & set(searched(space))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://lab:5000", "to watch it: http://lab:5000/#/"),
        ("sqlite:///a.db", "to watch it: mlflow ui --backend-store-uri sqlite:///a.db, then http://127.0.0.1:5000/#/"),
    ],
)  # fmt: skip
def test_it_is_said_where_to_look_and_what_to_start_for_it(uri, said, monkeypatch):
    base = uri if uri.startswith("http") else "http://127.0.0.1:5000"
    monkeypatch.setattr(watching, "share_view", lambda *_: f"{base}/#/")
    client = SimpleNamespace(tracking_uri=uri)
    assert watch(client, None, SearchConfig(space={}), parse_space({"tile": 64})) == said


@pytest.mark.parametrize(
    ("against", "columns"),
    [(None, ()), ("parameters", ("parameters",)), ("inference_seconds", ("cv/inference_seconds_mean",))],
)
def test_a_cost_that_is_searched_to_be_low_is_a_column(against, columns, monkeypatch):
    monkeypatch.setattr(watching, "share_view", lambda *given: given)
    given = watching.share(None, None, SearchConfig(space={}, against=against), [])
    assert (given[2], given[-1]) == ("cv/dice", columns)
