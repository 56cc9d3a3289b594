"""The model in the registry, and 'microseg serve' as a program: real servers, a real alias."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from numpy.testing import assert_array_equal

from microseg.errors import MicrosegError
from microseg.serving.client import Client
from microseg.serving.front import FrontOptions, launch
from microseg.serving.front.registered import RegisteredModel
from microseg.serving.packaging import log_candidate

THREADS = 3


@pytest.fixture
def model(registered):
    return RegisteredModel(FrontOptions(model="models:/cells@champion", seconds=2.5))


def test_the_alias_leads_to_a_version_or_to_none(model, registered):
    assert model.version() == "1"
    registered.client.delete_registered_model_alias("cells", "champion")
    assert model.version() is None
    registered.client.set_registered_model_alias("cells", "champion", "1")
    assert RegisteredModel(FrontOptions(model="models:/unknown@champion")).version() is None


@pytest.mark.parametrize(
    "failure",
    [
        MlflowException("API request to http://x failed\nwith a long tale", error_code=1),
        ConnectionError("refused"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
    ],
)
def test_a_registry_that_is_away_is_told_from_a_missing_alias(model, monkeypatch, failure):
    def fail(*_):
        raise failure

    monkeypatch.setattr(mlflow.MlflowClient, "get_registered_model", fail)
    with pytest.raises(MicrosegError, match="the registry does not answer") as caught:
        model.version()
    assert "\n" not in str(caught.value)


def test_the_stored_example_is_a_request(model):
    assert list(json.loads(model.example("1"))) == ["inputs"]
    with pytest.raises(
        MicrosegError, match=r"models:/cells/9: its serving_input_example.json cannot be fetched"
    ):
        model.example("9")


def test_the_command_serves_one_version_to_this_machine_alone(model, registered):
    command = " ".join(model.command("3", 4711))
    assert "microseg.serving.front.launch models:/cells/3 --env-manager local" in command
    assert "--host 127.0.0.1 --port 4711 --timeout 3" in command
    environment = model.environment()
    assert environment["MLFLOW_TRACKING_URI"] == registered.uri
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_what_is_served_is_rebuilt_by_the_code_that_is_installed(monkeypatch, tmp_path):
    asked, became = [], []
    monkeypatch.setattr(
        launch, "rebuild", lambda uri, folder: asked.append((uri, folder)) or tmp_path / "served"
    )
    monkeypatch.setattr(os, "execv", lambda program, command: became.append(command))
    monkeypatch.setattr(sys, "argv", ["launch", "models:/cells/3", "--port", "4711"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    launch.main()
    ((uri, folder),) = asked
    assert uri == "models:/cells/3" and folder.parent == tmp_path
    serve = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(tmp_path / "served")]
    assert became == [[*serve, "--port", "4711"]]


def test_a_version_that_cannot_be_rebuilt_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["launch", str(tmp_path / "absent")])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        launch.main()
    assert str(ended.value).startswith("microseg: ") and "\n" not in str(ended.value)


@pytest.fixture(scope="module")
def two_versions(registered, build, store_of_registered, tmp_path_factory):
    """A second version of 'cells', of other networks, with code planted beside it; the alias is back afterwards."""
    directory = build.save(
        tmp_path_factory.mktemp("second"), [build.network(7)], build.card(trial="trial-007")
    )
    with store_of_registered():
        made = log_candidate(
            build.card(trial="trial-007"), sorted(directory.glob("*.keras")), registered.run.info.run_id
        )
        stored = Path(
            registered.client.get_model_version("cells", str(made.version)).source.removeprefix("file://")
        )
    marker = tmp_path_factory.mktemp("planted") / "owned"
    for file in (stored / "pyfunc_model.py", stored / "code" / "microseg" / "__init__.py"):
        file.write_text(f"__import__('pathlib').Path({str(marker)!r}).touch()\n{file.read_text()}")
    yield str(made.version)
    assert not marker.exists()
    registered.client.set_registered_model_alias("cells", "champion", "1")


@pytest.fixture
def program(asked, registered, tmp_path):
    """'microseg serve' in a process of its own; afterwards it is killed, if it still runs."""
    with asked.free_port() as port:
        pass
    command = [sys.executable, "-m", "microseg", "serve", "--model", "models:/cells@champion"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": registered.uri, "TMPDIR": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[3] / "platform")
    with (tmp_path.parent / "serve.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--poll", "0.5"], env=environment, cwd=tmp_path, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        front = asked.Asked(port)
        front.process, front.log = process, Path(log.name)
        yield front
        process.kill()
        process.wait()


@pytest.mark.slow
def test_under_constant_load_a_promotion_and_a_rollback_lose_no_request(
    program, two_versions, registered, image, asked, tmp_path
):
    asked.wait_for(lambda: asked.listens(program.port), 60)
    asked.wait_for(lambda: program.send("GET", "/ping").status == 200, 120)
    client = Client(f"http://127.0.0.1:{program.port}")
    masks, failures, done = {}, [], threading.Event()

    def ask():
        while not done.wait(0.02):
            try:
                found = client.segment(image)
            except MicrosegError as error:
                failures.append(str(error))
            else:
                masks.setdefault(found.version, []).append(found.mask)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(THREADS):
            pool.submit(ask)
        try:
            for version in (two_versions, "1"):
                asked.wait_for(lambda: len(masks.get("1", [])) > 10, 60)
                registered.client.set_registered_model_alias("cells", "champion", version)
                asked.wait_for(
                    lambda now=version: program.send("GET", "/ping").headers["X-Microseg-Version"] == now, 180
                )
                asked.wait_for(lambda now=version: len(masks.get(now, [])) > 10, 60)
        finally:
            done.set()
    assert failures == []
    assert set(masks) == {"1", two_versions}
    for found in masks.values():
        assert all((mask == found[0]).all() for mask in found)
    assert (masks["1"][0] != masks[two_versions][0]).any()
    assert_array_equal(client.segment(image).mask, masks["1"][0])
    assert program.metric("microseg_switches_total") == 2

    with pytest.raises(MicrosegError, match=r"image 1 of the request: .*3 channel"):
        client.segment(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    deepest = b'{"inputs": [{"tensor": ' + b"[" * 190 + b"]" * 190 + b"}]}"  # that the front passes on
    long = json.dumps({"inputs": [{"image": "A" * 10**7, "dtype": "u" * 10**6}]}).encode()
    digits = b'{"inputs": [{"image": "x", "pixel_size_um": ' + b"9" * 4000 + b"}]}"
    odd = (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, deepest, long, digits)
    for body in (b"", b"no JSON", b"\xff\xfe", b"[]", b"{}", b'{"inputs": "x"}', b'{"inputs": [3]}', *odd):
        answer = program.send("POST", "/invocations", body, {"Content-Type": "application/json"})
        assert answer.status == 400 and set(answer.body) == {"error_code", "message"}
        assert len(answer.text) < 600
    assert_array_equal(client.segment(image).mask, masks["1"][0])

    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(30) == 0
    assert list(tmp_path.iterdir()) == []
    events = [json.loads(line)["event"] for line in program.log.read_text().splitlines()]
    assert events.count("drained") == 2
    assert [event for event in events if event not in ("request", "drained")] == [
        "listening", "alias_found", "serving", "serving", "serving", "stopping",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_front_leaves_no_model_server(program, asked, tmp_path):
    asked.wait_for(lambda: asked.listens(program.port), 60)
    (folder,) = asked.wait_for(lambda: list(tmp_path.glob("microseg-serve-*")), 60)
    program.process.kill()
    asked.wait_for(lambda: not folder.exists())
    found = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True).stdout
    assert found == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "cells"], "serve: model: give models:/NAME@ALIAS, such as models:/cells@champion"),
        (["--model", "models:/a@b", "--max-body", "big"], "serve: max_body"),
    ],
)
def test_mistakes_in_the_command_are_one_line(called, arguments, words, monkeypatch):
    monkeypatch.setattr("microseg.logs.configure", lambda _: None)  # pytest has its own
    monkeypatch.setattr("microseg.cli.serving._SETTINGS", {})  # this process goes on
    code, _, errors = called("serve", *arguments)
    assert code == 2
    assert words in errors and errors.count("\n") == 1
