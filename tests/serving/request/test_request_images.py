"""Images as base64: what is decoded, and what is refused before it can do harm."""

import base64
import io
import struct
import tracemalloc
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from microseg.errors import MicrosegError
from microseg.serving.request import Limits, decode, encode_npy, encode_png
from microseg.serving.request.images import from_numbers


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
    with pytest.raises(
        MicrosegError, match=r"more than 67108864 pixels .*MICROSEG_SERVING_PIXELS.*'microseg predict'"
    ):
        decode(encoded(data))


def test_the_limit_counts_pixels_and_not_channels():
    limits = Limits(pixels=100)
    for form in ("PNG", "TIFF", "NPY"):
        assert decode(encoded(file_of(np.zeros((10, 10, 3), np.uint8), form)), None, limits).shape == (
            10,
            10,
            3,
        )
        with pytest.raises(MicrosegError, match="more than 100 pixels"):
            decode(encoded(file_of(np.zeros((10, 11, 3), np.uint8), form)), None, limits)


def test_the_limit_holds_for_all_images_of_a_request_together():
    limits, text = Limits(pixels=100), encoded(file_of(np.zeros((5, 10), np.uint8), "PNG"))
    assert decode(text, None, limits, used=50).shape == (5, 10, 1)
    with pytest.raises(MicrosegError, match="more than 100 pixels in one request"):
        decode(text, None, limits, used=51)


def tiff_of(strip, compression):
    """A TIFF that announces 64 x 64 pixels, whatever its one strip holds."""
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, iter([strip]), shape=(64, 64), dtype=np.uint8, compression=compression, rowsperstrip=64,
        photometric="minisblack",
    )  # fmt: skip
    return encoded(buffer.getvalue())


def test_a_large_image_inside_a_tiff_is_refused_whatever_the_tiff_announces():
    """The JPEG decoder follows the JPEG's own header, which may say 65535 x 65535."""
    limits = Limits(pixels=10_000)
    for side, compression in ((101, "jpeg"), (101, "png")):
        inner = file_of(np.zeros((side, side), np.uint8), compression.upper())
        with pytest.raises(MicrosegError, match="more than 10000 pixels"):
            decode(tiff_of(inner, compression), None, limits)
    with pytest.raises(MicrosegError, match="TIFF compressed as JPEGXL; save it with LZW or as PNG"):
        decode(tiff_of(imagecodecs.jpegxl_encode(np.zeros((64, 64), np.uint8)), "jpegxl"))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((90, 70), np.uint8), compression="jpeg", tile=(64, 64))
    assert decode(encoded(buffer.getvalue())).shape == (90, 70, 1)


def run_lengths(zeros):
    """Encode zeros as PackBits does; imagecodecs takes minutes for 30 MB."""
    return b"\x81\0" * (len(zeros) // 128)


@pytest.mark.parametrize("compression", ["packbits", "zlib", "lzw", "lzma", "zstd"])
def test_a_strip_is_decoded_to_what_the_header_states_and_no_further(compression):
    """Of 30 MB behind the pixels nothing is decoded; of pixels that are missing, no memory is filled."""
    encode = run_lengths if compression == "packbits" else getattr(imagecodecs, f"{compression}_encode")
    limits, text = Limits(pixels=10_000), tiff_of(encode(bytes(30_000_000)), compression)
    tracemalloc.start()
    try:
        decode(text, None, limits)
    except MicrosegError as error:
        assert "damaged" in str(error)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10_000_000
    with pytest.raises(MicrosegError, match="damaged"):
        decode(tiff_of(encode(bytes(128)), compression), None, limits)


def tiled(shape, tile, **options):
    """A TIFF of zeros in tiles, whose compressed data are a few bytes."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros(shape, np.uint8), tile=tile, compression="zstd", **options)
    return encoded(buffer.getvalue())


def test_tiles_count_whole_however_small_the_image_is():
    """A file of 33 KB with a tile of 32768 x 32768 pixels took 1 GB for an image of 64 x 64."""
    limits = Limits(pixels=2 * 64**2)
    for shape, tile, options in [
        ((10, 10), (128, 128), {}),
        ((10, 65), (128, 64), {}),
        ((10, 10, 3), (128, 128), {"photometric": "rgb"}),
        ((3, 10, 10), (128, 128), {"photometric": "rgb", "planarconfig": "separate"}),
        ((4, 10, 10), (64, 64), {"photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True}),
    ]:
        with pytest.raises(MicrosegError, match="more than 8192 pixels"):
            decode(tiled(shape, tile, **options), None, limits)
    assert decode(tiled((10, 65), (64, 64)), None, limits).shape == (10, 65, 1)
    assert decode(tiled((64, 128, 3), (64, 64), photometric="rgb"), None, limits).shape == (64, 128, 3)


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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2)])
def test_nested_lists_become_an_image(dtype, shape):
    array = (np.arange(np.prod(shape)) * 7).reshape(shape).astype(dtype)
    image = from_numbers(array.tolist(), dtype, Limits(), 0)
    assert image.dtype == dtype
    assert_array_equal(image, array if array.ndim == 3 else array[..., None])


@pytest.mark.parametrize(
    ("numbers", "dtype", "words"),
    [
        ([[[1], [2]], [[3]]], "float32", "differ in length"),
        ([["a", "b"]], "float32", "give numbers of shape"),
        ([[None, 1]], "float32", "array of object|holds object"),
        ([1, 2], "float32", r"shape \(2,\)"),
        (7, "float32", r"shape \(\)"),
        ([[[[1]]]], "float32", r"shape \(1, 1, 1, 1\)"),
        ([[1, 256]], "uint8", "not uint8; give whole numbers 0 to 255"),
        ([[-1, 2]], "uint16", "whole numbers 0 to 65535"),
        ([[0.5, 2]], "uint8", "not uint8"),
        ([[2**70, 2]], "uint8", "object"),
        ([[0] * 11] * 10, "uint8", "more than 100 pixels"),
        ([[[0] * 1000] * 2], "uint8", "more than 100 pixels"),
    ],
)
def test_numbers_that_are_no_image_are_refused_in_one_line(numbers, dtype, words):
    with pytest.raises(MicrosegError, match=words) as caught:
        from_numbers(numbers, dtype, Limits(pixels=100), 0)
    assert "\n" not in str(caught.value)
