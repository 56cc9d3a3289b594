"""Two objectives, repeats, a budget and a warm start, through the command line; nothing is simulated."""

import csv
from pathlib import Path

import pytest
import yaml
from optuna import load_study

from microseg.data.synthetic import write_demo
from microseg.report import find_study, view
from microseg.tracking import tree

pytestmark = pytest.mark.slow  # some 20 worker processes with TensorFlow

SPACE = {
    "trials": 2,
    "folds": 2,
    "against": "parameters",
    "start_with": [{"model": {"name": "unet", "params": {"filters": 6}}}],
    "constraints": [
        {"when": {"tile": 64}, "need": {"model/params/filters": {"max": 6}}, "reason": "too wide"}
    ],
    "replicates": 1,
    "finalists": 2,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": {"int_uniform": [4, 8]}}},
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [5e-3, 2e-2]}}},
        "augment": {"name": "none"},
        "tile": {"choice": [32, 64]},
        "epochs": 3,
        "steps_per_epoch": 10,
    },
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in):
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    write_demo(desk.folder / "cells", images=12, sessions=8)
    (desk.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    desk.output = desk.run(
        "search", "--data", "cells", "--space", "space.yaml", "--study", "first", "--concurrency", "2"
    )
    return desk


@pytest.fixture(scope="module")
def study(desk):
    return view(desk.client, find_study(desk.client, "first"))


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_the_known_good_configuration_is_the_first_and_the_constraint_holds(study):
    params = {row.name: row.params for row in study.rows}
    assert params["trial-000"]["model/params/filters"] == "6"
    assert all(p["tile"] == "32" or int(p["model/params/filters"]) <= 6 for p in params.values())


def test_both_objectives_reach_optuna_and_the_front_is_shown(desk, study):
    stored = load_study(
        study_name="first", storage=f"sqlite:///{desk.folder}/.microseg/studies/first/optuna.db"
    )
    assert [direction.name for direction in stored.directions] == ["MAXIMIZE", "MINIMIZE"]
    costs = {trial.number: trial.values[1] for trial in stored.trials if trial.values}
    rows = {int(row.name.split("-")[1]): row for row in study.rows if row.rank}
    assert costs.keys() == rows.keys() and all(
        rows[n].costs["parameters"] == cost for n, cost in costs.items()
    )
    assert study.front and "parameters" in desk.output
    board = Path(desk.client.download_artifacts(study.run.info.run_id, "leaderboard.csv"))
    marked = {row["trial"] for row in table(board) if row["pareto"] == "True"}
    assert marked == set(study.front)


def test_the_finalists_were_trained_again_with_another_seed(desk, study):
    best = [row.name for row in study.rows if row.rank and row.rank <= 2]
    assert {row.replicate_of for row in study.replicates} == set(best)
    for row in study.replicates:
        assert len(row.scores) == 2 and row.params["seed"] == "1000"
    assert "trial" not in {
        run.data.tags[tree.LEVEL] for run in map(desk.client.get_run, [r.run_id for r in study.replicates])
    }
    repeats = Path(desk.client.download_artifacts(study.run.info.run_id, "repeats.csv"))
    assert [row["trial"] for row in table(repeats)] == best


def test_the_report_shows_the_best_trial_out_of_fold(desk, study):
    page = Path(desk.client.download_artifacts(study.run.info.run_id, "report.html")).read_text()
    best = study.rows[0].name
    assert f"Worst, median and best images of {best}" in page and "data:image/jpeg;base64," in page
    assert f"Calibration and threshold of {best}" in page
    assert "images of a fold validate and" in page  # the test knows the real sizes


def test_a_budget_stops_the_study_and_more_hours_go_on(desk):
    arguments = ["search", "--study", "second", "--resume", "--hours"]
    changed = {
        key: value for key, value in SPACE.items() if key not in ("against", "replicates", "finalists")
    }
    (desk.folder / "second.yaml").write_text(yaml.safe_dump(changed))
    said = desk.run(
        "search", "--data", "cells", "--space", "second.yaml", "--study", "second", "--hours", "0.0001",
        "--warm-start", "first", code=2,
    )  # fmt: skip
    assert (
        "no trial of study 'second' has all folds" in said and "the budget of 0.0001 hours is spent" in said
    )
    assert "microseg search --study second --resume --hours H" in said
    done = view(desk.client, find_study(desk.client, "second"))
    assert {row.state for row in done.rows} <= {"interrupted"}
    output = desk.run(*arguments, "9")
    assert "candidate           models:/cells@candidate" in output
    first, second = (view(desk.client, find_study(desk.client, name)) for name in ("first", "second"))
    assert len(second.rows) == 2 and not [row for row in second.rows if row.state == "interrupted"]
    best = next(row for row in first.rows if row.rank == 1)
    again = next(row for row in second.rows if row.name == "trial-001")  # after the stated one
    rate = "optimizer/params/learning_rate"
    assert again.params[rate] == best.params[rate] or best.name == "trial-000"


def test_another_space_is_refused_and_the_same_one_is_not(desk, told):
    changed = SPACE | {"space": SPACE["space"] | {"epochs": 4}}
    (desk.folder / "other.yaml").write_text(yaml.safe_dump(changed))
    _, said = told(desk, "search", "--study", "first", "--resume", "--space", "other.yaml", code=2)
    assert "began with another space" in said
    output = desk.run("search", "--study", "first", "--resume", "--space", "space.yaml", "--data", "cells")
    assert "(version 1)" in output  # nothing was left to do, and nothing is registered twice
