"""The disk of a trial is full, really: a file system of a few blocks lies where its folder is."""

import subprocess

import pytest
import yaml

from microseg.data.synthetic import write_demo
from microseg.report import find_study
from microseg.tracking import tree

pytestmark = pytest.mark.slow

SPACE = {
    "trials": 2,
    "folds": 2,
    "asha": None,
    "race": None,
    "concurrency": 1,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "tile": 32,
        "epochs": 2,
        "steps_per_epoch": 2,
    },
}


@pytest.fixture
def small_disk():
    """Return a function that lays a file system of so many kB over a folder; it goes after the test."""
    laid = []

    def lay(folder, size):
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a file system")
        laid.append(folder)

    yield lay
    for folder in laid:
        subprocess.run(["umount", str(folder)], check=True)


def states(desk):
    study = find_study(desk.client, "full")
    found = tree.children(desk.client, study.info.experiment_id, study.info.run_id)
    return {run.info.run_name: run.data.tags[tree.STATE] for run in found}


def test_a_trial_whose_disk_is_full_ends_alone_and_says_so(desk_in, tmp_path, small_disk):
    desk = desk_in(tmp_path)
    write_demo(tmp_path / "cells", images=12, sessions=8)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    small_disk(tmp_path / ".microseg/studies/full/trial-000", 16)
    said = desk.run("search", "--data", "cells", "--space", "space.yaml", "--study", "full")
    assert states(desk) == {"trial-000": "failed", "trial-001": "completed"}
    assert "No space left on device" in said
    assert "Traceback" not in said
