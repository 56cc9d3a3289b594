"""The image of a request, wherever it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microseg.serving.request.fields import ImageRequest
from microseg.serving.request.images import decode, decode_file, from_numbers
from microseg.serving.request.limits import Limits
from microseg.serving.request.places import read_uri


def read(request: ImageRequest, axes: str | None, limits: Limits, used: int) -> NDArray[np.generic]:
    """Return the image of a request.

    Parameters
    ----------
    request : ImageRequest
        Says where the image is.
    axes : str or None
        Axis order of multi-page TIFF files.
    limits : Limits
        What the server allows.
    used : int
        Pixels of the request's images before this one.

    Returns
    -------
    ndarray, shape (height, width, channels)
        uint8, uint16 or float32.

    Raises
    ------
    MicrosegError
        If a field does not fit, or there is no image, or one that is damaged, too large or not allowed.
    """
    request.checked()
    if request.uri is not None:
        return decode_file(read_uri(request.uri, limits), axes, limits, used)
    if request.tensor is not None:
        return from_numbers(request.tensor, request.dtype, limits, used)
    return decode(request.image or "", axes, limits, used)
