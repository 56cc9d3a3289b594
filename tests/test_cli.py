"""The command line: quick, and one clear line with exit code 2 for whatever a user gets wrong."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from microseg.data.options import DataOptions


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "microseg", *arguments], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize("module", ["microseg", "microseg.cli"])
def test_importing_the_package_loads_no_framework(module):
    heavy = ["tensorflow", "keras", "ray", "mlflow", "optuna", "albumentations", "boto3", "pandas"]
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_field_of_the_data_options_is_an_option_with_its_description(called):
    code, out, _ = called("search", "--help")
    assert code == 0
    for name, field in DataOptions.model_fields.items():
        assert f"--{name.replace('_', '-')}" in out
        assert field.description.split()[0] in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "--resume"], "--resume needs the name of the study; add --study NAME"),
        (["search", "--resume", "--study", "s", "--data", "d"], "there is no study 's'"),
        (["search", "--space", "missing.yaml"], "missing.yaml: no such file"),
        (["search", "--hours", "-1"], "budget.hours: "),
        (["search", "--resume", "--study", "nobody"], "there is no study 'nobody'"),
        (["search", "--space", "none.yaml"], "none.yaml: no such file"),
        (["search", "--data", "nowhere", "--study", "x"], "nowhere"),
        (["search", "--folds", "many"], "folds"),
        (["search", "--study", "a/b", "--data", "."], "study name 'a/b': use letters"),
        (["crossval", "--config", "none.yaml"], "none.yaml: no such file"),
        (["data", "inspect", "nowhere"], "nowhere"),
        (["data", "inspect", ".", "--axes", "XQ"], "axes"),
        (
            ["data", "inspect", ".", "--mask-kind", "blobs"],
            "mask_kind: Input should be 'binary', 'instance' or 'classes'",
        ),
        (["promote", "--model", "m", "--version", "two"], "version 'two' is no number"),
        (["promote", "--model", "m", "--force"], '--force and --why go together: --force --why "the reason'),
        (["promote", "--model", "m", "--why", "because"], "--force and --why go together"),
        (["promote", "--model", "m", "--least", "-1"], "'--least'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(called, tmp_path, arguments, said):
    code, _, err = called(*arguments)
    assert code == 2
    assert said in err
    assert err.startswith("microseg: ") and err.count("\n") == 1
    assert not list(tmp_path.rglob("study.json"))


def test_standard_error_holds_nothing_but_the_one_line(tmp_path):
    """TensorFlow writes to the file descriptor when it is imported, before any log level counts."""
    done = run("search", "--space", "none.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "microseg: none.yaml: no such file; give the path of a YAML file\n"


def test_demo_data_can_be_inspected_audited_and_written_as_a_manifest(called, tmp_path):
    assert called("demo-data", "cells", "--images", "8", "--sessions", "4")[0] == 0
    code, out, _ = called("data", "inspect", "cells")
    assert code == 0 and "instance" in out and "8" in out
    assert called("data", "audit", "cells")[0] == 0
    assert called("data", "manifest", "cells", "--output", "cells.yaml")[0] == 0
    assert called("data", "inspect", "cells.yaml")[1].splitlines()[1:] == out.splitlines()[1:]


def test_demo_data_never_writes_into_a_folder_that_exists(called, tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "mine.txt").write_text("kept")
    code, _, err = called("demo-data", "cells")
    assert code == 2 and "cells" in err
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, EOFError])
def test_an_interruption_is_a_line_and_a_code_of_its_own(called, monkeypatch, stop):
    """Typer itself ends without a word at Ctrl-C."""

    def stopped(*given, **options):
        raise stop

    monkeypatch.setattr("microseg.data.synthetic.write_demo", stopped)
    code, _, said = called("demo-data", "cells")
    assert (code, said.strip()) == (130, "microseg: interrupted")


@pytest.mark.parametrize("kind", ["mlflow", "requests"])
def test_a_service_that_stays_away_during_a_study_is_one_line(called, monkeypatch, tmp_path, kind):
    import requests
    from mlflow.exceptions import MlflowException

    from microseg.cli import studies

    text = "API request failed: too many 500 error responses\n\nTraceback: a page of it"
    error = MlflowException(text) if kind == "mlflow" else requests.exceptions.RetryError(text)

    def search(request, console):
        raise error

    monkeypatch.setattr(studies, "_studies", lambda: SimpleNamespace(Request=SimpleNamespace, search=search))
    code, _, err = called("search", "--data", str(tmp_path), "--study", "first")
    assert code == 2 and err.count("\n") == 1
    assert "fails (API request failed: too many 500 error responses)" in err
    assert err.endswith("once it is back: microseg search --study first --resume\n")
