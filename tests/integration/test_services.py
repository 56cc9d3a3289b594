"""What runs on sqlite and a folder runs, unchanged, on PostgreSQL, S3 and an MLflow server with users.

Anna, an analyst, searches; Lea, who leads, promotes; their passwords, and those of the servers, are nowhere.
"""

import base64
import json
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from services import ObjectStore, TrackingServer, tiny_space

pytestmark = pytest.mark.slow

WRONG = secrets.token_hex(12)  # a mistyped password

# What a server of predictions does with the champion: load it from the registry, with the code beside it.
SERVED = """
import base64, json, sys, mlflow
model = mlflow.pyfunc.load_model("models:/cells@champion")
print(json.dumps(len(model.predict([{"image": sys.stdin.read()}])[0].mask)))
"""


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory):
    """A server of this file's own: its secret is like no other text."""
    server = ObjectStore(tmp_path_factory.mktemp("s3"), secrets.token_hex(12))
    server.start()
    yield server
    server.stop()


class Lab:
    """People, each with a desk of their own, and the servers they share."""

    def __init__(self, folder: Path, servers, desk_in) -> None:
        self.tracking, self.postgres, self.store = servers
        self.folder, self._desk_in = folder, desk_in
        self.ray = tempfile.TemporaryDirectory(prefix="ray")  # its sockets take short names only
        self.trials = self.postgres.database("optuna")
        self.said: list[str] = []
        self.seen: set[str] = set()
        self.passwords = {name: secrets.token_hex(12) for name in ("anna", "lea")}
        people = {name: self.tracking.user(name, word) for name, word in self.passwords.items()}
        self.anna, self.lea = (self._desk(name, variables) for name, variables in people.items())

    def _desk(self, name, variables):
        (self.folder / name).mkdir()
        desk = self._desk_in(self.folder / name)
        desk.env |= self.store.variables | variables
        desk.env |= {"MICROSEG_OPTUNA_URL": self.trials, "RAY_TMPDIR": self.ray.name}
        return desk

    def run(self, desk, *arguments):
        """Run a command, look at the list of processes meanwhile, and keep all that is said."""
        process = desk.start(*arguments)
        while process.poll() is None and arguments[0] == "search":
            self.seen |= titles()
            time.sleep(0.3)
        out, err = process.communicate(timeout=480)
        self.said += [out, err]
        assert process.returncode == 0, out + err
        return out.strip()

    def grant(self, kind, name):
        given = {"resource_type": kind, "resource_id": name, "permission": "EDIT"}
        self.tracking.ask("POST", "3.0/mlflow/users/permissions/grant", username="lea", **given)

    @property
    def known(self):
        servers = self.tracking.password, self.postgres.password, self.store.secret
        return [*self.passwords.values(), *servers]


def titles():
    """Return the command lines of all processes."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory, auth_server: TrackingServer, postgres, s3_server, desk_in):
    """A study of Anna's on images in S3; nobody has promoted anything."""
    lab = Lab(tmp_path_factory.mktemp("lab"), (auth_server, postgres, s3_server), desk_in)
    lab.run(lab.anna, "demo-data", "cells", "--images", "24", "--sessions", "12")
    bucket, client = s3_server.bucket("lab").removeprefix("s3://"), s3_server.client()
    for file in (lab.anna.folder / "cells").rglob("*.*"):
        client.upload_file(str(file), bucket, file.relative_to(lab.anna.folder).as_posix())
    (lab.anna.folder / "space.yaml").write_text(yaml.safe_dump(tiny_space(trials=1, holdout=0.5)))
    with_password = lab.tracking.address.replace("://", f"://anna:{lab.passwords['anna']}@")
    del lab.anna.env["MLFLOW_TRACKING_USERNAME"], lab.anna.env["MLFLOW_TRACKING_PASSWORD"]
    lab.anna.env["MLFLOW_TRACKING_URI"] = with_password
    lab.run(lab.anna, "search", "--data", "s3://lab/cells", "--space", "space.yaml", "--study", "first")
    yield lab
    lab.ray.cleanup()


