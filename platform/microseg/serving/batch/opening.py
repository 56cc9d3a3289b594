"""An image file of any format as a stream."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from microseg.data.files import read_bytes
from microseg.data.images import decode_image
from microseg.data.streams import ImageStream, is_streamed, open_stream, stream_of
from microseg.errors import MicrosegError

MOST_PIXELS = 2**26  # of a PNG or JPEG, which are decoded and encoded as a whole


class Source(NamedTuple):
    """An image: its address, a local copy or itself, and the order of a multi-page TIFF's axes."""

    name: str
    path: Path
    axes: str | None


def open_source(source: Source) -> ImageStream:
    """Open an image for reading in windows; PNG and JPEG are decoded as a whole.

    Raises
    ------
    MicrosegError
        If it is no image or damaged, or a PNG or JPEG of more than `MOST_PIXELS` pixels.
    """
    if is_streamed(source.path):
        stream = open_stream(source.path, source.axes)
        stream.name = source.name
        return stream
    data = read_bytes(source.path)
    _check_size(data, source.name)
    return stream_of(decode_image(data, source.name), source.name)


def _check_size(data: bytes, name: str) -> None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return  # `decode_image` says what is wrong with it
    if width * height > MOST_PIXELS:
        raise MicrosegError(
            f"{name}: {width} x {height} pixels in a {image.format}, which is decoded as a whole: at most "
            f"{MOST_PIXELS} pixels; save it as tiled TIFF or OME-Zarr"
        )
