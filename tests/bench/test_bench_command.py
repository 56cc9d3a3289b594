"""`microseg bench` on this machine, from the command to its file."""

import functools
import json

import pytest

from microseg.bench import run
from microseg.bench.networks import timed_config
from microseg.bench.run import Bench, Length
from microseg.cli import machine


@pytest.fixture
def bench(called, tmp_path, monkeypatch):
    """Return a function that calls the command in this process, which has its threads already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/m.db")
    monkeypatch.setattr(machine, "threads", lambda count: None)
    return functools.partial(called, "bench")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--space", "absent.yaml"], "absent.yaml: no such file"),
        (["--data", "absent"], "absent: no such file or folder"),
        (["--folds", "0"], "folds must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line_before_anything_is(options, said, bench):
    code, out, err = bench(*options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.slow
def test_the_machine_is_measured_and_the_figures_fit_together(bench, tmp_path, monkeypatch):
    """A network and turns so small that they take seconds; the search that is timed is the real one."""
    monkeypatch.setattr(run, "QUICK", Length(turn=0.05, turns=0.0, side=256, batch_size=2))
    monkeypatch.setattr(run, "timed_config", functools.partial(timed_config, tile=64, depth=2, filters=4))
    code, out, err = bench("--quick", "--json", "bench.json")
    assert (code, err) == (0, "")
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
        assert told in out