@pytest.fixture
def admin(lab, monkeypatch) -> MlflowClient:
    """A client of who runs the server."""
    for name, value in lab.tracking.variables().items():
        monkeypatch.setenv(name, value)
    return MlflowClient()


@pytest.fixture
def told(lab, told):
    """Return a function that calls a command in this process, as somebody at their desk, where it is refused."""

    def call(desk, *arguments, **variables):
        said = told(desk, *arguments, code=2, **variables)
        lab.said += said
        return said[1].strip()

    return call


def test_trials_are_in_postgresql_and_networks_in_s3(lab, admin):
    with lab.postgres.connect("optuna") as database:
        rows = database.execute("SELECT study_name, state FROM trials NATURAL JOIN studies").fetchall()
    assert [state for _, state in rows] == ["COMPLETE"]
    assert all(re.fullmatch(r"first [0-9a-f]{12}", name) for name, _ in rows)
    assert not list(lab.anna.folder.rglob("optuna.db")) and not list(lab.anna.folder.rglob("mlflow.db"))
    networks = [key for key in lab.store.keys("mlflow") if "/models/m-" in key and key.endswith(".keras")]
    assert len(networks) == 2  # the candidate's, of all folds


def test_a_study_goes_on_and_its_report_is_written(lab):
    said = lab.run(lab.anna, "search", "--study", "first", "--resume")
    assert "1 trial: 1 with all folds" in said
    lab.run(lab.anna, "report", "first", "--output", "report.html")
    assert "trial-000" in (lab.anna.folder / "report.html").read_text()


def test_who_may_not_promote_is_told_in_one_line_and_uses_no_hold_out(lab, told, admin):
    refused = (
        f"microseg: user 'lea' may not change %s on {lab.tracking.address}; "
        "ask its owner or whoever runs the server for the permission EDIT"
    )
    promote = "promote", "--model", "cells"
    assert told(lab.lea, *promote) == refused % "the registered model 'cells'"
    forced = told(lab.lea, *promote, "--force", "--why", "for the test")
    assert forced == refused % "the registered model 'cells'"
    lab.grant("registered_model", "cells")
    assert told(lab.lea, *promote) == refused % "the experiment 'microseg'"
    assert not list(lab.lea.folder.rglob("*.uses"))
    with pytest.raises(MlflowException):
        admin.get_model_version_by_alias("cells", "champion")
    version = admin.get_model_version_by_alias("cells", "candidate")
    assert not [tag for tag in version.tags if tag.startswith("microseg.decision")]


def test_a_search_for_a_model_that_may_not_be_changed_trains_nothing(lab, told, admin):
    admin.create_registered_model("lea-only")
    given = "--data", "s3://lab/cells", "--space", "space.yaml", "--study", "second", "--model", "lea-only"
    said = told(lab.anna, "search", *given)
    assert said.startswith("microseg: user 'anna' may not change the registered model 'lea-only'")
    assert not (lab.anna.folder / ".microseg/studies/second/study.json").exists()


def test_who_may_now_promotes_and_the_champion_is_served_and_predicts_from_s3_to_s3(lab, admin):
    lab.grant("experiment", admin.get_experiment_by_name("microseg").experiment_id)
    process = lab.lea.start("promote", "--model", "cells")
    out, err = process.communicate(timeout=480)
    lab.said += [out, err]
    assert process.returncode in (0, 1) and "Gain in dice" in out, out + err  # as few epochs have it
    assert "champion" in lab.run(lab.lea, "promote", "--model", "cells", "--force", "--why", "for the test")
    assert admin.get_model_version_by_alias("cells", "champion").version == "1"

    image = next((lab.anna.folder / "cells/images").iterdir()).read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", SERVED], input=base64.b64encode(image).decode(), env=lab.lea.env,
        cwd=lab.lea.folder, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    lab.said += [done.stdout, done.stderr]
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])

    given = (
        "--model",
        "models:/cells@champion",
        "--input",
        "s3://lab/cells/images",
        "--output",
        "s3://lab/out",
    )
    assert "wrote 24 masks to s3://lab/out" in lab.run(lab.anna, "predict", *given)
    assert len([key for key in lab.store.keys("lab", "out/") if key.endswith(".png")]) == 24


