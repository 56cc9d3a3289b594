"""PNG in 16-bit colour, whose decoder would inflate whatever the file holds."""

import base64
import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from microseg.data.images import decode_image
from microseg.errors import MicrosegError
from microseg.serving.request import Limits, decode

MAGIC = b"\x89PNG\r\n\x1a\n"
END = (b"IEND", b"")


def png(*chunks):
    """A PNG of named chunks."""
    written = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return MAGIC + b"".join(written)


def header(width, height, colour=2, interlaced=0):
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, interlaced)


def pixels(width, height, surplus=0):
    return b"IDAT", zlib.compress(bytes(height * (1 + 6 * width) + surplus))


def decoded(data, limits=None):
    return decode(base64.b64encode(data).decode(), None, limits or Limits())


@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colour_keeps_its_values(channels):
    array = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels), dtype=np.uint16)
    array[..., 3:] = 500  # the same transparency everywhere, which is dropped
    assert_array_equal(decoded(imagecodecs.png_encode(array)), array[..., :3])


@pytest.mark.parametrize("surplus", [10**6, 10**8])
def test_data_behind_the_pixels_is_refused_and_not_inflated(surplus, monkeypatch):
    """libpng reads to the end of the data: 6 GB of zeros, 6 MB in a file, cost 12 s."""
    monkeypatch.setattr(imagecodecs, "png_decode", lambda _: pytest.fail("decoded"))
    with pytest.raises(MicrosegError, match="a PNG with more data than its pixels need; save it anew"):
        decoded(png(header(8, 8), pixels(8, 8, surplus), END))


def test_data_split_among_chunks_is_counted_together():
    name, content = pixels(8, 8, 10**6)
    parts = [(name, content[at : at + 100]) for at in range(0, len(content), 100)]
    assert len(parts) > 5
    with pytest.raises(MicrosegError, match="more data than its pixels need"):
        decoded(png(header(8, 8), *parts, END))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (13, 17)])
def test_an_interlaced_image_has_data_enough_and_not_too_much(size):
    """Rows of all seven passes, of which the image's size leaves some empty: PNG specification, 8.2."""
    width, height = size
    steps = ((8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1))
    rows = ((-(-(width - x) // across), -(-(height - y) // down)) for across, down, x, y in steps)
    data = b"".join(bytes(count * (1 + 6 * length)) for length, count in rows if length > 0 and count > 0)
    file = png(header(width, height, interlaced=1), (b"IDAT", zlib.compress(data)), END)
    assert decoded(file).shape == (height, width, 3)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_texts_and_profiles_never_reach_the_decoder(name, before, monkeypatch):
    """libpng inflates each of them, up to 8 MB a chunk and 1,000 chunks."""
    between = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[name]
    texts = [(name, between + zlib.compress(bytes(10**5)))] * 3
    body = [*texts, pixels(8, 8)] if before else [pixels(8, 8), *texts]
    given = []
    decode_png = imagecodecs.png_decode
    monkeypatch.setattr(imagecodecs, "png_decode", lambda data: given.append(data) or decode_png(data))
    assert decoded(png(header(8, 8), *body, END)).shape == (8, 8, 3)
    assert given == [png(header(8, 8), pixels(8, 8), END)]


def test_texts_do_not_hide_the_size():
    """Pillow stops at texts of more than 64 MB before it has told the size."""
    text = b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6))
    data = png(header(11, 10), *[text] * 70, pixels(11, 10), END)
    with pytest.raises(ValueError, match="memory"):
        Image.open(io.BytesIO(data))
    with pytest.raises(MicrosegError, match="more than 100 pixels"):
        decoded(data, Limits(pixels=100))


def test_what_describes_the_colours_does_not_change_the_pixels():
    """The mask of a request is the mask of the file: left out or not, these chunks alter no value."""
    array = np.random.default_rng(0).integers(0, 2**16, (3, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    colours = (
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"sBIT", b"\x0c\x0c\x0c"),
        (b"bKGD", bytes(6)),
        (b"pHYs", struct.pack(">IIB", 9, 9, 1)),
    )
    data = png(header(5, 3), *colours, (b"IDAT", zlib.compress(rows)), END)
    assert_array_equal(decode_image(data, "a.png"), array)
    assert_array_equal(decoded(data), array)


@pytest.mark.parametrize("kept", [20, 30, 60])
def test_a_damaged_file_is_refused_in_one_line(kept):
    with pytest.raises(MicrosegError, match="damaged") as caught:
        decoded(
            png(header(30, 30), (b"IDAT", zlib.compress(np.random.default_rng(0).bytes(5430))), END)[:kept]
        )
    assert "\n" not in str(caught.value)


def test_damaged_pixels_are_the_decoders_to_refuse():
    with pytest.raises(MicrosegError, match="damaged"):
        decoded(png(header(8, 8), (b"IDAT", b"x\x9c" + b"\xff" * 40), END))
