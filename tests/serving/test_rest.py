"""A real model server, asked over HTTP: the same mask as the batch way, and clear refusals."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg.data.images import read_labels, write_image
from microseg.serving.batch import predict_folder
from microseg.serving.request import decode, encode_png


def free_port():
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def post(address, body):
    """Return the status and the decoded answer."""
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_ready(address, process, log):
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


@pytest.fixture(scope="module")
def address(registered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/cells@champion",
        "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": registered.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONPATH": "",  # the server knows the package from the model alone
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_server_answers_as_the_batch_way_does_and_survives_bad_requests(address, image, tmp_path):
    write_image(tmp_path / "in" / "a.png", image)
    predict_folder("models:/cells@champion", str(tmp_path / "in"), str(tmp_path / "out"))
    expected = read_labels(tmp_path / "out" / "a.png")
    good = {"inputs": [{"image": base64.b64encode((tmp_path / "in" / "a.png").read_bytes()).decode()}]}

    status, answer = post(address, good)
    assert status == 200
    (prediction,) = answer["predictions"]
    assert_array_equal(decode(prediction["mask"])[..., 0], expected)
    assert (prediction["model"], prediction["version"]) == ("cells", "1")

    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    bad = {
        "not a PNG, TIFF or JPEG": base64.b64encode(b"garbage" * 200).decode(),
        "not valid base64": "?" * 1000,
        "image with 3 channel(s); the model 'cells' takes 1": encode_png(noise),
    }
    for words, text in bad.items():
        status, answer = post(address, {"inputs": [{"image": text}]})
        assert status == 400
        assert answer["message"].startswith("image 1 of the request: ")
        assert words in answer["message"]
        assert text not in json.dumps(answer)  # nor a stack trace, nor the image again
        assert "Traceback" not in json.dumps(answer)

    status, _ = post(address, {"inputs": [{"picture": "x"}]})
    assert status == 400
    status, answer = post(
        address, {"inputs": [good["inputs"][0] | {"probability": True, "instances": True}] * 2}
    )
    assert status == 200
    for prediction in answer["predictions"]:
        assert_array_equal(decode(prediction["probability"])[..., 0] >= 0.5, expected == 255)
        assert_array_equal(decode(prediction["instances"])[..., 0] > 0, expected == 255)
