"""How many pixels a file makes its decoder fill: read from its header, before anything is decoded."""

from __future__ import annotations

import io
import math
import struct
import sys
import tokenize
from typing import Any

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from microseg.errors import MicrosegError
from microseg.serving.encoding import NPY

# What reading the header of a damaged file raises, found by damaging real ones.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    tokenize.TokenError,  # NumPy reads its header as Python source
    tifffile.TiffFileError,
)
_TIFF = (b"II", b"MM")
# Compressions whose decoder fills the strip or tile that the header states, and no more: none, CCITT, LZW,
# deflate, PackBits, LZMA, Zstandard.
_PLAIN = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000})


def announced(data: bytes) -> int:
    """Return how many pixels a file's header announces.

    Parameters
    ----------
    data : bytes
        A PNG, TIFF, JPEG or NPY file.

    Returns
    -------
    int
        At least as many as decoding fills: a TIFF's tiles count whole, with what lies beyond the image's
        edges. 0 for a damaged header, which is left to the decoder to refuse.

    Raises
    ------
    MicrosegError
        For a TIFF whose compression does not say how much it decodes to.
    """
    try:
        if data.startswith(NPY):
            return array_pixels(npy_header(data)[0])
        if data.startswith(_TIFF):
            with tifffile.TiffFile(io.BytesIO(data)) as tif:
                return _announced_by_tiff(tif, data)
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return sys.maxsize  # more than any limit, and Pillow does not say how many
    except DAMAGE:
        return 0


def _announced_by_tiff(tif: Any, data: bytes) -> int:
    channels = tif.pages.first.samplesperpixel
    return max(
        sum(_pixels(series.shape, channels) for series in tif.series),
        sum(_pixels(_padded(page.keyframe), channels) for page in tif.pages),
        sum(_within(page, data) for page in tif.pages),
    )


def _padded(page: Any) -> tuple[int, ...]:
    """Return the shape of a page's tiles together: each is decoded whole, however small the image is."""
    if not page.is_tiled:
        return tuple(page.shape)
    return (*page.chunks, *page.chunked)


def _within(page: Any, data: bytes) -> int:
    """Return the pixels of the JPEG or other images that a TIFF page consists of: each has its own size."""
    if page.compression in _PLAIN:
        return 0
    total = 0
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        try:
            with Image.open(io.BytesIO(data[start : start + length])) as part:
                total += part.width * part.height
        except UnidentifiedImageError as error:
            name = getattr(page.compression, "name", page.compression)
            raise MicrosegError(
                f"the image is a TIFF compressed as {name}; save it with LZW or as PNG"
            ) from error
    return total


def _pixels(shape: tuple[int, ...], channels: int) -> int:
    """Count an array's pixels; channels beyond four count as pixels, as they fill the memory too."""
    return math.prod(shape) // max(1, min(channels, 4))


def array_pixels(shape: tuple[int, ...]) -> int:
    """Count the pixels of an array of shape (height, width) or (height, width, channels)."""
    return _pixels(shape, shape[2] if len(shape) == 3 else 1)


def npy_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of an NPY file; raises one of `DAMAGE` for a damaged one."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)
