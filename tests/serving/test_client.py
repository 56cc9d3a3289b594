"""The client: what it sends, what it makes of answers and of servers that fail. No model is loaded."""

import base64
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg.data.images import write_image
from microseg.errors import MicrosegError
from microseg.serving.client import Client
from microseg.serving.request import MaskResponse, decode, encode_npy, encode_png

MASK = np.array([[0, 255], [255, 0]], np.uint8)
LABELS = np.array([[0, 1], [700, 0]], np.uint16)


@pytest.fixture
def server():
    """A server that answers what a test puts into ``reply`` and keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, body = server.reply
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
    server.reply = (200, answer())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def answer(**fields):
    response = MaskResponse(mask=encode_png(MASK), model="cells", version="3", **fields)
    return json.dumps({"predictions": [response.model_dump()]}).encode()


def test_an_array_a_file_and_an_address_are_sent_each_in_its_field(server, tmp_path):
    image = np.arange(12, dtype=np.uint16).reshape(3, 4)
    write_image(tmp_path / "a.tif", image)
    client = Client(f"{server.url}/")
    for source in (image, tmp_path / "a.tif", str(tmp_path / "a.tif")):
        client.segment(source)
    client.segment("s3://lab/a.tif", pixel_size_um=0.5)
    *sent, last = (body["inputs"][0] for body in server.asked)
    for fields in sent:
        assert_array_equal(decode(fields["image"])[..., 0], image)
    assert base64.b64decode(sent[1]["image"]) == (tmp_path / "a.tif").read_bytes()
    assert last == {"uri": "s3://lab/a.tif", "pixel_size_um": 0.5}


def test_arrays_of_the_answer_have_their_number_types(server):
    probability = np.random.default_rng(0).random((2, 2, 1), np.float32)
    server.reply = (200, answer(
        instances=encode_png(LABELS), probability=encode_npy(probability), table=[{"label": 1.0}], warnings=["dark"]
    ))  # fmt: skip
    found = Client(server.url).segment(MASK, instances=True, probability=True, table=True)
    assert (found.mask.dtype, found.instances.dtype) == (np.uint8, np.uint16)
    assert_array_equal(found.mask, MASK)
    assert_array_equal(found.instances, LABELS)
    assert_array_equal(found.probability, probability)
    assert found[3:] == ([{"label": 1.0}], "cells", "3", ("dark",))


def test_what_was_not_asked_for_is_none(server):
    found = Client(server.url).segment(MASK)
    assert (found.probability, found.instances, found.table, found.warnings) == (None, None, None, ())


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (
            400,
            b'{"error_code": "X", "message": "image 1 of the request: too dark"}',
            "1 of the request: too dark",
        ),
        (
            504,
            b"Request processing time exceeded limit",
            "status 504: Request processing time exceeded limit",
        ),
        (500, b"", "status 500: Internal Server Error"),
        (413, b"<html>\n<b>too large</b></html>", "status 413: <html> <b>too large"),
        (200, b"<html>", "no answer"),
    ],
)
def test_a_refusal_is_one_line(server, status, body, words):
    server.reply = (status, body)
    with pytest.raises(MicrosegError) as caught:
        Client(server.url).segment(MASK)
    assert str(caught.value).startswith(server.url)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_before_any_answer_are_one_line(server, tmp_path):
    with pytest.raises(MicrosegError, match="not a server's address"):
        Client("127.0.0.1:5001")
    with pytest.raises(MicrosegError, match=r"absent\.png"):
        Client(server.url).segment(tmp_path / "absent.png")
    with pytest.raises(MicrosegError, match=r"no answer .*check the address"):
        Client("http://127.0.0.1:9", timeout=5).segment(MASK)
    assert server.asked == []


def test_the_client_loads_neither_tensorflow_nor_mlflow():
    code = (
        "import sys, microseg.serving.client; "
        "print({'tensorflow', 'keras', 'mlflow', 'ray', 'boto3'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
