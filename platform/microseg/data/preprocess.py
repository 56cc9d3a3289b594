"""Intensity normalisation: one function, applied alike in training, batch prediction and serving.

Every function takes a whole image of shape (height, width, channels), never a tile of it, and
returns float32 of the same shape. The same component on the same image gives the same values
wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from microseg.errors import MicrosegError

Array = np.ndarray[Any, np.dtype[Any]]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]


def percentile(image: Array, *, low: Percent = 1.0, high: Percent = 99.8, clip: bool = True) -> Array:
    """Map each channel's low percentile to 0 and its high percentile to 1.

    Where the two coincide (a nearly empty field of view), the channel's minimum and maximum take
    their place; a constant channel becomes 0.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        A whole image of any number type.
    low, high : float
        Percentiles, 0 to 100, of the channel's pixels.
    clip : bool
        Cut values below 0 and above 1. Dust and dead pixels then cannot dominate.

    Raises
    ------
    MicrosegError
        If ``low`` is not below ``high``.
    """
    if low >= high:
        raise MicrosegError(f"preprocess 'percentile': low is {low}, high is {high}; low must be below high")
    bottom, top = np.percentile(image, [low, high], axis=(0, 1))
    flat = top <= bottom
    bottom = np.where(flat, image.min(axis=(0, 1)), bottom)
    top = np.where(flat, image.max(axis=(0, 1)), top)
    scaled = _standardise(image, bottom, top - bottom)
    return np.clip(scaled, 0.0, 1.0) if clip else scaled


def scale(image: Array) -> Array:
    """Divide by the largest value of the number type: 255 or 65535; float images must lie in 0..1.

    Raises
    ------
    MicrosegError
        If the image has values outside 0..1 in float, or another number type.
    """
    if image.dtype in (np.uint8, np.uint16):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    if image.dtype.kind != "f":
        raise MicrosegError(
            f"preprocess 'scale' takes 8-bit, 16-bit or float images, got {image.dtype}; use 'percentile'"
        )
    if image.min() < 0.0 or image.max() > 1.0:
        raise MicrosegError(
            f"preprocess 'scale' takes float images in 0..1, got {image.min():g} to {image.max():g}; use"
            " 'percentile'"
        )
    return image.astype(np.float32)


def zscore(image: Array) -> Array:
    """Subtract each channel's mean and divide by its standard deviation; a constant channel becomes 0."""
    wide = image.astype(np.float64)
    mean, deviation = wide.mean(axis=(0, 1)), wide.std(axis=(0, 1))
    constant = image.min(axis=(0, 1)) == image.max(axis=(0, 1))
    # The rounded mean of equal numbers may differ from them: constant is decided on the values.
    return _standardise(
        image, np.where(constant, image.min(axis=(0, 1)), mean), np.where(constant, 0.0, deviation)
    )


def _standardise(image: Array, centre: Array, spread: Array) -> Array:
    safe = np.where(spread > 0, spread, 1.0)
    return ((image.astype(np.float64) - centre) / safe).astype(np.float32)


PREPROCESSING: dict[str, Callable[..., Array]] = {
    "percentile": percentile,
    "scale": scale,
    "zscore": zscore,
}
