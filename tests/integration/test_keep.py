"""A study that keeps the best trial alone: it is tidied, goes on, and its model can still be promoted."""

import pytest
import yaml
from services import tiny_space

from microseg.data.synthetic import write_demo
from microseg.report import find_study, view
from microseg.tracking.fold import MODEL
from microseg.tracking.keeping import NETWORK, REMOVED

pytestmark = pytest.mark.slow

SPACE = tiny_space(
    optimizer={"name": "adam", "params": {"learning_rate": {"log_uniform": [1e-4, 2e-2]}}}, tile=64
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in):
    desk = desk_in(tmp_path_factory.mktemp("keep"))
    write_demo(desk.folder / "cells", images=12)
    (desk.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    desk.said = desk.run(
        "search", "--data", "cells", "--space", "space.yaml", "--study", "s", "--keep", "best"
    )
    return desk


def networks(desk):
    """The trials of which MLflow has networks, and those of which the study's folder has."""
    seen = view(desk.client, find_study(desk.client, "s"))
    kept = {
        row.name
        for row in seen.rows
        for fold in row.fold_runs
        if MODEL in (file.path for file in desk.client.list_artifacts(fold, NETWORK))
    }
    here = {path.parts[-3] for path in (desk.folder / ".microseg/studies/s").glob("*/fold-*/model.keras")}
    return seen, kept, here


def test_only_the_best_trial_keeps_its_networks_and_the_size_is_said(desk):
    seen, kept, here = networks(desk)
    assert kept == here == {seen.ranked[0].name}
    assert "keeps at most 2 networks, and pictures of the best trial (keep: best)" in desk.said
    assert "of networks, pictures and tables (keep: best), tracking store mlflow.db" in desk.said
    fold = desk.client.get_run(seen.ranked[1].fold_runs[0])
    assert fold.data.tags[REMOVED + NETWORK] == "keep: best"
    assert "result.json" in {file.path for file in desk.client.list_artifacts(fold.info.run_id)}


def test_it_goes_on_with_more_trials_and_another_policy_and_is_promoted(desk, told):
    before = networks(desk)[0].ranked[0].name
    desk.run("search", "--study", "s", "--resume", "--trials", "3", "--keep", "models")
    seen, kept, _ = networks(desk)
    assert {before, "trial-002"} <= kept  # of the other one nothing comes back
    assert len(seen.ranked) == 3
    assert not any(run.info.status == "RUNNING" for run in desk.client.search_runs(["1"]))
    said, _ = told(desk, "promote", "--model", "cells", "--force", "--why", "to see whether it loads")
    assert "champion" in said
