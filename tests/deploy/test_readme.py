"""deploy/README.md: the lines that somebody copies work."""

import re
import subprocess
import warnings

import pytest


@pytest.fixture(scope="module")
def text(deploy) -> str:
    return (deploy / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lines(text) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_line_for_secrets_fills_every_one_differently(lines, deploy, variables, tmp_path):
    (line,) = (line for line in lines if "openssl" in line)
    (tmp_path / ".env.example").write_bytes((deploy / ".env.example").read_bytes())
    subprocess.run(["bash", "-euc", line], cwd=tmp_path, check=True)
    made = (tmp_path / ".env").read_text().splitlines()
    values = dict(entry.split("=", 1) for entry in made if entry and not entry.startswith("#"))
    secrets = [values[name] for name, value in variables.items() if not value]
    assert all(re.fullmatch("[0-9a-f]{64}", secret) for secret in secrets)
    assert len(set(secrets)) == len(secrets)
    assert {name: values[name] for name, value in variables.items() if value} == {
        name: value for name, value in variables.items() if value
    }
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


def test_services_profiles_and_files_are_there(text, lines, compose, deploy):
    services, profiles = (
        compose["services"],
        {p for s in compose["services"].values() for p in s.get("profiles", [])},
    )
    for line in (line for line in lines if line.startswith("docker compose")):
        assert set(re.findall(r"--profile (\w+)", line)) <= profiles
        run = re.search(r"(?:run --rm(?: --no-deps| --entrypoint \w+)*|exec) (\w[\w-]*)", line)
        assert run is None or run[1] in services, line
        stopped = re.search(r"stop (.*)", line)
        assert stopped is None or set(stopped[1].split()) <= set(services)
        # `stop` and `up` know the services without a profile, and those of a profile that is named
        named = set(re.findall(r"--profile (\w+)", line))
        for name in stopped[1].split() if stopped else []:
            assert set(services[name].get("profiles", [])) <= named, line
    for name in re.findall(r"\]\(([^)]+)\)", text):
        assert (deploy / name).exists(), name
    for name in re.findall(r"`((?:k8s|monitoring|services|slurm)/[\w./-]*)`", text):
        assert (deploy / name).exists(), name


def test_what_is_stopped_is_started_again(lines):
    stops = [number for number, line in enumerate(lines) if re.search(r"docker compose.* stop ", line)]
    assert len(stops) == 2  # restore, upgrade
    for number in stops:
        later = lines[number + 1 : number + 4]
        assert any(line == "docker compose up -d" for line in later), later


def test_commands_of_microseg_are_real(lines):
    from typer.main import get_command

    from microseg import cli

    known = get_command(cli.app).commands
    used = [re.search(r"(?:run --rm job|microseg) (\w+)(.*)", line) for line in lines]
    used = [found for found in used if found and found[1] in known]
    assert len(used) == 6
    for found in used:
        options = {option for parameter in known[found[1]].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z][a-z-]*", found[2].split("'")[0].split("#")[0])) <= options, found[0]


def test_every_variable_in_the_table_is_known_to_compose_or_the_script(text, compose, deploy):
    table = text.split("## Variables")[1].split("##")[0]
    names = set(re.findall(r"`([A-Z][A-Z0-9_]{5,})", table)) | {
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    }
    told = {name for service in compose["services"].values() for name in service.get("environment", {})}
    told |= set(re.findall(r"[A-Z_]{6,}", (deploy / "slurm/search.sbatch").read_text(encoding="utf-8")))
    assert names - told == set()


@pytest.mark.slow
def test_permissions_are_given_by_calls_that_mlflow_has(text):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow 3.17 with a newer starlette
        from mlflow.server.auth.client import AuthServiceClient

    calls = set(re.findall(r"^client\.(\w+)\(", text, re.MULTILINE))
    assert calls == {"create_user", "grant_user_permission"}
    assert calls <= set(dir(AuthServiceClient))


def test_it_says_what_was_run_and_what_was_not(text, deploy):
    table = text.split("## What was run")[1].split("\n## ")[0]
    for name in (
        "compose.yaml",
        "Dockerfile",
        "k8s/",
        "ray-cluster.yaml",
        "slurm/search.sbatch",
        "monitoring/",
    ):
        assert f"`{name}`" in table
    for name in re.findall(r"`tests/deploy/(\w+\.py)`", text):
        assert (deploy.parent / "tests" / "deploy" / name).is_file()
