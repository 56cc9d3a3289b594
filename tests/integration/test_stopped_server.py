"""Servers that stand still, as a machine that swaps: connections stay open, nothing is answered, nothing is lost.

What a client has given up and asked again, a server does twice once it goes on.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from services import tiny_space

from microseg.data.synthetic import write_demo
from microseg.report import find_study
from microseg.tracking import tree

pytestmark = pytest.mark.slow

SPACE = tiny_space(epochs=3)
TIMEOUT = 4  # seconds until MLflow's client asks again


@contextmanager
def standing_still(*servers) -> Iterator[None]:
    """Stop all processes of servers, those of PostgreSQL's sessions too; they go on at the end."""
    found = [one for server in servers for one in family(server.process.pid)]
    try:
        for process in found:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def family(process: int) -> list[int]:
    """Return a process and all that it has started, by their ids."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(one for child in children for one in family(int(child)))]


@pytest.fixture(scope="module")
def desk(tmp_path_factory, desk_in, auth_server, postgres, s3_server):
    """A desk with images, where all servers are used."""
    desk = desk_in(tmp_path_factory.mktemp("desk"))
    write_demo(desk.folder / "cells", images=8, sessions=8)
    (desk.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    desk.env |= s3_server.variables | auth_server.variables()
    desk.env |= {
        "MICROSEG_OPTUNA_URL": postgres.database("optuna"),
        "MICROSEG_STORE": s3_server.bucket("lab") + "/state",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT),
    }
    return desk


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("postgres", "MICROSEG_OPTUNA_URL names optuna on 127.0.0.1:", "(connection timeout expired)"),
        ("auth_server", "the MLflow store http://127.0.0.1:", "does not answer ("),
    ],
)
def test_a_study_is_not_begun_on_one_and_that_is_told_soon(desk, request, name, words, reason):
    began = time.monotonic()
    with standing_still(request.getfixturevalue(name)):
        said = desk.run("search", "--data", "cells", "--space", "space.yaml", "--study", "never", code=2)
    assert time.monotonic() - began < 60
    assert said.startswith(f"microseg: {words}") and said.count("\n") == 1 and reason in said


def test_a_study_outlives_each_of_them(desk, auth_server, postgres, s3_server, monkeypatch):
    """Longer than MLflow's client waits for an answer, and than PostgreSQL's for a connection."""
    process = desk.start("search", "--data", "cells", "--space", "space.yaml", "--study", "first")
    trial = desk.folder / ".microseg/studies/first/trial-000"

    def wait_for(key: str) -> None:
        while not any(found.endswith(key) for found in s3_server.keys("lab", "state/")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)

    wait_for("fold-0/result.json")  # now the run of the next fold is made
    with standing_still(postgres):
        time.sleep(15)
    for server in (auth_server, s3_server):
        with standing_still(server):
            time.sleep(3 * TIMEOUT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert not list(trial.glob("incidents.json"))

    with postgres.connect("optuna") as database:
        assert database.execute("SELECT state FROM trials").fetchall() == [("COMPLETE",)] * 2
    for name, value in auth_server.variables().items():
        monkeypatch.setenv(name, value)
    client = MlflowClient()
    study = find_study(client, "first")
    runs = list(tree.search(client, study.info.experiment_id, "tags.`microseg.level` != ''"))
    expected = [f"trial-00{n}{fold}" for n in range(2) for fold in ("", "/fold-1", "/fold-2")]
    assert sorted(run.info.run_name for run in runs) == sorted(["first", *expected])
    assert {(run.info.status, run.data.tags[tree.STATE]) for run in runs} == {("FINISHED", "completed")}
    for run in runs:
        if "/" in run.info.run_name:
            history = client.get_metric_history(run.info.run_id, "val/dice")
            assert [point.step for point in history] == [1, 2, 3]
    assert [version.version for version in client.search_model_versions()] == ["1"]
    assert s3_server.keys("lab", "state/") == []