def url(lab, **changes):
    """Return the address of the trials with another password or port."""
    return lab.trials.replace(
        f":{lab.postgres.port}/", f":{changes.get('port', lab.postgres.port)}/"
    ).replace(lab.postgres.password, changes.get("password", lab.postgres.password))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"MICROSEG_OPTUNA_URL": {"password": WRONG}}, "password authentication failed for user"),
        ({"MICROSEG_OPTUNA_URL": {"port": 1}}, "optuna on 127.0.0.1:1, which cannot be used"),
        (
            {"MLFLOW_TRACKING_URI": f"http://anna:{WRONG}@127.0.0.1:1"},
            "MLflow store http://127.0.0.1:1 does not",
        ),
        ({"MLFLOW_TRACKING_URI": f"http://anna:{WRONG}@{{}}"}, "does not let 'anna' in; set MLFLOW_TR"),
        (
            {"AWS_SECRET_ACCESS_KEY": WRONG},
            "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
        ),
        ({"MLFLOW_S3_ENDPOINT_URL": f"http://anna:{WRONG}@127.0.0.1:1"}, "127.0.0.1 cannot be used"),
    ],
)
def test_a_server_that_refuses_or_is_away_is_one_line_and_nothing_is_begun(lab, told, variables, words):
    ((name, value),) = variables.items()
    host = lab.tracking.address.removeprefix("http://")
    value = url(lab, **value) if isinstance(value, dict) else value.format(host)
    given = "--data", "s3://lab/cells", "--space", "space.yaml", "--study", "third"
    said = told(lab.anna, "search", *given, **{name: value})
    lines = [line for line in said.splitlines() if line.startswith("microseg: ")]
    assert len(lines) == 1 and words in lines[0], said
    assert "Traceback" not in said
    assert not (lab.anna.folder / ".microseg/studies/third/study.json").exists()


def test_a_bucket_that_is_not_there_is_one_line(lab, told):
    given = "--data", "s3://no-such-bucket/x", "--space", "space.yaml", "--study", "third"
    said = told(lab.anna, "search", *given)
    assert "s3://no-such-bucket/x: no such bucket" in said


def rows(lab, database):
    """Yield every row of a database as text."""
    with lab.postgres.connect(database) as server:
        names = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in names:
            for (row,) in server.execute(f'SELECT t::text FROM "{table}" t').fetchall():
                yield f"{database}.{table}", row.encode()


def places(lab):
    """Yield all that a study leaves anywhere, and what it is: the file, table or object."""
    yield from ((f"output {number}", text.encode()) for number, text in enumerate(lab.said))
    yield from ((f"process {title.split(' ')[0]}", title.encode()) for title in lab.seen)
    for root in (lab.folder, Path(lab.ray.name)):
        yield from ((str(file), file.read_bytes()) for file in root.rglob("*") if file.is_file())
    for server in (lab.tracking, lab.store, lab.postgres):
        yield str(server.log), server.log.read_bytes()
    for database in ("mlflow", "mlflow-users", "optuna"):
        yield from rows(lab, database)
    client = lab.store.client()
    for bucket in ("lab", "mlflow"):
        for key in lab.store.keys(bucket):
            yield f"{bucket}/{key}", client.get_object(Bucket=bucket, Key=key)["Body"].read()


def leaks(lab):
    """Return where a password stands; also one that was wrong, for a mistyped one is nearly the right one."""
    texts = list(places(lab))
    for kind in ("output", "process", str(lab.folder), lab.ray.name, "mlflow.", "optuna.", "mlflow/"):
        assert any(place.startswith(kind) for place, _ in texts), f"nothing of {kind} was looked at"
    return {place for place, text in texts for secret in [*lab.known, WRONG] if secret.encode() in text}


def test_no_password_is_in_outputs_files_databases_objects_logs_or_processes(lab):
    assert not leaks(lab)
