"""compose.yaml: what compose would refuse, and what it would start but should not."""

import copy
import inspect
import re
import tomllib

import pytest
import yaml

ONCE = {"accounts", "backup", "bucket", "job", "purge"}  # they end; the others run
OWN = {"microseg", "microseg-services", "microseg-s3"}


def commands(service: dict) -> list[str]:
    """What a service runs, word by word."""
    return [*service.get("entrypoint", []), *service.get("command", [])]


def test_a_secret_left_empty_is_named_before_anything_starts(read, variables):
    secrets = [name for name, value in variables.items() if not value]
    assert len(secrets) == 10
    with pytest.raises(KeyError, match=r"set it in deploy/\.env"):
        read(variables)
    for left in secrets:
        values = {name: value or "given" for name, value in variables.items()} | {left: ""}
        with pytest.raises(KeyError, match=f"{left}: set it in deploy/.env"):
            read(values)


def test_every_variable_is_in_the_example_and_every_one_there_is_used(deploy, variables):
    text = (deploy / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) == set(variables)
    defaults = dict(re.findall(r"(?<!\$)\$\{(\w+):-([^}]*)\}", text))
    assert defaults == {name: value for name, value in variables.items() if value}


def test_services_are_contained_limited_and_started_again(compose):
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert ("healthcheck" in service) == (name not in ONCE), name
        assert service.get("user", "") or service["build"]["target"] in {"microseg", "services", "s3"}, name
        assert "privileged" not in service and "network_mode" not in service and "pid" not in service, name


def test_nothing_is_published_beyond_loopback_and_databases_have_no_way_out(compose):
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert compose["networks"]["backend"] == {"internal": True}
    for name, service in compose["services"].items():
        outside = [] if name in {"s3", "mlflow", "front", "prometheus"} else ["published"]
        assert service["networks"] == ["backend", "published"][: 2 - len(outside)], name


def test_images_have_versions_and_ours_is_the_projects(compose, project):
    version = tomllib.loads((project / "pyproject.toml").read_text())["project"]["version"]
    for name, service in compose["services"].items():
        image, _, tag = service["image"].rpartition(":")
        assert re.match(r"v?\d+\.\d+", tag), name
        if image in OWN:
            assert tag in {version, f"{version}-gpu"}, name
            accelerator = service["build"].get("args", {}).get("ACCELERATOR", "")
            assert tag.endswith("-gpu") == (accelerator == "gpu"), name


def test_nobody_waits_for_what_is_not_there_and_volumes_are_named(compose):
    services = compose["services"]
    used = set()
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            ends = other in ONCE
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name
            assert ends or "healthcheck" in services[other]
            assert "profiles" not in services[other], f"{name} waits for {other}, which may not be started"
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            used |= {source} if target and not source.startswith(".") else set()
    assert used == set(compose["volumes"])


def test_files_that_are_mounted_are_there_and_cannot_be_changed(compose, deploy):
    mounted = [
        volume
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert len(mounted) == 4
    for volume in mounted:
        source, _, mode = volume.split(":")
        assert (deploy / source).exists() and mode == "ro"


def test_no_command_line_or_address_holds_a_secret(compose, filled, variables):
    secrets = [filled[name] for name, value in variables.items() if not value]
    for name, service in compose["services"].items():
        shown = yaml.safe_dump([commands(service), service.get("healthcheck"), service.get("labels")])
        assert not [word for word in secrets if word in shown], name
        addresses = [value for value in service.get("environment", {}).values() if "://" in str(value)]
        assert not [value for value in addresses for word in secrets if word in value], name


def test_each_service_has_only_the_secrets_it_needs(compose, filled, variables):
    secrets = {filled[name]: name for name, value in variables.items() if not value}
    given = {
        name: {secrets[value] for value in service.get("environment", {}).values() if value in secrets}
        for name, service in compose["services"].items()
    }
    key = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    study = key | {"ANALYST_PASSWORD", "OPTUNA_DB_PASSWORD", "RAY_AUTH_TOKEN"}
    assert given == {
        "postgres": {"POSTGRES_PASSWORD", "MLFLOW_DB_PASSWORD", "OPTUNA_DB_PASSWORD"},
        "s3": key,
        "bucket": key,
        "mlflow": key
        | {"MLFLOW_DB_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"},
        "accounts": {"MLFLOW_AUTH_ADMIN_PASSWORD", "ANALYST_PASSWORD", "FRONT_PASSWORD"},
        "ray-head": {"RAY_AUTH_TOKEN"},
        "ray-worker": study,
        "ray-worker-gpu": study,
        "job": study,
        "front": {"FRONT_PASSWORD"},
        "backup": key | {"POSTGRES_PASSWORD"},
        "purge": {"MLFLOW_DB_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"},
        "prometheus": set(),
    }


def test_servers_that_face_others_are_started_with_their_locks(compose):
    services = compose["services"]
    mlflow = commands(services["mlflow"])
    assert "--app-name=basic-auth" in mlflow
    assert services["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "*" not in services["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    store = commands(services["s3"])
    assert {"-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"} <= set(store)  # the filer asks for no key
    assert {"-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"} <= set(store)
    for name in ("ray-head", "ray-worker", "ray-worker-gpu", "job"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token", name
    assert "--include-dashboard=false" in commands(services["ray-head"])


@pytest.mark.slow
def test_options_of_command_lines_exist(compose):
    """Those of mlflow, ray and microseg itself, as their own parsers know them."""
    from mlflow.cli import server
    from ray.scripts.scripts import healthcheck, start

    from microseg import cli

    def known(command) -> set[str]:
        return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}

    (serve,) = (entry.callback for entry in cli.app.registered_commands if entry.callback.__name__ == "serve")
    own = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}
    tables = {
        ("mlflow", "server"): known(server),
        ("ray", "start"): known(start),
        ("ray", "health-check"): known(healthcheck),
        ("microseg", "serve"): own,
    }
    checked = set()
    for service in compose["services"].values():
        for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])[1:]):
            options = tables.get(tuple(words[:2]))
            if options:
                checked.add(tuple(words[:2]))
                assert {word.split("=")[0] for word in words[2:] if word.startswith("--")} <= options
    assert checked == set(tables)


def test_what_microseg_is_told_it_knows(compose, project):
    sources = "".join(file.read_text(encoding="utf-8") for file in (project / "platform").rglob("*.py"))
    told = {name for service in compose["services"].values() for name in service.get("environment", {})}
    own = {name for name in told if name.startswith("MICROSEG_")}
    assert own
    assert not [name for name in own if name not in sources]


@pytest.mark.slow
def test_the_specification_of_compose_accepts_it_and_refuses_what_is_wrong(compose):
    from compose_spec import PyCompose

    PyCompose.from_yaml(yaml.safe_dump(compose)).validate()
    wrong = {
        ("services", "mlflow", "imagee"): "x",
        ("services", "mlflow", "networks"): ["nowhere"],
        ("services", "mlflow", "restart"): "sometimes",
        ("services", "mlflow", "depends_on", "postgres", "condition"): "service_ok",
    }
    for path, value in wrong.items():
        broken = copy.deepcopy(compose)
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(ValueError, match=str(path[-1]) if path[-1] == "imagee" else r"\w"):
            PyCompose.from_yaml(yaml.safe_dump(broken)).validate()
