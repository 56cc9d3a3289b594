"""Arrays as text: what client and server send each other in JSON."""

from __future__ import annotations

import base64
import io

import imagecodecs
import numpy as np
from numpy.typing import NDArray

NPY = b"\x93NUMPY"  # what every such file begins with


def encode_png(mask: NDArray[np.uint8] | NDArray[np.uint16]) -> str:
    """Return a mask or label map, shape (height, width), as base64 of a PNG file."""
    # Twice to six times as fast as the usual level, and the text about 1.5 times as long.
    return base64.b64encode(imagecodecs.png_encode(np.ascontiguousarray(mask), level=1)).decode("ascii")


def encode_npy(array: NDArray[np.generic]) -> str:
    """Return an array as base64 of an NPY file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
