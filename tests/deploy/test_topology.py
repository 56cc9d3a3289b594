"""compose.yaml as local processes: its own command lines, environments and health checks, on free ports.

What differs is what a container brings: names of hosts, folders, PostgreSQL's image (`services.Postgres` runs the
same script of the first start), and ports of Ray and SeaweedFS that are fixed where each has an address of its own.
"""

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from services import Postgres, free_ports

from microseg.data.synthetic import write_demo

pytestmark = pytest.mark.slow

PORTS = {"postgres": 5432, "s3": 8333, "mlflow": 5000, "ray-head": 6379, "front": 5001}
SPACE = {
    "trials": 1,
    "folds": 2,
    "asha": None,
    "race": None,
    "space": {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "optimizer": {"name": "adam", "params": {"learning_rate": 0.01}},
        "tile": 64,
        "epochs": 1,
        "steps_per_epoch": 2,
    },
}


class Topology:
    """The services of compose.yaml on loopback; ``run`` is for those that end, ``start`` for the others."""

    def __init__(self, folder: Path, compose: dict, deploy: Path, postgres: Postgres) -> None:
        self.folder = folder
        self._services = compose["services"]
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True)) | {"postgres": postgres.port}
        self._postgres = postgres
        self._ran: list[subprocess.Popen[bytes]] = []
        self._paths = {
            "/data": folder / "objects",
            "/etc/mlflow/accounts.py": deploy / "services/accounts.py",
        }
        self._paths["/etc/mlflow/auth.ini"] = folder / "auth.ini"
        self._paths["/var/lib/microseg"] = folder / "home"
        (folder / "objects").mkdir()
        (folder / "auth.ini").write_text(self.here("mlflow", (deploy / "services/auth.ini").read_text()))

    def here(self, service: str, text: str) -> str:
        """Return a word of compose.yaml as it is on this machine."""
        for name, port in PORTS.items():
            text = text.replace(f"{name}:{port}", f"127.0.0.1:{self.ports[name]}")
        own = PORTS.get(service)
        if own:
            text = text.replace(f"127.0.0.1:{own}", f"127.0.0.1:{self.ports[service]}")
            text = re.sub(rf"port={own}\b", f"port={self.ports[service]}", text)
        return text.replace("0.0.0.0", "127.0.0.1")

    def words(self, service: str, words: list[str]) -> list[str]:
        """Return a command line of compose.yaml as it is here."""
        here = [self.here(service, word) for word in words]
        for path, place in self._paths.items():
            here = [re.sub(rf"(^|=){path}$", rf"\g<1>{place}", word) for word in here]
        return [*here, *self._more(service)]

    def _more(self, service: str) -> list[str]:
        """What a machine of its own would not have to be told."""
        if service == "s3":
            names = ("master.port", "volume.port", "filer.port")
            numbers = free_ports(len(names))
            return [f"-{name}={number}" for name, number in zip(names, numbers, strict=True)]
        if service.startswith("ray"):
            head = [f"--temp-dir={self.folder}", f"--ray-client-server-port={free_ports(1)[0]}"]
            return [*self.node, *(head if service == "ray-head" else ["--num-cpus=1"])]
        return []

    @property
    def node(self) -> list[str]:
        return [
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--dashboard-agent-listen-port={free_ports(1)[0]}",
        ]

    def environment(self, service: str) -> dict[str, str]:
        """Return the container's environment as it is here, and nothing of this process's but where programs are."""
        programs = Path(sys.executable).parent
        given = self._services[service].get("environment", {})
        told = {name: self.here(service, str(value)) for name, value in given.items()}
        for path, place in self._paths.items():
            told = {name: str(place) if value == path else value for name, value in told.items()}
        own = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(self.folder / "own"), "TMPDIR": "/tmp"}
        own |= {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "platform")}
        own |= {"MICROSEG_HOME": str(self.folder / "homes" / service), "RAY_worker_niceness": "0"}
        return own | {"MLFLOW_DISABLE_TELEMETRY": "true", "TOPOLOGY": f"{self.folder}/{service}"} | told

    def start(self, service: str) -> None:
        """Start a service and wait until its own health check passes; one that ends is started again.

        That is what ``restart: unless-stopped`` does: on a busy machine a node of Ray gives up when its agent
        has not answered after 15 s (ray 2.60, `NodeManager::WaitForDashboardAgentPorts`).
        """
        log = self.folder / f"{service}.log"
        for _ in range(4):
            with log.open("wb") as out:
                process = subprocess.Popen(
                    self.words(service, self._services[service]["command"]),
                    env=self.environment(service),
                    cwd=self.folder,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            self._ran.append(process)
            while process.poll() is None:
                # the health check of Ray's worker is that its head answers
                up = not service.startswith("ray") or "Ray runtime started" in log.read_text()
                if up and self.healthy(service):
                    return
                time.sleep(0.5)
            self._end(service)
        raise AssertionError(log.read_text()[-3000:])

    def healthy(self, service: str) -> bool:
        kind, *test = self._services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        test = [self.here(service, word) for word in test]
        done = subprocess.run(
            test, env=self.environment(service), capture_output=True, check=False, timeout=60
        )
        return done.returncode == 0

    def run(self, service: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a service that ends, and end with it what it left in the background, as its container would."""
        entry = self._services[service]
        words = [*entry.get("entrypoint", []), *(command or entry["command"])]
        words = [word.replace("ray start ", f"ray start {' '.join(self.node)} ") for word in words]
        with (
            (self.folder / f"{service}.out").open("w+") as out,
            (self.folder / f"{service}.err").open("w+") as err,
        ):
            done = subprocess.run(
                self.words(service, words),
                env=self.environment(service),
                cwd=self.folder,
                stdout=out,
                stderr=err,
                check=False,
                timeout=900,  # a minute or two on two quiet cores
            )
        self._end(service)
        said = [(self.folder / f"{service}.{kind}").read_text() for kind in ("out", "err")]
        return subprocess.CompletedProcess(done.args, done.returncode, *said)

    def command(self, *arguments: str) -> None:
        """Run a command that needs no cluster, with the environment of `job`."""
        command = [sys.executable, "-m", "microseg", *arguments]
        done = subprocess.run(
            command, env=self.environment("job"), cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        """End everything at once: half a minute less than to let each one end what it does."""
        for process in self._ran:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)
        self._end("")

    def _end(self, service: str) -> None:
        """End what is left of a service, or of all: only processes that were started here have the mark."""
        mark = f"TOPOLOGY={self.folder}/{service}".encode()
        deadline = time.monotonic() + 20
        while (left := marked(mark)) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)


def marked(mark: bytes) -> list[int]:
    """Return the processes whose environment has a variable that begins so."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if any(entry.startswith(mark) for entry in file.read_bytes().split(b"\0")):
                found.append(int(file.parent.name))
    return found


@pytest.fixture(scope="module")
def topology(compose, deploy):
    """Everything that `docker compose up` starts, in its order."""
    # short, because Ray puts sockets in it, whose paths may have 107 characters
    with (
        tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp") as folder,
        tempfile.TemporaryDirectory() as other,
    ):
        postgres = Postgres(Path(other))
        postgres.start()
        environment = {
            str(name): str(value) for name, value in compose["services"]["postgres"]["environment"].items()
        }
        reach = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGPASSWORD": postgres.password}
        script = ["sh", str(deploy / "services/databases.sh")]
        first = {"PATH": os.environ["PATH"]} | environment | reach | {"POSTGRES_USER": "lab"}
        subprocess.run(script, env=first, check=True)
        topology = Topology(Path(folder), compose, deploy, postgres)
        try:
            topology.start("s3")
            topology.bucket = topology.run("bucket")
            topology.start("mlflow")
            topology.accounts = topology.run("accounts")
            topology.start("ray-head")
            topology.start("ray-worker")
            yield topology
        finally:
            topology.stop()
            postgres.stop()


def test_everything_is_healthy_by_its_own_check(topology):
    assert topology.bucket.returncode == 0, topology.bucket.stderr
    assert topology.accounts.returncode == 0, topology.accounts.stderr
    for service in ("s3", "mlflow", "ray-head", "ray-worker"):
        assert topology.healthy(service), service


def test_accounts_and_bucket_are_made_once_and_asked_for_again_without_harm(topology):
    for service in ("accounts", "bucket"):
        again = topology.run(service)
        assert again.returncode == 0, again.stderr


def test_the_servers_ask_for_passwords(topology, filled, monkeypatch):
    address = topology.environment("job")["MLFLOW_TRACKING_URI"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{address}/api/2.0/mlflow/experiments/search", timeout=10)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "front")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", filled["FRONT_PASSWORD"])
    assert MlflowClient(address).search_experiments()
    store = topology.environment("job")["MLFLOW_S3_ENDPOINT_URL"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{store}/microseg", timeout=10)


@pytest.mark.parametrize(("page", "status"), [("mlflow.lab.example", 200), ("elsewhere.example", 403)])
def test_mlflows_page_behind_a_proxy_may_ask_and_no_other(topology, filled, page, status):
    """A browser says with each POST which page it is from."""
    address = topology.environment("job")["MLFLOW_TRACKING_URI"]
    token = base64.b64encode(f"analyst:{filled['ANALYST_PASSWORD']}".encode()).decode()
    headers = {"Host": "mlflow.lab.example", "Origin": f"https://{page}", "Content-Type": "application/json"}
    request = urllib.request.Request(
        f"{address}/ajax-api/2.0/mlflow/runs/search",
        data=b'{"experiment_ids": ["0"], "max_results": 1}',
        headers=headers | {"Authorization": f"Basic {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == status
    except urllib.error.HTTPError as error:
        assert error.code == status, error.read()


def test_purge_removes_what_was_deleted_from_the_database_and_the_bucket(
    topology, filled, compose, monkeypatch
):
    import boto3

    told = topology.environment("job")
    for name, value in told.items():
        if name.startswith(("MLFLOW_", "AWS_")):
            monkeypatch.setenv(name, value)
    client = MlflowClient(told["MLFLOW_TRACKING_URI"])
    run = client.create_run(client.create_experiment("to be purged"))
    client.log_text(run.info.run_id, "weights", "model.keras")
    client.delete_run(run.info.run_id)

    def kept() -> list[str]:
        store = boto3.client("s3", endpoint_url=told["MLFLOW_S3_ENDPOINT_URL"])
        keys = [entry["Key"] for entry in store.list_objects_v2(Bucket="microseg").get("Contents", [])]
        return [key for key in keys if run.info.run_id in key and not key.endswith("/")]

    command = compose["services"]["purge"]["command"]
    assert topology.run("purge").returncode == 0
    assert len(kept()) == 1  # it was deleted less than a month ago
    now = [word.replace("--older-than=30d", "--older-than=0d") for word in command]
    done = topology.run("purge", now)
    assert done.returncode == 0, done.stderr
    assert now != command and kept() == []
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", filled["MLFLOW_AUTH_ADMIN_PASSWORD"])
    with pytest.raises(MlflowException, match="not found"):
        client.get_run(run.info.run_id)


@pytest.fixture(scope="module")
def joined(topology):
    """Return a function that runs `job`; where a busy machine kept its node from joining, once more."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        for _ in range(4):
            done = topology.run("job", list(command))
            if (
                "ray/scripts/scripts.py" not in done.stderr
            ):  # the traceback of `ray start`: nothing has run yet
                break
        return done

    return run


def test_a_job_joins_the_cluster_and_studies_and_its_champion_is_served(topology, joined):
    write_demo(topology.folder / "cells", images=8, sessions=4)
    (topology.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    options = {"data": "cells", "space": "space.yaml"}
    paths = [word for name, file in options.items() for word in (f"--{name}", str(topology.folder / file))]
    done = joined("search", *paths, "--study", "first", "--model", "cells")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "models:/cells@candidate" in done.stdout
    topology.command("promote", "--model", "cells", "--force", "--why", "four sessions decide nothing")
    topology.start("front")
    with urllib.request.urlopen(f"http://127.0.0.1:{topology.ports['front']}/metrics", timeout=10) as answer:
        assert 'microseg_model_info{alias="champion",model="cells",version="1"} 1.0' in answer.read().decode()
