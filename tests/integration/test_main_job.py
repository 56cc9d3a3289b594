"""The main job on synthetic cells: search, kill, resume, promote, serve, predict; nothing is simulated."""

import base64
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console
from services import free_ports

from microseg import runtime
from microseg import study as studies
from microseg.errors import MicrosegError
from microseg.report import find_study, view
from microseg.reproduction import reproduce
from microseg.study import provenance
from microseg.tracking import tree

SPACE = {
    "trials": 2,
    "folds": 2,
    "asha": {"grace": 2, "reduction": 3},
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": {"choice": [4, 6]}}},
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [5e-3, 2e-2]}}},
        "augment": {"name": "none"},
        "tile": 64,
        "epochs": 3,
        "steps_per_epoch": 6,
    },
}


def kill_when(process: subprocess.Popen[str], reached: Path) -> None:
    """Kill a process and all its children with SIGKILL, as a power failure would, once a file is there."""
    deadline = time.monotonic() + 180
    while not reached.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the search never got there"
        time.sleep(0.1)
    children = subprocess.run(
        ["pgrep", "-g", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert children


def begin(desk):
    """Write the data set and the space; return the arguments of a search."""
    desk.run("demo-data", "cells", "--images", "12", "--sessions", "8")
    (desk.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return "search", "--data", "cells", "--space", "space.yaml", "--study", "first"


def runs_of(desk):
    """Return all runs of the study, by name."""
    study = find_study(desk.client, "first")
    found = {study.info.run_name: study}
    for trial in tree.children(desk.client, study.info.experiment_id, study.info.run_id):
        found[trial.info.run_name] = trial
        for fold in tree.children(desk.client, study.info.experiment_id, trial.info.run_id):
            assert fold.info.run_name not in found, "a run was recorded twice"
            found[fold.info.run_name] = fold
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in):
    """A study that was searched to its end."""
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    desk.output = desk.run(*begin(desk))
    return desk


@pytest.fixture(scope="module")
def runs(desk):
    """All runs of the study, by name."""
    return runs_of(desk)


def test_every_run_of_a_search_is_recorded_once_and_has_ended(desk, runs):
    assert {name for name in runs if "/" not in name} == {"first", "trial-000", "trial-001"}
    assert {"trial-000/fold-1", "trial-000/fold-2"} <= set(runs)
    experiment = runs["first"].info.experiment_id
    assert len(desk.client.search_runs([experiment])) == len(runs)
    assert not [run for run in runs.values() if run.info.status == "RUNNING"]


@pytest.mark.slow  # a second search; search/test_interrupted_studies.py interrupts simulated ones everywhere
def test_resume_trains_no_finished_fold_again_and_records_nothing_twice(tmp_path, desk_in):
    desk = desk_in(tmp_path)
    process = desk.start(*begin(desk))
    fold = tmp_path / ".microseg/studies/first/trial-000/fold-0"
    kill_when(process, fold / "result.json")
    before = (fold / "model.keras").stat().st_mtime_ns
    desk.run("search", "--study", "first", "--resume")
    assert (fold / "model.keras").stat().st_mtime_ns == before
    test_every_run_of_a_search_is_recorded_once_and_has_ended(desk, runs_of(desk))


def test_a_fold_run_shows_how_the_mask_develops(desk, runs):
    fold = runs["trial-000/fold-1"]
    sections = {
        f"{part}/{name}"
        for part in ("train", "val")
        for name in ("loss", "dice", "iou", "mcc", "precision", "recall")
    }
    assert sections <= set(fold.data.metrics)
    assert {"final/dice", "final/mcc", "seconds", "best_epoch"} <= set(fold.data.metrics)
    history = desk.client.get_metric_history(fold.info.run_id, "val/dice")
    assert [point.step for point in history] == [1, 2, 3]
    assert [item.path for item in desk.client.list_artifacts(fold.info.run_id, "model")] == [
        "model/model.keras"
    ]
    pictures = [item.path for item in desk.client.list_artifacts(fold.info.run_id, "images")]
    steps = {path.split("+step+")[1].split("+")[0] for path in pictures if "+step+" in path}
    assert len(steps) >= 2


def test_a_trial_run_has_its_parameters_by_path_and_its_scores(runs):
    trial = runs["trial-000"]
    assert trial.data.params["model/params/filters"] in ("4", "6")
    assert float(trial.data.params["optimizer/params/learning_rate"]) > 0
    assert trial.data.params["loss/name"] == "bce_dice"
    folds = [runs[f"trial-000/fold-{number}"].data.metrics["final/dice"] for number in (1, 2)]
    assert trial.data.metrics["cv/dice_mean"] == pytest.approx(np.mean(folds))
    assert trial.data.metrics["cv/dice_std"] == pytest.approx(np.std(folds, ddof=1))
    assert (trial.data.tags[tree.STATE], trial.data.tags[tree.REASON]) == ("completed", "all folds")
    assert not runs["trial-000/fold-1"].data.params  # parallel coordinates stay clean


def test_a_trial_is_a_process_of_its_own_that_ends_with_it(runs):
    """TensorFlow never gives memory back."""
    workers = [runs[name].data.tags["microseg.worker"] for name in ("trial-000", "trial-001")]
    processes = [int(worker.split("process ")[1]) for worker in workers]
    assert len(set(processes)) == 2
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]


def test_the_parent_says_where_the_study_comes_from(desk, runs):
    parent = runs["first"]
    assert parent.info.status == "FINISHED"
    (dataset,) = parent.inputs.dataset_inputs
    assert dataset.dataset.name == "cells"
    assert parent.data.tags["microseg.digest"].startswith(dataset.dataset.digest)
    artifacts = {item.path for item in desk.client.list_artifacts(parent.info.run_id)}
    assert artifacts >= {
        "space.yaml",
        "provenance.json",
        "audit.json",
        "best.yaml",
        "leaderboard.csv",
        "report.html",
    }
    found = provenance.read(desk.client, parent.info.run_id)
    assert found.environment.packages["keras"] and found.environment.hardware["cpu"]


def test_no_search_sees_the_holdout(desk, runs):
    found = provenance.read(desk.client, runs["first"].info.run_id)
    (splits,) = (desk.folder / ".microseg/splits").glob("*.yaml")
    held = set(yaml.safe_load(splits.read_text())["holdout"])
    seen = {item.group for item in found.seen}
    assert held and not held & seen
    assert held | seen == set(found.manifest.groups)
    assert {item.group for item in found.manifest.items if item.name in found.holdout} == held


def test_the_search_ends_with_a_leaderboard_and_the_way_on(desk):
    text = desk.output
    assert "trial-000" in text and "selection scores" in text.lower()
    assert "models:/cells@candidate (version 1)" in text
    assert "microseg promote --model cells" in text
    assert "mlflow ui --backend-store-uri sqlite:///" in text
    board = view(desk.client, find_study(desk.client, "first"))
    best = yaml.safe_load((desk.folder / ".microseg/studies/first/best.yaml").read_text())
    assert str(best["model"]["params"]["filters"]) == board.rows[0].params["model/params/filters"]
    means = [row.mean for row in board.rows if row.rank]
    assert means == sorted(means, reverse=True)


def test_the_report_is_one_file_that_opens_offline(desk, told):
    told(desk, "report", "first", "--output", "report.html")
    page = (desk.folder / "report.html").read_text()
    assert "trial-000" in page and "<svg" in page and "selection scores" in page
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)|url\((?!#)|@import|<script""", page)


def ask(port: int, image: Path) -> np.ndarray:
    row = {"image": base64.b64encode(image.read_bytes()).decode()}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps({"inputs": [row]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (response,) = json.load(answer)["predictions"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(response["mask"]))))


@pytest.mark.slow  # serving, prediction and promotion each have tests of their own that train nothing
def test_the_promoted_model_serves_what_predict_writes(desk, told):
    undecided, _ = told(desk, "promote", "--model", "cells", code=1)
    assert "cells: cannot be decided with 2 groups; there is still no champion" in undecided
    forced, _ = told(desk, "promote", "--model", "cells", "--force", "--why", "two groups decide nothing")
    assert "version 1 is now champion" in forced
    uri = "models:/cells@champion"
    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        uri,
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    env = desk.env | {"MLFLOW_TRACKING_URI": f"sqlite:///{desk.folder}/mlflow.db"}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    server = subprocess.Popen(
        command, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        desk.run("predict", "--model", uri, "--input", "cells/images", "--output", "masks")
        images = sorted((desk.folder / "cells/images").iterdir())
        assert len(list((desk.folder / "masks").iterdir())) == len(images) == 12
        wait_for(port, server)
        for image in images[:3]:
            written = np.asarray(Image.open(desk.folder / "masks" / f"{image.stem}.png"))
            np.testing.assert_array_equal(ask(port, image), written)
            assert set(np.unique(written)) <= {0, 255}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    assert "no earlier champion" in told(desk, "rollback", "--model", "cells", code=2)[1]


def wait_for(port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the model server never answered")


@pytest.fixture
def here(desk, monkeypatch):
    """Work in the user's folder, in this process."""
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{desk.folder}/mlflow.db")


@pytest.mark.slow  # test_reproduction.py trains a fold again without Ray
def test_the_fold_of_a_search_can_be_trained_again(desk, runs):
    """The worker's number of threads is used again; with more than one, sums may differ in the last bits."""
    fold = runs["trial-000/fold-1"]
    threads = provenance.read_fold(desk.client, fold.info.run_id).environment.threads
    text = desk.run("reproduce", fold.info.run_id)
    assert text.startswith(f"trial-000/fold-1: val/dice was {fold.data.metrics['final/dice']:.4f}, is ")
    assert "threads" not in text
    if threads == 1 and not runtime.hardware()["gpus"]:
        assert "all weights are equal bit for bit" in text


def test_only_a_completed_fold_can_be_trained_again(here, runs):
    with pytest.raises(MicrosegError, match=r"is a trial \(completed\); give the run id of a completed fold"):
        reproduce(runs["trial-000"].info.run_id)
    with pytest.raises(MicrosegError, match="there is no run 'nonsense'"):
        reproduce("nonsense")


def test_one_changed_mask_pixel_is_noticed(here, runs):
    mask = sorted(Path("cells/masks").iterdir())[0]
    original = mask.read_bytes()
    labels = np.array(Image.open(mask))
    labels[0, 0] = 0 if labels[0, 0] else labels.max()
    Image.fromarray(labels).save(mask)
    try:
        with pytest.raises(MicrosegError, match="have changed since study 'first'"):
            reproduce(runs["trial-000/fold-1"].info.run_id)
        with pytest.raises(MicrosegError, match="the data set of study 'first' has changed since it began"):
            studies.resume(studies.read_state("first").request, False, Console(quiet=True))
    finally:
        mask.write_bytes(original)


def test_an_existing_study_is_not_overwritten(here):
    with pytest.raises(MicrosegError, match=r"study 'first' exists in .*; add --resume to go on"):
        studies.search(studies.read_state("first").request, Console(quiet=True))


def test_the_leaderboard_artifact_is_a_table(desk, runs):
    file = desk.client.download_artifacts(runs["first"].info.run_id, "leaderboard.csv")
    rows = list(csv.DictReader(Path(file).read_text().splitlines()))
    assert [row["trial"] for row in rows if row["rank"] == "1"]
    assert {"mean", "std", "fold 1", "fold 2", "optimizer/params/learning_rate"} <= set(rows[0])
