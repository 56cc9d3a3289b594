"""A real model server, asked over HTTP: the same mask as the batch way, and clear refusals."""

import base64
import json
import struct
import threading
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg.data.images import read_labels, write_image
from microseg.errors import MicrosegError
from microseg.serving.batch import predict_folder
from microseg.serving.client import Client
from microseg.serving.request import encode_npy, encode_png

PIXELS = 20_000


@pytest.fixture(scope="module")
def images(image, tmp_path_factory):
    """A folder with an image, and a link that leads out of it."""
    folder = tmp_path_factory.mktemp("images")
    write_image(folder / "in" / "a.png", image)
    (folder / "secret.png").write_bytes((folder / "in" / "a.png").read_bytes())
    (folder / "in" / "link.png").symlink_to(folder / "secret.png")
    return folder / "in"


@pytest.fixture(scope="module")
def server(model_server, images):
    with model_server(MICROSEG_SERVING_PIXELS=str(PIXELS), MICROSEG_SERVING_ROOTS=images.as_uri()) as running:
        yield running


@pytest.fixture(scope="module")
def expected(images, registered, store_of_registered, tmp_path_factory):
    """The mask of the batch way."""
    target = tmp_path_factory.mktemp("masks")
    with store_of_registered():
        predict_folder("models:/cells@champion", str(images / "a.png"), str(target))
    return read_labels(target / "a.png")


def post(address, body):
    """Return the status and the decoded answer."""
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_server_answers_every_way_of_asking_as_the_batch_way_does(server, image, images, expected):
    client = Client(server.address)
    for source in (images / "a.png", image, (images / "a.png").as_uri()):
        found = client.segment(source, probability=True, instances=True, table=True)
        assert_array_equal(found.mask, expected)
        assert_array_equal(found.probability[..., 0] >= 0.5, expected == 255)
        assert_array_equal(found.instances > 0, expected == 255)
        assert len(found.table) == found.instances.max()
        assert (found.model, found.version, found.warnings) == ("cells", "1", ())
    body = {"inputs": [{"tensor": image.tolist(), "dtype": "uint8", "format": "npy"}]}
    status, answer = post(server.address, json.dumps(body).encode())
    assert status == 200
    mask = base64.b64decode(answer["predictions"][0]["mask"])
    assert mask.startswith(b"\x93NUMPY")


def bomb(side):
    """A PNG of a few hundred bytes that announces an image of that side."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


def test_bad_requests_are_refused_in_one_sentence_and_the_worker_lives(server, image, images):
    secret = images.parent / "secret.png"
    bad = {
        "not a PNG, TIFF or JPEG": {"image": base64.b64encode(b"garbage" * 200).decode()},
        "not valid base64": {"image": "?" * 1000},
        "image with 3 channel(s); the model 'cells' takes 1": {
            "image": encode_png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
        },
        "none of them zero": {"tensor": [[[]]]},
        "NaN": {"image": encode_npy(np.full((40, 40), np.nan, np.float32))},
        f"more than {PIXELS} pixels in one request": {"image": encode_npy(np.zeros((200, 200), np.uint8))},
        "the most that this server answers (MICROSEG_SERVING_PIXELS)": {"image": bomb(50_000)},
        "outside the folders": {"uri": secret.as_uri()},
        "lies outside the folders": {"uri": (images / "link.png").as_uri()},
        "the address lies outside": {"uri": f"{images.as_uri()}/../secret.png"},
        "give file:///... or s3://...": {"uri": "http://169.254.169.254/latest/meta-data"},
        "unknown key 'picture'": {"picture": "x" * 1000},
        "image: Input should be text": {"image": [1] * 1000},
    }
    before = server.memory().keys()
    for words, fields in bad.items():
        status, answer = post(server.address, json.dumps({"inputs": [fields]}).encode())
        assert status == 400
        assert answer["message"].startswith("image 1 of the request: ")
        assert words in answer["message"]
        # Nor a stack trace, nor the image again.
        assert "Traceback" not in json.dumps(answer) and len(json.dumps(answer)) < 700
    for body in (b"", b"no JSON", b"\xff\xfe", b"[]", b"{}", b'{"inputs": "x"}', b'{"inputs": [3]}'):
        assert post(server.address, body)[0] == 400  # MLflow's own refusals, before the model is asked
    assert Client(server.address).segment(image).version == "1"
    assert server.memory().keys() == before


def test_no_address_makes_the_server_ask_another_one(server):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()

        def log_message(self, *_):
            pass

    other = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=other.serve_forever, args=(0.01,))
    thread.start()
    try:
        for scheme in ("http", "https", "HTTP", "ftp", "file"):
            with pytest.raises(MicrosegError):
                Client(server.address).segment(f"{scheme}://127.0.0.1:{other.server_port}/a.png")
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert asked == []


@pytest.mark.slow
def test_500_requests_of_concurrent_clients_are_all_answered_in_flat_memory(server, image):
    """Two images in turn, so that an answer that went to the wrong client would be seen."""
    client = Client(server.address)
    images = (image, image[::-1])
    truths = [client.segment(each).mask for each in images]
    assert (truths[0] != truths[1]).any()

    def ask(number):
        found = client.segment(images[number % 2], instances=True, table=True)
        return bool((found.mask == truths[number % 2]).all())

    memory = []
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(ask, range(100))) == [True] * 100
            memory.append(sum(server.memory().values()))
    assert max(memory[1:]) < 1.1 * memory[0], memory
