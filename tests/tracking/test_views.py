"""The views of MLflow's UI that a study prepares: what they show, in which order, and where they are listed."""

import json
import shutil
import subprocess

import pytest

from microseg.tracking import store, tree, views
from microseg.tracking.recorder import log_metrics
from microseg.tracking.views import NAMED, NOTE, RANK, SHARED, STUDIES, share_view


@pytest.fixture
def experiment(client, monkeypatch, request):
    """An experiment of its own, for its description and its views are what is looked at."""
    name = request.node.name
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client.create_experiment(name))
    return lambda: client.get_experiment_by_name(name)


def trial(client, study, number):
    return tree.open_trial(client, study, tree.trial_name(number), {}, number)


def state_of(experiment, key):
    return json.loads(json.loads(experiment().tags[SHARED + key])["state"])


def shared(client, study, *columns):
    return share_view(client, study, "cv/dice", *columns).split("viewStateShareKey=")[1]


def test_the_view_of_a_study_names_filter_order_and_columns(client, experiment):
    study = tree.open_study(client, "viewed")
    searched = ["loss/params/alpha", "model/params/depth"]
    state = state_of(experiment, shared(client, study, searched, searched[1:], ["parameters"]))
    assert state["selectedColumns"][:7] == [
        "metrics.`rank`", "tags.`mean CI95`", "tags.`microseg.state`", "tags.`cost`",
        "metrics.`parameters`", "params.`loss/params/alpha`", "params.`model/params/depth`",
    ]  # fmt: skip
    parallel, bars = state["compareRunCharts"]
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (
        ["model/params/depth"],  # a run that lacks one of them would not be drawn
        ["cv/dice_mean", "parameters"],
    )
    assert bars["metricKey"] == "cv/dice_mean"


def test_the_ranked_come_first_whatever_the_mean_over_fewer_folds(client, experiment):
    study = tree.open_study(client, "sorted")
    trials = [trial(client, study, number) for number in range(11)]
    for rank, one in enumerate(trials[1:], 1):
        log_metrics(client, one.run_id, {RANK: rank, "cv/dice_mean": 0.5})
    log_metrics(client, trials[0].run_id, {"cv/dice_mean": 0.9}, step=1)
    state = state_of(experiment, shared(client, study, []))
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([study.experiment_id], state["searchFilter"], order_by=[order])
    assert [run.info.run_id for run in found] == [one.run_id for one in [*trials[1:], trials[0]]]


def test_one_more_view_lists_the_studies_and_nothing_else(client, experiment):
    study = tree.open_study(client, "listed")
    trial(client, study, 0)
    shared(client, study, [])
    state = state_of(experiment, STUDIES)
    (found,) = client.search_runs([study.experiment_id], state["searchFilter"])
    assert found.info.run_id == study.run_id


def test_the_description_links_to_all_studies_and_to_the_newest(client, experiment):
    keys = {name: shared(client, tree.open_study(client, name), []) for name in ("a [1]", "b")}
    note, number = experiment().tags[NOTE], experiment().experiment_id
    page = f"#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey="
    assert (
        f"[all studies]({page}{STUDIES}) · [b]({page}{keys['b']}) · [a \\[1\\]]({page}{keys['a [1]']})"
        in note
    )


@pytest.mark.parametrize("edit", ["Nuclei of 2026, ask Ana", "{} ask Ana", "{}\n\nask Ana", "Ask Ana. {}"])
def test_a_description_that_somebody_wrote_or_added_to_stays(client, experiment, edit):
    shared(client, tree.open_study(client, "first"), [])
    note = edit.format(experiment().tags[NOTE])
    client.set_experiment_tag(experiment().experiment_id, NOTE, note)
    shared(client, tree.open_study(client, "second"), [])
    assert experiment().tags[NOTE] == note


def test_the_menu_keeps_room_and_older_links_still_open(client, experiment, monkeypatch):
    monkeypatch.setattr(views, "NAMED", 2)
    keys = [shared(client, tree.open_study(client, name), []) for name in "abc"]
    kept = {key: json.loads(experiment().tags[SHARED + key]) for key in keys}
    assert [kept[key].get("name") for key in keys] == [None, "b", "c"]
    assert kept[keys[0]]["searchFilter"].endswith("= 'a'")
    assert NAMED < 40  # with as many, MLflow lets nobody save another


@pytest.mark.slow
def test_mlflow_shows_the_description_the_named_view_and_the_interval(tracking_server, monkeypatch, tmp_path):
    """The format of views is no documented interface of MLflow: its own pages say whether they understand it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    server = tracking_server(tmp_path)
    try:
        client = store.connect(server.address)
        study = tree.open_study(client, "drawn")
        client.set_tag(trial(client, study, 0).run_id, views.INTERVAL, "0.8465 ± 0.0361")
        page = share_view(client, study, "cv/dice", [])
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        patience = ["--window-size=1900,900", "--virtual-time-budget=45000", "--timeout=50000"]
        command = [browser, *options, *patience, "--dump-dom", page]
        drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        server.kill()
    assert page.startswith(server.address)
    for text in ("all studies", "drawn", "trial-000", "0.8465 ± 0.0361"):
        assert text in drawn
    assert "Error loading shared view state" not in drawn
