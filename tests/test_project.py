"""The project's own files agree with each other and with the design."""

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from microseg import cli
from microseg.config import SearchConfig, parse

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))


def set_up_lines() -> list[str]:
    return re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)


def test_two_lines_set_everything_up_and_ci_runs_them_as_printed():
    main_job, tests = set_up_lines()
    assert "mlflow run . -e search --env-manager local" in main_job
    assert tests.endswith("pytest")
    assert all("-c constraints.txt" in line for line in (main_job, tests))
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for name, pattern in re.findall(r"^(\w+)=\$\(grep -m1 '(.*)' README.md\)$", script, re.MULTILINE):
        found = subprocess.run(
            ["grep", "-m1", pattern, "README.md"], cwd=ROOT, capture_output=True, text=True
        ).stdout
        assert found.strip() == {"main_job": main_job, "test_line": tests}[name]
        assert f'bash -euo pipefail -c "${name}"' in script


def test_every_dependency_is_pinned_and_the_environment_of_mlflow_has_the_same_pins():
    pins = {name.lower().replace("_", "-"): version for name, version in PINS.items()}
    extras = PYPROJECT["project"]["optional-dependencies"]
    wanted = PYPROJECT["project"]["dependencies"] + extras["test"] + extras["dev"]
    names = {re.match(r"[\w.-]+", text)[0].lower() for text in wanted} - {"microseg"}
    assert not names - set(pins)
    environment = yaml.safe_load((ROOT / "python_env.yaml").read_text(encoding="utf-8"))
    listed = dict(
        re.match(r"([\w.-]+)(?:\[.*\])?==(.+)", text).groups() for text in environment["dependencies"]
    )
    direct = {re.match(r"[\w.-]+", text)[0] for text in PYPROJECT["project"]["dependencies"]}
    assert set(listed) == direct
    assert all(pins[name.lower()] == version for name, version in listed.items())


def test_what_is_imported_is_declared():
    """What another package happens to bring along today may be gone tomorrow."""
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "platform").rglob("*.py"))
    imported = set(
        re.findall(r"^\s*(?:import|from) (\w+)[\w.]*(?: as \w+)?(?:$| import )", sources, re.MULTILINE)
    )
    owners = metadata.packages_distributions()
    packages = {
        name: {owner.lower().replace("_", "-") for owner in owners[name]} for name in imported & owners.keys()
    }
    declared = {re.match(r"[\w.-]+", text)[0].lower() for text in PYPROJECT["project"]["dependencies"]}
    declared |= {"microseg", "botocore"}  # boto3 is made of it, and raises its errors
    assert len(packages) > 20
    assert {name for name, owned in packages.items() if not owned & declared} == set()


def test_the_constraints_name_versions_and_no_host():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text and "@" not in text


def test_every_dependency_says_which_file_needs_it():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("dependencies = [")[1].split("\n]")[0]
    lines = [line for line in block.splitlines() if line.strip().startswith('"')]
    assert all("#" in line for line in lines)


def test_entry_points_use_options_that_exist():
    assert set(MLPROJECT["entry_points"]) == {
        "search",
        "crossval",
        "promote",
        "predict",
        "serve",
        "export",
        "report",
        "import-results",
        "score",
        "reproduce",
    }
    commands = {
        command.name or command.callback.__name__: command.callback for command in cli.app.registered_commands
    }
    for name, entry in MLPROJECT["entry_points"].items():
        import inspect

        options = {f"--{option.replace('_', '-')}" for option in inspect.signature(commands[name]).parameters}
        used = set(re.findall(r"--[a-z-]+", entry["command"]))
        assert used <= options
        assert set(re.findall(r"\{(\w+)\}", entry["command"])) == set(entry["parameters"])


def test_the_readme_names_only_options_and_spaces_that_exist():
    for space in set(re.findall(r"search_spaces/[\w/]+\.yaml", README)):
        assert (ROOT / space).is_file()
    for entry in re.search(r"-e (search[|\w-]+)`", README)[1].split("|"):
        assert entry in MLPROJECT["entry_points"]


def test_the_yaml_of_the_readme_is_a_search():
    search, options = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    parse(SearchConfig, search, "README")
    parse(SearchConfig, options | {"space": search["space"]}, "README")


def test_nothing_shadows_the_standard_librarys_platform():
    import platform

    assert not (ROOT / "platform" / "__init__.py").exists()
    assert platform.system()


@pytest.mark.parametrize("word", ["eval(", "exec(", "pickle.load"])
def test_the_package_runs_no_text_as_code(word):
    found = [
        file
        for file in (ROOT / "platform").rglob("*.py")
        if re.search(rf"(?<![.\w]){re.escape(word)}", file.read_text())
    ]
    assert not found
