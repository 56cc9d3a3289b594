"""`mlflow run . -e ...`: every entry point, in the installed environment, as MLflow starts it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from microseg.data.synthetic import write_demo
from microseg.tracking import tree

pytestmark = pytest.mark.slow
CONFIG = {
    "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
    "optimizer": {"name": "adam", "params": {"learning_rate": 0.01}},
    "tile": 64, "epochs": 2, "steps_per_epoch": 4,
}  # fmt: skip
GROUPS = "^(session.)"  # an option that MLproject does not list


@pytest.fixture(scope="module")
def desk(tmp_path_factory, project):
    folder = tmp_path_factory.mktemp("desk")
    write_demo(folder / "cells", images=12, sessions=8)
    (folder / "best.yaml").write_text(yaml.safe_dump(CONFIG))
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MLFLOW_", "RAY_", "MICROSEG_"))
    }
    env |= {
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MICROSEG_HOME": str(folder / "home"),
    }

    def start(entry: str, **parameters: object) -> str:
        values = [part for name, value in parameters.items() for part in ("-P", f"{name}={value}")]
        command = ["mlflow", "run", str(project), "-e", entry, "--env-manager", "local", *values]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    start.folder, start.env = folder, env
    start.client = MlflowClient(env["MLFLOW_TRACKING_URI"])
    given = {"config": folder / "best.yaml", "data": folder / "cells", "study": "again", "folds": 2}
    start.output = start("crossval", **given, **{"group-regex": GROUPS})
    return start


def test_the_run_that_mlflow_made_is_the_studys_parent(desk):
    made = re.search(r"run with ID '(\w+)'|Run \(ID '(\w+)'\)", desk.output)
    run = desk.client.get_run(next(group for group in made.groups() if group))
    assert (run.info.run_name, run.info.status) == ("again", "FINISHED")
    (trial,) = tree.children(desk.client, run.info.experiment_id, run.info.run_id)
    assert trial.data.metrics["folds_done"] == 2


def test_resume_reopens_the_former_run(desk):
    desk("search", study="again", resume="true", trials=1)
    (pointing,) = desk.client.search_runs(["0"], f"tags.`{tree.RESUMES}` != ''")
    former = desk.client.get_run(pointing.data.tags[tree.RESUMES])
    assert (former.info.run_name, former.info.status, pointing.info.status) == (
        "again",
        "FINISHED",
        "FINISHED",
    )


def test_report_promote_predict_and_reproduce(desk):
    desk("report", study="again", output=desk.folder / "report.html")
    assert "trial-000" in (desk.folder / "report.html").read_text()
    desk("promote", model="cells", force="true", why="the demo data has too few groups to decide")
    desk(
        "predict",
        model="models:/cells@champion",
        input=desk.folder / "cells/images",
        output=desk.folder / "masks",
        instances="true",
    )
    assert len(list((desk.folder / "masks").glob("*.png"))) == 12
    assert (desk.folder / "masks/objects.csv").read_text().startswith("image,label,area_px")
    (fold, *_) = desk.client.search_runs(["0"], f"tags.`{tree.LEVEL}` = 'fold'")
    assert "val/dice was" in desk("reproduce", run_id=fold.info.run_id)


def test_results_and_masks_from_elsewhere(desk, told):
    table = desk.folder / "results.csv"
    table.write_text("architecture,fold1,fold2,fold3\nunet,0.81,0.83,0.85\nlinknet,0.80,0.84,0.79\n")
    output = desk("import-results", file=table, name="old", **{"id-column": "architecture"})
    assert "imported: study 'old' with 2 configurations, 2 with all 3 folds" in output
    output, _ = told(desk, "report", "old", "--output", "old.html")
    assert "linknet cannot be told apart from unet on this data" in output
    masks = {"truth": desk.folder / "cells", "prediction": desk.folder / "cells/masks"}
    assert re.search(r"dice +1\.0000", desk("score", name="colleague", **masks))
    options = [str(part) for name, value in masks.items() for part in (f"--{name}", value)]
    output, _ = told(desk, "score", *options, "--name", "again", "--against", "colleague")
    assert "This is a comparison, not a promotion" in output
    made = [run.info for run in desk.client.search_runs(["0"]) if run.info.run_name in ("old", "colleague")]
    assert sorted((run.run_name, run.status) for run in made) == [
        ("colleague", "FINISHED"),
        ("old", "FINISHED"),
    ]


def test_an_option_that_mlproject_does_not_list_is_handed_on(desk):
    state = json.loads((desk.folder / "home/studies/again/study.json").read_text())
    assert state["request"]["options"]["group_regex"] == GROUPS
    assert "models:/cells@candidate (version 1)" in desk.output
