"""`microseg bench` on this machine, from the command to its file."""

import json
import os
import subprocess
import sys

import pytest

from microseg.bench.run import Bench


def command(*options, home):
    return subprocess.run(
        [sys.executable, "-m", "microseg", "bench", *options],
        capture_output=True, text=True, cwd=home, env=environment(home),
    )  # fmt: skip


def environment(home):
    return os.environ | {"MICROSEG_HOME": str(home / "home"), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/m.db"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--space", "absent.yaml"], "absent.yaml: no such file"),
        (["--data", "absent"], "absent: no such file or folder"),
        (["--folds", "0"], "folds must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line_before_anything_is(options, said, tmp_path):
    ended = command(*options, home=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert said in ended.stderr


@pytest.mark.slow
def test_the_machine_is_measured_and_the_figures_fit_together(tmp_path):
    ended = command("--quick", "--json", "bench.json", home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    found = Bench.model_validate(json.loads((tmp_path / "bench.json").read_text()))
    for name, rate, operations in (
        ("training", found.training, 3 * found.gflop),
        ("prediction", found.prediction, found.gflop),
    ):
        assert 0 < rate.platform.low <= rate.platform.median <= rate.platform.high, name
        assert rate.share.low <= rate.share.median <= rate.share.high, name
        assert rate.gflops == pytest.approx(operations * rate.platform.median)
        assert rate.peak == pytest.approx(rate.gflops / found.product.median)
    assert sum(found.start.values()) == pytest.approx(found.start_seconds)
    assert min(found.start.values()) > 0
    assert found.projection.searched <= found.projection.whole
    for told in ("this machine", "training, augmented", "tiled prediction", "every fold of every trial"):
        assert told in ended.stdout
