"""Servers that are away, or fail now and then, while they are used: nothing is lost, nothing is there twice."""

import http.client
import http.server
import itertools
import os
import threading
import time

import pytest
from mlflow import MlflowClient

from microseg import storage
from microseg.report import find_study
from microseg.tracking import tree

pytestmark = pytest.mark.slow


def wait_for(there, process):
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in, auth_server, postgres, s3_server, unreliable):
    """A study that another process wants to run too, and during which each server is away for a minute.

    Its images are on S3, and so are the states of its trials, which fails now and then all the time.
    First S3 is, in the first epoch; then MLflow's server and PostgreSQL together.
    """
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    desk.env |= s3_server.variables | auth_server.variables()
    desk.env |= {"MICROSEG_STORE": "s3://lab/state", "MLFLOW_S3_ENDPOINT_URL": unreliable.address}
    desk.env["MICROSEG_OPTUNA_URL"] = postgres.database("optuna")
    words = ["s3://lab/cells" if word == "cells" else word for word in desk.begin()]
    for file in (desk.folder / "cells").rglob("*.*"):
        s3_server.client().upload_file(str(file), "lab", file.relative_to(desk.folder).as_posix())

    def kept(name: str) -> bool:
        return any(key.endswith(name) for key in s3_server.keys("lab", "state/"))

    process, study = desk.start(*words), desk.folder / ".microseg/studies/first"
    wait_for((study / "study.json").exists, process)
    other = desk.start("search", "--study", "first", "--resume")
    wait_for(lambda: kept("ready.json"), process)
    asked, began = unreliable.refused, time.monotonic()
    s3_server.stop()
    wait_for(lambda: unreliable.refused > asked, process)  # by the worker, to keep its first epoch
    time.sleep(max(0.0, began + 60 - time.monotonic()))
    s3_server.start()
    wait_for(lambda: kept("fold-0/result.json"), process)
    auth_server.stop()
    postgres.outage(60)
    auth_server.start()
    assert process.poll() is None, "the study was at its end before every server had been away"
    desk.said, desk.told = process.communicate(timeout=480), other.communicate(timeout=480)
    assert (process.returncode, other.returncode) == (0, 2), desk.said + desk.told
    return desk


@pytest.fixture
def client(auth_server, monkeypatch):
    for name, value in auth_server.variables().items():
        monkeypatch.setenv(name, value)
    return MlflowClient()


def test_a_study_outlives_every_server_being_away(desk, client, postgres):
    with postgres.connect("optuna") as database:
        states = database.execute("SELECT state FROM trials").fetchall()
    assert states == [("COMPLETE",)] * 2
    study = find_study(client, "first")
    runs = list(tree.search(client, study.info.experiment_id, "tags.`microseg.level` != 'study'"))
    expected = [f"trial-00{n}{fold}" for n in range(2) for fold in ("", "/fold-1", "/fold-2")]
    assert sorted(run.info.run_name for run in runs) == sorted(expected)
    assert {(run.info.status, run.data.tags[tree.STATE]) for run in runs} == {("FINISHED", "completed")}
    for run in runs:
        if "/" in run.info.run_name:
            history = client.get_metric_history(run.info.run_id, "val/dice")
            assert [point.step for point in history] == [1, 2]


def test_images_and_states_are_read_and_written_through_a_network_that_fails(desk, s3_server, unreliable):
    assert unreliable.failed >= 10
    copies = desk.folder.glob(".microseg/cache/remote/*/cells/**/*.tif")
    assert len(list(copies)) == len(list(desk.folder.glob("cells/**/*.tif"))) == 12
    assert s3_server.keys("lab", "state/") == []  # a study that has ended needs no states


def test_of_two_who_run_one_study_at_once_one_is_told(desk):
    assert "study 'first' is being run by another process; wait for its end" in desk.told[1]


class Unreliable(http.server.BaseHTTPRequestHandler):
    """Hands requests on to S3; of ten, one is slow, one answered with 503, and one broken off without a word."""

    protocol_version = "HTTP/1.1"
    count = itertools.count()
    failed = refused = 0
    address = behind = ""

    def hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        number = next(self.count) % 10
        if number in (3, 7):
            type(self).failed += 1
            self.close_connection = True
            if number == 3:
                self.answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        if number == 5:
            time.sleep(2)
        server = http.client.HTTPConnection(self.behind.removeprefix("http://"), timeout=30)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the signature is of the host that was asked
                server.putheader(name, value)
            server.endheaders(body)
            answer = server.getresponse()
            self.answer(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, http.client.HTTPException):  # it is away, or the client has gone
            type(self).refused += 1
            self.close_connection = True
        finally:
            server.close()

    def answer(self, status, headers, body) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = hand_on  # noqa: N815 - http.server's names


@pytest.fixture(scope="module")
def unreliable(s3_server):
    """S3 through a network that fails two requests in ten."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    Unreliable.behind, Unreliable.address = s3_server.endpoint, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    s3_server.bucket("lab")
    yield Unreliable
    server.shutdown()
    server.server_close()


def test_s3_that_fails_now_and_then_loses_nothing(unreliable, s3_server, tmp_path, monkeypatch):
    for name, value in (s3_server.variables | {"MLFLOW_S3_ENDPOINT_URL": unreliable.address}).items():
        monkeypatch.setenv(name, value)
    failed = unreliable.failed
    folder = tmp_path / "many.ome.zarr"
    (folder / "0").mkdir(parents=True)
    contents = {f"0/{number}": os.urandom(2000) for number in range(40)} | {"zarr.json": b"{}"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    storage.store_folder(folder, "s3://lab/unreliable/many.ome.zarr")
    back = storage.fetch_folder("s3://lab/unreliable/many.ome.zarr", tmp_path / "back")
    assert {name: (back / name).read_bytes() for name in contents} == contents
    assert len(s3_server.keys("lab", "unreliable/")) == len(contents)
    assert unreliable.failed >= failed + 10
