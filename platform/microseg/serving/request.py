"""What a client sends and gets over REST, and how images travel in it: as base64 text."""

from __future__ import annotations

import base64
import binascii
import io
import math
import struct
import tokenize
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from microseg.data.images import decode_image
from microseg.errors import MicrosegError

MAX_PIXELS = 2**26  # 8192 x 8192: about half a minute of a small network on a few cores

_NPY = b"\x93NUMPY"
_TIFF = (b"II", b"MM")
# What reading the header of a damaged file raises, found by damaging real ones.
_DAMAGE = (
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


class ImageRequest(BaseModel):
    """One image to segment."""

    model_config = ConfigDict(extra="forbid")

    image: str = Field(description="base64 of a PNG, TIFF, JPEG or NPY (height, width[, channels]) file")
    probability: bool = Field(default=False, description="whether to answer the probabilities too")
    instances: bool = Field(default=False, description="whether to answer the numbered objects too")


class MaskResponse(BaseModel):
    """The answer to one image, in the image's own size."""

    mask: str = Field(description="base64 PNG, 8 bit: 0 and 255, or class indices for several classes")
    probability: str | None = Field(default=None, description="base64 NPY, float32, (height, width, classes)")
    instances: str | None = Field(
        default=None, description="base64 PNG, 16 bit: 0 background, objects from 1"
    )
    model: str = Field(description="name of the registered model")
    version: str | None = Field(default=None, description="its version, where it came from a registry")


class BadRequest(MlflowException):
    """A request that is answered with status 400 and one sentence.

    The scoring server assigns a new message that repeats the whole request, the image included;
    this exception keeps its own.
    """

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence
        super().__init__(sentence, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence; assignments are ignored."""
        return self._sentence

    @message.setter
    def message(self, _value: str) -> None:
        pass


def decode(text: str, axes: str | None = None) -> NDArray[np.generic]:
    """Decode a base64 image file.

    Parameters
    ----------
    text : str
        base64 of a PNG, TIFF, JPEG or NPY file of at most `MAX_PIXELS` pixels.
    axes : str, optional
        Axis order of multi-page TIFF files.

    Returns
    -------
    ndarray, shape (height, width, channels)
        uint8, uint16 or float32.

    Raises
    ------
    MicrosegError
        If the text is no base64, or its content no such image, damaged or too large.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MicrosegError("the image is not valid base64; send the file's bytes in base64") from error
    # The size is read from the header first: a small file can decode to more than the memory.
    if _too_large(data):
        raise MicrosegError(
            f"the image has more than {MAX_PIXELS} pixels, the most that are answered here;"
            " cut it up, or use 'microseg predict'"
        )
    return _load_npy(data) if data.startswith(_NPY) else decode_image(data, "the image", axes)


def _too_large(data: bytes) -> bool:
    """Tell what a file's header announces; a damaged header is left to the decoder to refuse."""
    try:
        if data.startswith(_NPY):
            shape = _npy_header(data)[0]
            return _pixels(shape, shape[2] if len(shape) == 3 else 1) > MAX_PIXELS
        if data.startswith(_TIFF):
            with tifffile.TiffFile(io.BytesIO(data)) as tif:
                channels = tif.pages.first.samplesperpixel
                return sum(_pixels(series.shape, channels) for series in tif.series) > MAX_PIXELS
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height > MAX_PIXELS
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return True  # Pillow's own limits are higher
    except _DAMAGE:
        return False


def _pixels(shape: tuple[int, ...], channels: int) -> int:
    """Count an array's pixels; channels beyond four count as pixels, as they fill the memory too."""
    return math.prod(shape) // max(1, min(channels, 4))


def _npy_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _load_npy(data: bytes) -> NDArray[np.generic]:
    try:
        shape, _, dtype = _npy_header(data)
        if len(shape) not in (2, 3) or dtype.kind not in "uif":
            raise MicrosegError(
                f"the image is an NPY array of {dtype} and shape {shape};"
                " give numbers of shape (height, width) or (height, width, channels)"
            )
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except _DAMAGE as error:
        raise MicrosegError("the image is a damaged NPY file; save it anew") from error
    target = dtype if dtype in (np.uint8, np.uint16) else np.dtype(np.float32)
    return np.asarray(array if array.ndim == 3 else array[..., None], target)


def encode_png(mask: NDArray[np.uint8] | NDArray[np.uint16]) -> str:
    """Return a mask or label map, shape (height, width), as base64 of a PNG file."""
    return base64.b64encode(imagecodecs.png_encode(np.ascontiguousarray(mask))).decode("ascii")


def encode_npy(array: NDArray[np.float32]) -> str:
    """Return an array as base64 of an NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
