"""The scripts of tests/benchmarks that depend on what the machine has, on small things."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import page
import pytest

SCRIPTS = Path(page.__file__).parent


def script(*arguments):
    command = [sys.executable, SCRIPTS / arguments[0], *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, cwd=SCRIPTS)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_without_a_gpu_its_script_skips_with_a_line():
    ended = script("gpu.py")
    assert (ended.returncode, ended.stdout.count("\n")) == (0, 1)
    assert ended.stdout.startswith("skipped: nvidia-smi names no CUDA GPU")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_another_backend_trains_and_predicts_the_same_network(tmp_path):
    sizes = ["--depth=2", "--filters=4", "--tile=64", "--batch=2", "--turn=0.2", "--precisions", "float32"]
    ended = script("gpu.py", "--device=cpu", "--backends", "jax", *sizes, f"--json={tmp_path}/gpu.json")
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert (row["backend"], row["precision"], row["xla"]) == ("jax", "float32", True)
    assert min(*row["training"], *row["prediction"], row["peak"]) > 0


def test_a_page_keeps_the_parts_that_were_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "section", lambda name, _: f"## {page.PARTS[name].title}\n\nrun {next(runs)}\n")
    written, runs = tmp_path / "page.md", iter(range(9))
    for only in (["gpu", "steps"], ["gpu"]):
        monkeypatch.setattr(
            sys, "argv", ["page.py", f"--workdir={tmp_path}", f"--page={written}", "--only", *only]
        )
        page.main()
    known = page.sections(written)
    assert list(known) == ["steps", "gpu"]
    assert "run 1" in known["steps"] and "run 2" in known["gpu"]


@pytest.mark.parametrize("name", page.PARTS)
def test_every_part_of_the_page_is_a_script_that_writes_its_figures(name):
    first, *_ = page.PARTS[name].command
    if first != "-m":
        assert "--json" in (SCRIPTS / first).read_text()
