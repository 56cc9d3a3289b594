"""Images as base64: what is decoded, and what is refused before it can do harm."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from microseg.errors import MicrosegError
from microseg.serving import request
from microseg.serving.request import BadRequest, decode, encode_npy, encode_png


def encoded(data):
    return base64.b64encode(data).decode()


def file_of(array, form):
    buffer = io.BytesIO()
    if form == "NPY":
        np.save(buffer, array)
    elif form == "TIFF":
        tifffile.imwrite(buffer, array)
    else:
        Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "NPY"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_files_keep_their_values(form, dtype):
    array = np.arange(48, dtype=dtype).reshape(6, 8) * 5
    decoded = decode(encoded(file_of(array, form)))
    assert decoded.dtype == dtype
    assert_array_equal(decoded, array[..., None])


def test_a_jpeg_in_colour_has_three_channels():
    assert decode(encoded(file_of(np.full((8, 9, 3), 90, np.uint8), "JPEG"))).shape == (8, 9, 3)


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.float32])
def test_other_numbers_become_float32(dtype):
    decoded = decode(encoded(file_of(np.arange(12, dtype=dtype).reshape(2, 2, 3), "NPY")))
    assert decoded.dtype == np.float32
    assert decoded.shape == (2, 2, 3)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_header(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def npy_header(shape):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        png_header(8_193, 8_192),
        png_header(12_000, 12_000),
        png_header(2**31 - 1, 2**31 - 1),
        npy_header((2**20, 2**20)),
        npy_header((2**20, 2**20, 3)),
        npy_header((2**10, 2**10, 2**10)),
    ],
    ids=["png", "large png", "huge png", "npy", "colour npy", "deep npy"],
)
def test_an_image_too_large_is_refused_by_its_header(data):
    with pytest.raises(MicrosegError, match=r"more than 67108864 pixels, .*'microseg predict'"):
        decode(encoded(data))


def test_the_limit_counts_pixels_and_not_channels(monkeypatch):
    monkeypatch.setattr(request, "MAX_PIXELS", 100)
    for form in ("PNG", "TIFF", "NPY"):
        assert decode(encoded(file_of(np.zeros((10, 10, 3), np.uint8), form))).shape == (10, 10, 3)
        with pytest.raises(MicrosegError, match="more than 100 pixels"):
            decode(encoded(file_of(np.zeros((10, 11, 3), np.uint8), form)))


def whole_png():
    return file_of(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8), "PNG")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not base64!", "not valid base64"),
        ("", "not a PNG, TIFF or JPEG"),
        (encoded(b"hello world"), "not a PNG, TIFF or JPEG"),
        (encoded(whole_png()[:200]), "damaged"),
        (encoded(b"II*\x00" + bytes(8)), "damaged"),
        (encoded(b"\x93NUMPY"), "damaged NPY"),
        (encoded(npy_header((2, 2)).replace(b")", b"(")), "damaged NPY"),
        (encoded(b"\x93NUMPY\x09\x09" + bytes(20)), "damaged NPY"),
        (encoded(file_of(np.array([[1, 2]], object), "NPY")), "array of object"),
        (encoded(file_of(np.zeros(5), "NPY")), r"shape \(5,\)"),
        (encoded(file_of(np.zeros((2, 2), complex), "NPY")), "complex128"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(text, words):
    with pytest.raises(MicrosegError, match=words) as caught:
        decode(text)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "TIFF", "NPY", "JPEG"]), st.data())
def test_no_damage_gives_anything_but_an_image_or_one_line(form, data):
    content = bytearray(file_of(np.arange(300, dtype=np.uint16).astype(np.uint8).reshape(10, 10, 3), form))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.sampled_from([len(content), len(content) // 2]))
    try:
        image = decode(encoded(bytes(content[:kept])))
    except MicrosegError as error:
        assert "\n" not in str(error)
    else:
        assert image.ndim == 3


def test_a_mask_and_an_array_survive_the_way_back():
    mask = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    assert_array_equal(decode(encode_png(mask))[..., 0], mask)
    array = np.random.default_rng(0).random((3, 4, 2), np.float32)
    assert_array_equal(np.load(io.BytesIO(base64.b64decode(encode_npy(array)))), array)


def test_a_bad_request_is_status_400_and_keeps_its_sentence():
    """The scoring server assigns a message that repeats the request, image and all."""
    error = BadRequest("image 1 of the request: too dark")
    error.message = "Failed to predict data 'iVBORw0KGgo...'"
    assert error.message == "image 1 of the request: too dark"
    assert error.get_http_status_code() == 400
    assert "iVBOR" not in error.serialize_as_json()
