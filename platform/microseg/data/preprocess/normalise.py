"""Intensity normalisation of whole images, to float32."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from microseg.data.preprocess.channels import Array, full_scale
from microseg.errors import MicrosegError

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


def scale(image: Array, *, maximum: Annotated[float, Field(gt=0.0)] | None = None) -> Array:
    """Divide by the largest value of the number type: 255 or 65535; float images must lie in 0..1.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        A whole image, uint8, uint16 or float; of any number type where ``maximum`` is given.
    maximum : float, optional
        Divide by this number instead: 4095 for 12 bits, 1 to give the network 0 to 255.

    Raises
    ------
    MicrosegError
        If the image has values outside 0..1 in float, or another number type, and no maximum is given.
    """
    top = maximum or full_scale(image, "'scale'", "state its maximum, or use 'percentile'")
    return image.astype(np.float32) / np.float32(top)


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
