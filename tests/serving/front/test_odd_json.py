"""Requests that are hardly JSON, or far too much of it: refused in a line before a model server reads them."""

import json
import resource
import time

import pytest

from microseg.serving.front.body import check_body
from microseg.serving.front.refusals import RefusedError

JSON = {"Content-Type": "application/json"}
DEEP = 100_000
ODD = {
    "lists without end": b"[" * DEEP,
    "lists in lists": b"[" * DEEP + b"]" * DEEP,
    "objects without end": b'{"a":' * DEEP,
    "objects in objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "images in images": b'{"inputs": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a tensor of many axes": b'{"inputs": [{"tensor": ' + b"[" * 900 + b"]" * 900 + b"}]}",
    "a number of many digits": b'{"inputs": [{"pixel_size_um": ' + b"9" * DEEP + b"}]}",
    "a number alone": b"9" * DEEP,
    "a text alone": b'"' + b"a" * DEEP + b'"',
    "many images": json.dumps({"inputs": [{}] * DEEP}).encode(),
    "many numbers for images": json.dumps({"inputs": [3] * DEEP}).encode(),
    "many keys": json.dumps({str(number): number for number in range(DEEP)}).encode(),
    "many keys of an image": json.dumps({"inputs": [{str(number): 0 for number in range(DEEP)}]}).encode(),
    "no UTF-8": b'{"inputs": [{"image": "\xff"}]}',
    "UTF-16": '{"inputs": []}'.encode("utf-16"),
    "zeros": b"\0" * DEEP,
    "nothing": b"",
    "a name that is written otherwise": b'{"inp\\u0075ts": [' + b"3," * DEEP + b"3]}",
    "two": b"{}, {}",
}

TOO_MUCH = ("many images", "many keys", "many keys of an image")


@pytest.fixture(scope="module")
def front(asked, front_of):
    with front_of(asked.Stored()) as running:
        running.serving("1")
        yield running


@pytest.mark.parametrize("name", ODD)
def test_an_odd_body_is_refused_in_a_line_and_the_next_is_answered(front, name):
    began = time.monotonic()
    answer = front.send("POST", "/invocations", ODD[name], JSON)
    assert time.monotonic() - began < 5
    assert answer.status == (413 if name in TOO_MUCH else 400), answer.text
    assert set(answer.body) == {"error_code", "message"}
    assert len(answer.text) < 300 and b"\n" not in answer.text
    assert "X-Microseg-Version" not in answer.headers  # no model server was asked
    assert front.post(inputs=[{"image": "AAAA"}]).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b' {"inputs": [] }\n',
        b'{"inputs": [{"image": "AAAA", "pixel_size_um": 1e400}]}',
        json.dumps({"inputs": [{"tensor": [[[0.5] * 3] * 64] * 64}]}).encode(),
        json.dumps({"inputs": [{"image": "A" * 10**7}] * 2}).encode(),
        json.dumps({"inputs": [{}] * 1000}).encode(),
        b'{"inputs": [{"tensor": ' + b"[" * 100 + b"]" * 100 + b"}]}",
    ],
)
def test_what_the_model_can_refuse_itself_is_passed_on(body):
    check_body(body)


def test_the_sentences_say_what_to_do():
    for body, words in (
        (b"[" * DEEP, "this is no request that the model takes; send {"),
        (json.dumps({"inputs": [{}] * 1001}).encode(), "at most 1000 images, .* send several requests"),
    ):
        with pytest.raises(RefusedError, match=words):
            check_body(body)


def test_a_large_image_is_looked_at_in_no_time():
    """What is passed on is not made here: no second copy of the image, no number of a tensor."""
    image = json.dumps({"inputs": [{"image": "A" * 6 * 10**7}]}).encode()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    check_body(image)
    assert time.process_time() - began < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB
