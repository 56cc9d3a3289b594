"""Images as they travel in JSON: files in base64 text, or numbers; their size is checked before decoding."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microseg.data.images import decode_image
from microseg.errors import MicrosegError
from microseg.serving.encoding import NPY
from microseg.serving.request.limits import DEFAULT, Limits
from microseg.serving.request.png import check_surplus, pixels_alone
from microseg.serving.request.sizes import DAMAGE, announced, array_pixels, npy_header


def decode(
    text: str, axes: str | None = None, limits: Limits = DEFAULT, used: int = 0
) -> NDArray[np.generic]:
    """Decode a base64 image file.

    Parameters
    ----------
    text : str
        base64 of a PNG, TIFF, JPEG or NPY file.
    axes : str, optional
        Axis order of multi-page TIFF files.
    limits : Limits
        What a request may hold.
    used : int
        Pixels of the request's images before this one.

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
    return decode_file(data, axes, limits, used)


def decode_file(data: bytes, axes: str | None, limits: Limits, used: int) -> NDArray[np.generic]:
    """Decode an image file, see `decode`.

    Raises
    ------
    MicrosegError
        As `decode`.
    """
    data = pixels_alone(data)
    # The size is read from the header first: a small file can decode to more than the memory.
    _check_size(announced(data), limits, used)
    check_surplus(data)
    return _load_npy(data) if data.startswith(NPY) else decode_image(data, "the image", axes)


def from_numbers(numbers: Any, dtype: str, limits: Limits, used: int) -> NDArray[np.generic]:
    """Make an image of nested lists.

    Parameters
    ----------
    numbers : list
        (height, width, channels) numbers.
    dtype : {"uint8", "uint16", "float32"}
        What they become. Whole numbers must lie in the type's range.
    limits, used
        See `decode`.

    Raises
    ------
    MicrosegError
        If these are no numbers, or too many, or the lists are of different lengths.
    """
    try:
        array = np.asarray(numbers)
    except (ValueError, OverflowError) as error:
        raise MicrosegError("the tensor's lists differ in length; give (height, width, channels)") from error
    _check_array(array.shape, array.dtype, "the tensor holds")
    _check_size(array_pixels(array.shape), limits, used)
    if dtype != "float32":
        top = np.iinfo(dtype).max
        if array.dtype.kind == "f" or array.min(initial=0) < 0 or array.max(initial=0) > top:
            raise MicrosegError(f"the tensor has numbers that are not {dtype}; give whole numbers 0 to {top}")
    return _with_channels(array).astype(dtype)


def _check_size(pixels: int, limits: Limits, used: int) -> None:
    if used + pixels > limits.pixels:
        raise MicrosegError(limits.exceeded)


def _load_npy(data: bytes) -> NDArray[np.generic]:
    try:
        shape, _, dtype = npy_header(data)
        _check_array(shape, dtype, "the image is an NPY array of")
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except DAMAGE as error:
        raise MicrosegError("the image is a damaged NPY file; save it anew") from error
    return _with_channels(np.asarray(array, dtype if dtype in (np.uint8, np.uint16) else np.float32))


def _check_array(shape: tuple[int, ...], dtype: np.dtype[Any], start: str) -> None:
    if len(shape) not in (2, 3) or dtype.kind not in "uif":
        raise MicrosegError(
            f"{start} {dtype} and shape {shape};"
            " give numbers of shape (height, width) or (height, width, channels)"
        )


def _with_channels(array: NDArray[np.generic]) -> NDArray[np.generic]:
    return array if array.ndim == 3 else array[..., None]
