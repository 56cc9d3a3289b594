"""The tracking server is killed while a study runs, and away for a minute: the study goes on, nothing is double."""

import threading
import time

import pytest
import yaml

from microseg.report import find_study
from microseg.tracking import store, tree

pytestmark = pytest.mark.slow

SPACE = {
    "trials": 3,
    "folds": 2,
    "asha": None,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [5e-3, 2e-2]}}},
        "augment": {"name": "none"},
        "tile": 32,
        "epochs": 3,
        "steps_per_epoch": 10,
    },
}


def test_a_study_outlives_its_tracking_server(tmp_path, desk_in, tracking_server):
    desk = desk_in(tmp_path)
    desk.run("demo-data", "cells", "--images", "12", "--sessions", "8")
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (tmp_path / "server").mkdir()
    server = tracking_server(tmp_path / "server")
    try:
        desk.env["MLFLOW_TRACKING_URI"] = server.address
        process = desk.start("search", "--data", "cells", "--space", "space.yaml", "--study", "first")
        began = tmp_path / ".microseg/studies/first/trial-000/fold-0/result.json"
        while not began.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        outage = threading.Thread(target=server.outage)
        outage.start()
        out, err = process.communicate(timeout=480)
        outage.join()
        assert process.returncode == 0, out + err
        server.wait()
        check(store.connect(server.address))
    finally:
        server.kill()


def check(client) -> None:
    study = find_study(client, "first")
    runs = list(tree.search(client, study.info.experiment_id, "tags.`microseg.level` != 'study'"))
    names = [run.info.run_name for run in runs]
    assert sorted(names) == sorted(
        name for n in range(3) for name in (f"trial-00{n}", f"trial-00{n}/fold-1", f"trial-00{n}/fold-2")
    )
    assert {(run.info.status, run.data.tags[tree.STATE]) for run in runs} == {("FINISHED", "completed")}
    for run in runs:
        if "/" in run.info.run_name:
            history = client.get_metric_history(run.info.run_id, "val/dice")
            assert [point.step for point in history] == [1, 2, 3]
