"""Objects as users take them along: label images of 16 bits, and a table of measurements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError
from microseg.instances import Table, measurements

__all__ = ["MOST_LABELS", "Table", "as_uint16", "measurements"]

MOST_LABELS = int(np.iinfo(np.uint16).max)


def as_uint16(labels: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Return a label map as 16-bit numbers, which every image format and viewer takes.

    Raises
    ------
    MicrosegError
        If it has more than 65,535 objects.
    """
    if labels.max(initial=0) > MOST_LABELS:
        raise MicrosegError(
            f"{labels.max()} objects, but a 16-bit label image holds {MOST_LABELS}; cut the image up, or use "
            "'microseg predict --format ome-tiff'"
        )
    return labels.astype(np.uint16)
