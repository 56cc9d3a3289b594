"""Ctrl-C in a search: nothing is left running, and resuming goes on from the last epoch."""

import os
import signal
import time

import pytest
import yaml
from mlflow.tracking import MlflowClient

from microseg.data.synthetic import write_demo
from microseg.tracking import store, tree

pytestmark = pytest.mark.slow  # two starts of Ray and of TensorFlow

SPACE = {
    "trials": 1,
    "folds": 2,
    "asha": None,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "augment": {"name": "none"},
        "tile": 64,
        "epochs": 30,
        "patience": 30,
        "steps_per_epoch": 2,
    },
}


def runs(client: MlflowClient) -> dict:
    found = tree.search(client, client.get_experiment_by_name(store.EXPERIMENT).experiment_id, "")
    return {run.info.run_name: run for run in found}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in):
    """A study that was interrupted in its first fold, and what it said."""
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    write_demo(desk.folder / "cells", images=8, sessions=8)
    (desk.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    # A shell that starts something in the background lets it ignore the signal, and so its children.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = desk.start("search", "--data", "cells", "--space", "space.yaml", "--study", "first")
    signal.signal(signal.SIGINT, former)
    deadline = time.monotonic() + 240
    while not list(desk.folder.glob(".microseg/studies/first/trial-000/fold-0/checkpoint/checkpoint.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the search never got there"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the search
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    desk.said = err
    return desk


def test_it_says_how_to_go_on_and_nothing_else(desk):
    assert desk.said.splitlines()[-2:] == [
        "microseg: what is finished is kept; to go on: microseg search --study first --resume",
        "microseg: interrupted",
    ]
    assert "Traceback" not in desk.said


def test_what_ran_is_interrupted_and_resuming_ends_it(desk):
    """The two halves are one test: resuming changes what the first one looks at."""
    before = runs(desk.client)
    assert {run.info.status for run in before.values()} == {"KILLED"}
    assert {run.data.tags[tree.STATE] for run in before.values()} == {"interrupted"}
    desk.run("search", "--study", "first", "--resume")
    after = runs(desk.client)
    assert {name: run.info.run_id for name, run in after.items() if name in before} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert {run.data.tags[tree.STATE] for run in after.values()} == {"completed"}
    fold = after["trial-000/fold-1"].info.run_id
    steps = [point.step for point in desk.client.get_metric_history(fold, "val/dice")]
    assert steps == list(range(1, 31))
