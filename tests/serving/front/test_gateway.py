"""What clients of the front see: limits, short errors, headers, metrics and the log."""

import io
import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from microseg.config import parse
from microseg.errors import MicrosegError
from microseg.logs import JsonLines
from microseg.serving.client import Client
from microseg.serving.front import FrontOptions
from microseg.serving.front.metrics import KINDS, OTHER, kind_of
from microseg.serving.unlike import Appearance, Interval, Look, differences, scale_difference

MOST = 20_000
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def front(asked, front_of):
    with front_of(asked.Stored(), max_body=MOST, seconds=1.0) as running:
        running.serving("1")
        yield running


def refusal(answer):
    """Return what a refusal says, once it is clear that it is one line and nothing else."""
    assert set(answer.body) == {"error_code", "message"}
    assert b"\n" not in answer.text and len(answer.text) < 700
    return answer.body["message"]


def test_a_mask_comes_with_its_version_and_the_number_of_the_request(front):
    answer = front.send("POST", "/invocations", b"{}", JSON | {"X-Request-Id": "lab-7"})
    assert (answer.status, answer.headers["X-Microseg-Version"]) == (200, "1")
    assert answer.headers["X-Request-Id"] == "lab-7"
    assert answer.body["predictions"][0]["mask"] == "AAAA"
    others = {
        front.send("POST", "/invocations", b"{}", JSON | {"X-Request-Id": given}).headers["X-Request-Id"]
        for given in ("", "x" * 65, "a b")
    }
    assert len(others) == 3 and all(len(number) == 32 for number in others)


def test_what_a_model_server_says_of_itself_is_passed_on(front):
    assert front.send("GET", "/version").text == b"3.17.2"
    for path in ("/ping", "/health"):
        assert front.send("GET", path).status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "words"),
    [
        ("GET", "/invocations", {}, 405, "allowed: POST /invocations"),
        ("POST", "/ping", {}, 405, "GET /ping, /health, /version, /metrics"),
        ("GET", "/etc/passwd", {}, 404, "no such request"),
        ("POST", "/invocations", {"Content-Type": "text/csv"}, 415, "application/json"),
        ("POST", "/invocations", {"Content-Type": "application/json; charset=latin1"}, 415, "UTF-8"),
        ("POST", "/invocations", JSON | {"Content-Encoding": "gzip"}, 415, "without a Content-Encoding"),
        ("POST", "/invocations", {}, 415, "application/json"),
    ],
)
def test_other_requests_are_refused_in_a_line(front, method, path, headers, status, words):
    answer = front.send(method, path, b"{}" if method == "POST" else None, headers)
    assert answer.status == status
    assert words in refusal(answer)


def test_a_wrong_method_is_told_the_right_ones(front):
    assert front.send("GET", "/invocations").headers["Allow"] == "POST"
    assert front.send("DELETE", "/metrics").headers["Allow"] == "GET,HEAD"


def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not(front):
    body = b"{}".ljust(MOST)
    assert front.send("POST", "/invocations", body, JSON).status == 200
    for sent in (body + b" ", io.BytesIO(body + b" ")):  # the latter in chunks, of a length that nobody knows
        answer = front.send("POST", "/invocations", sent, JSON)
        assert answer.status == 413
        assert f"more than {MOST} bytes" in refusal(answer)


