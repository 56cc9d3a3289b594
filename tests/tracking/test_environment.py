"""What a result was computed with: the checkout and its changes, packages, settings, threads."""

import subprocess
from importlib import metadata

import pytest

from microseg.tracking import environment as module
from microseg.tracking.environment import MOST_CHANGES, differences, environment, source


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one committed file; returns it and a function that calls git there."""

    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.write_text("value = 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    git("add", ".")
    git("commit", "-m", "first")
    return file, git


def test_a_clean_checkout_is_its_commit(checkout):
    file, _ = checkout
    found = source(file)
    assert len(found.commit) == 40
    assert (found.state, found.diff, found.untracked, found.cut) == ("clean", "", {}, False)


def test_uncommitted_changes_are_kept_staged_or_not_and_files_that_git_does_not_know(checkout):
    file, git = checkout
    file.write_text("value = 2\n")
    (file.parent / "staged.py").write_text("staged = True\n")
    git("add", "package/staged.py")
    (file.parent / "new.py").write_text("new = 'ä'\n")
    (file.parent / "ignored.py").write_text("secret = 1\n")
    (file.parent / "picture.png").write_bytes(b"\x89PNG")
    found = source(file)
    assert "-value = 1\n+value = 2" in found.diff and "+staged = True" in found.diff
    assert found.untracked == {"package/new.py": "new = 'ä'\n"}
    assert (found.state, found.cut) == ("modified", False)


def test_a_diff_brings_a_checkout_to_the_state_it_was_in(checkout, tmp_path):
    file, git = checkout
    file.write_text("value = 2\n")
    patch = tmp_path / "kept.patch"
    patch.write_text(source(file).diff)
    git("checkout", "--", "package/module.py")
    git("apply", str(patch))
    assert file.read_text() == "value = 2\n"


def test_what_is_kept_of_changes_is_bounded(checkout):
    file, _ = checkout
    (file.parent / "large.py").write_text("#" * MOST_CHANGES)
    (file.parent / "small.py").write_text("#\n")
    found = source(file)
    assert (set(found.untracked), found.cut) == ({"package/large.py"}, True)
    (file.parent / "large.py").write_text("#" * (MOST_CHANGES - 2))
    found = source(file)
    assert (set(found.untracked), found.cut) == ({"package/large.py", "package/small.py"}, False)
    file.write_text("line = 1\n" * MOST_CHANGES)
    found = source(file)
    assert (len(found.diff), found.untracked, found.cut) == (MOST_CHANGES, {}, True)


@pytest.mark.usefixtures("checkout")
def test_code_that_lies_in_the_checkout_of_another_project_is_of_none(tmp_path):
    installed = tmp_path / "venv" / "package" / "module.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("value = 1\n")
    assert source(installed) is None


def test_without_git_there_is_no_source(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert source(checkout[0]) is None


def test_every_installed_distribution_is_named_with_its_version():
    found = environment()
    for name in ("mlflow", "keras", "numpy", "pytest", "six"):
        assert found.packages[name] == metadata.version(name)
    assert list(found.packages) == sorted(found.packages)
    assert found.precision in ("float32", "mixed_bfloat16", "mixed_float16")
    assert environment("bfloat16").precision == "mixed_bfloat16"


def test_settings_that_change_results_are_kept_and_no_others(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = environment().settings
    assert found["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert not {"AWS_SECRET_ACCESS_KEY", "TF_CPP_MIN_LOG_LEVEL"} & found.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"microseg": "0" * 12}, [f"code of microseg {'1' * 12}, now {'0' * 12}"]),
        ({"threads": 2}, ["threads 1, now 2"]),
        ({"precision": "mixed_bfloat16"}, ["precision float32, now mixed_bfloat16"]),
        ({"packages": {"keras": "4.0", "six": "1"}}, ["keras 3.1, now 4.0"]),
        ({"packages": {"six": "1"}}, ["keras 3.1, now none"]),
        ({"packages": {"keras": "3.1", "six": "2"}}, ["1 other package"]),
        ({"packages": {"keras": "3.1", "new": "2", "newer": "2"}}, ["3 other packages"]),
        ({"settings": {"TF_DETERMINISTIC_OPS": "1"}}, ["TF_DETERMINISTIC_OPS none, now 1"]),
        ({"hardware": {"cpu": "A", "gpus": ["H200", "H200"]}}, ["gpus none, now H200, H200"]),
    ],
)
def test_what_differs_is_named(change, said):
    then = module.Environment(
        microseg="1" * 12,
        python="3.11.9",
        packages={"keras": "3.1", "six": "1"},
        settings={},
        hardware={"cpu": "A", "gpus": []},
        threads=1,
        precision="float32",
    )
    assert differences(then, then.model_copy(update=change)) == said
