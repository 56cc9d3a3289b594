"""PNG files in 16-bit colour: only what their pixels need is given to the decoder.

libpng reads a file to its end. What it finds behind the last row, or in a text or a colour profile, is
inflated as well, a thousand times its size, and thrown away: 5 MB can cost 12 s. Pillow, which decodes all
other PNG files, stops at the last row and limits texts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from microseg.errors import MicrosegError

_MAGIC = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset({b"IHDR", b"tRNS", b"IDAT", b"IEND"})
_SAMPLES = {b"\x02": 3, b"\x06": 4}  # the colour types that Pillow would reduce to 8 bits: RGB, RGBA
_STEP = 2**16


def pixels_alone(data: bytes) -> bytes:
    """Return a 16-bit colour PNG without the chunks that hold no pixels, and any other file as it is.

    Parameters
    ----------
    data : bytes
        An image file, whose chunks are not inflated here.
    """
    if not _is_deep_colour(data):
        return data
    return _MAGIC + b"".join(data[start:end] for name, start, end in _chunks(data) if name in _PIXELS)


def check_surplus(data: bytes) -> None:
    """Refuse a 16-bit colour PNG with more than twice the data that its pixels need.

    Parameters
    ----------
    data : bytes
        An image file; one that is no such PNG, or damaged, passes.

    Raises
    ------
    MicrosegError
        If there is more.
    """
    if not _is_deep_colour(data):
        return
    width, height = struct.unpack(">II", data[16:24])
    # Twice: an interlaced image has up to two filter bytes per row beside its pixels.
    most = 2 * (2 * _SAMPLES[data[25:26]] * width * height) + 64
    pixels = (memoryview(data)[start + 8 : end - 4] for name, start, end in _chunks(data) if name == b"IDAT")
    if _inflates_beyond(pixels, most):
        raise MicrosegError("the image is a PNG with more data than its pixels need; save it anew")


def _is_deep_colour(data: bytes) -> bool:
    return data.startswith(_MAGIC) and data[24:25] == b"\x10" and data[25:26] in _SAMPLES


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk."""
    start = len(_MAGIC)
    while start + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        yield data[start + 4 : start + 8], start, end
        start = end


def _inflates_beyond(parts: Iterator[memoryview], most: int) -> bool:
    """Say whether a zlib stream in parts inflates to more than ``most`` bytes, in constant memory."""
    stream, total = zlib.decompressobj(), 0
    try:
        for part in parts:
            for start in range(0, len(part), _STEP):
                rest = bytes(part[start : start + _STEP])
                while rest and total <= most:
                    total += len(stream.decompress(rest, 16 * _STEP))
                    rest = stream.unconsumed_tail
    except zlib.error:
        return False  # damaged: the decoder says so
    return total > most