def test_a_body_that_is_too_large_is_refused_before_it_arrives(front):
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as raw:
        raw.sendall(head(f"Content-Length: {10**12}"))
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def head(*lines):
    return "\r\n".join(
        ["POST /invocations HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""]
    ).encode()


def test_a_body_that_does_not_arrive_is_given_up(front):
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as raw:
        raw.sendall(head("Content-Length: 10"))
        assert raw.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_goes_away_leaves_no_request_behind(front, asked, caplog):
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as raw:
        raw.sendall(head("Content-Length: 10"))
        asked.wait_for(lambda: front.metric("microseg_requests_in_flight") == 1)
    asked.wait_for(lambda: front.metric("microseg_requests_in_flight") == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


SECRET_TRACE = {"stack_trace": "Traceback ... /srv/models/secret.py"}


@pytest.mark.parametrize(
    ("status", "said", "answered", "words"),
    [
        (400, {"message": "image 2 of the request: unknown key 'x'"} | SECRET_TRACE, 400, "2 of the request: unknown"),
        (
            400,
            {"message": "image 1 of the request: /srv/a/b.tif: cannot be read (file:///lab/a.tif)"},
            400,
            "request: ...: cannot be read (file:///lab/a.tif)",
        ),
        (400, {"message": "Failed to enforce schema of data " + "iVBOR" * 500} | SECRET_TRACE, 400, "no request that"),
        (400, {"message": "image 1 of the request: " + "x" * 9000}, 400, "image 1 of"),
        (400, "no JSON", 400, '{"inputs": [{"image"'),
        (415, "This predictor only supports", 415, "application/json"),
        (500, {"message": "No such file: /srv/models/x"} | SECRET_TRACE, 502, "its operator finds"),
        (404, "Not Found", 502, "failed"),
        (504, "Request processing time exceeded limit", 504, "longer than this server waits"),
    ],
)  # fmt: skip
def test_errors_of_the_model_server_are_trimmed(front, events, status, said, answered, words):
    text = said if isinstance(said, str) else json.dumps(said)
    answer = front.post(status=status, text=text)
    assert answer.status == answered
    assert words in refusal(answer)
    assert "/srv" not in answer.text.decode() and "iVBOR" not in answer.text.decode()
    assert answer.headers["X-Microseg-Version"] == "1"
    assert bool(events("model_failed")) == (status >= 500)


def test_the_client_of_this_package_reads_the_refusals(front):
    client = Client(f"http://127.0.0.1:{front.port}")
    with pytest.raises(MicrosegError, match=f":{front.port}: the body has more than {MOST} bytes; cut the"):
        client.segment(np.zeros((300, 300), np.uint8))


def test_more_requests_than_places_are_refused(front_of, asked):
    with front_of(asked.Stored(), concurrency=1, queue=1) as front, ThreadPoolExecutor(2) as pool:
        front.serving("1")
        slow = [pool.submit(front.post, sleep=0.3) for _ in range(2)]
        asked.wait_for(lambda: front.metric("microseg_requests_in_flight") == 2)
        answer = front.post()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "2 requests are under way" in refusal(answer)
        for one in slow:  # the second waited for the first
            assert one.result().body["predictions"][0]["together"] == 1
        assert front.metric("microseg_requests_in_flight") == 0


def test_a_request_that_takes_too_long_is_given_up(front):
    answer = front.post(sleep=3)
    assert answer.status == 504
    assert "longer than this server waits" in refusal(answer)


def test_metrics_count_requests_bytes_time_and_warnings(front):
    names = (
        "received_bytes_total", "sent_bytes_total", "request_seconds_count", "request_seconds_sum",
        "images_total", "unlike_images_total",
    )  # fmt: skip

    def read():
        found = {name: front.metric(f"microseg_{name}") for name in names}
        found |= {
            kind: front.metric("microseg_warnings_total", kind=kind) for kind in (*KINDS.values(), OTHER)
        }
        return found | {
            status: front.metric("microseg_requests_total", status=status) or 0 for status in ("200", "415")
        }

    before = read()
    answer = front.post(
        warnings=["a pixel is 1 um wide", "the image is noisier", "the image is noisier"], sleep=0.1
    )
    front.send("POST", "/invocations", b"", {})
    front.send("GET", "/ping")  # is no request for a mask
    change = {name: value - before[name] for name, value in read().items()}
    assert change["sent_bytes_total"] > len(answer.text)  # and the refusal's
    assert change["received_bytes_total"] > 50
    assert (change["200"], change["415"], change["request_seconds_count"]) == (1, 1, 2)
    assert change["request_seconds_sum"] >= 0.1
    assert (change["images_total"], change["unlike_images_total"]) == (1, 1)  # in three ways
    assert {kind: change[kind] for kind in (*KINDS.values(), OTHER)} == {
        "intensity": 0, "blur": 0, "noise": 2, "pixel_size": 1, "other": 0,
    }  # fmt: skip
    assert front.metric("process_resident_memory_bytes") > 2**20


def test_every_sentence_about_unlike_images_has_a_kind():
    span = Interval(least=10.0, most=20.0)
    seen = Appearance(dark=span, bright=span, contrast=span, focus=span, images=3)
    like = {"dark": 10.0, "bright": 20.0, "contrast": 10.0, "focus": 15.0}
    looks = [like | {"bright": 900.0}, like | {"focus": 1.0}, like | {"focus": 900.0}]
    sentences = [text for look in looks for text in differences(seen, Look(**look))]
    sentences += scale_difference(1.0, 2.0)
    assert [kind_of(sentence) for sentence in sentences] == list(KINDS.values())
    assert kind_of("something new") == OTHER


def test_the_log_has_a_line_for_each_request_and_no_image(front, events, caplog):
    picture = "iVBORw0KGgo" * 20
    number = front.post(image=picture).headers["X-Request-Id"]
    (fields,) = events("request")
    assert fields["request_id"] == number
    assert (fields["status"], fields["version"]) == (200, "1")
    assert fields["sent_bytes"] > 0 and 0 < fields["seconds"] < 1
    lines = [JsonLines().format(record) for record in caplog.records]
    assert json.loads(lines[-1])["event"] == "request"
    assert not [line for line in lines if picture in line]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "models:/cells/3"}, "give models:/NAME@ALIAS"),
        ({"model": "cells"}, "such as models:/cells@champion"),
        ({"port": 70_000}, "port: Input should be less than or equal to 65535"),
        ({"max_body": "many"}, "max_body"),
        ({"concurrency": 0}, "concurrency: Input should be greater than or equal to 1"),
        ({"pol": 3}, "unknown key 'pol'; did you mean 'poll'?"),
    ],
)
def test_options_that_make_no_sense_are_one_line(changes, words):
    with pytest.raises(MicrosegError) as caught:
        parse(FrontOptions, {"model": "models:/cells@champion"} | changes, "serve")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_listens_to_this_machine_alone():
    options = FrontOptions(model="models:/cells@champion")
    assert (options.host, options.open_to_others) == ("127.0.0.1", False)
    assert (options.name, options.alias) == ("cells", "champion")
    assert options.model_copy(update={"host": "0.0.0.0"}).open_to_others
