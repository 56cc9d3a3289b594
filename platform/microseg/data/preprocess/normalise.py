"""Intensity normalisation of whole images, to float32: measured in bands, applied to any window."""

from __future__ import annotations

import functools
from typing import Annotated

import numpy as np
from pydantic import Field

from microseg.data.preprocess.bands import Array, Bands, Transform, moments
from microseg.data.preprocess.channels import full_scale
from microseg.data.preprocess.percentiles import percentiles
from microseg.errors import MicrosegError

Percent = Annotated[float, Field(ge=0.0, le=100.0)]


def percentile(bands: Bands, *, low: Percent = 1.0, high: Percent = 99.8, clip: bool = True) -> Transform:
    """Map each channel's low percentile to 0 and its high percentile to 1.

    Where the two coincide (a nearly empty field of view), the channel's minimum and maximum take
    their place; a constant channel becomes 0.

    Parameters
    ----------
    bands : Bands
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
    smallest, bottom, top, largest = percentiles(bands, (0.0, low, high, 100.0))
    flat = top <= bottom
    bottom, top = np.where(flat, smallest, bottom), np.where(flat, largest, top)
    return functools.partial(_standardised, centre=bottom, spread=top - bottom, clip=clip)


def scale(bands: Bands, *, maximum: Annotated[float, Field(gt=0.0)] | None = None) -> Transform:
    """Divide by the largest value of the number type: 255 or 65535; float images must lie in 0..1.

    Parameters
    ----------
    bands : Bands
        A whole image, uint8, uint16 or float; of any number type where ``maximum`` is given. Nothing is
        measured on it.
    maximum : float, optional
        Divide by this number instead: 4095 for 12 bits, 1 to give the network 0 to 255.

    Raises
    ------
    MicrosegError
        When applied, if there are values outside 0..1 in float, or another number type, and no maximum
        is given.
    """
    return functools.partial(_scaled, maximum=maximum)


def zscore(bands: Bands) -> Transform:
    """Subtract each channel's mean and divide by its standard deviation; a constant channel becomes 0."""
    mean, deviation = moments(bands)
    return functools.partial(_standardised, centre=mean, spread=deviation, clip=False)


def _scaled(image: Array, *, maximum: float | None) -> Array:
    top = maximum or full_scale(image, "'scale'", "state its maximum, or use 'percentile'")
    return image.astype(np.float32) / np.float32(top)


def _standardised(image: Array, *, centre: Array, spread: Array, clip: bool) -> Array:
    safe = np.where(spread > 0, spread, 1.0)
    wide = image.astype(np.float64, subok=False)  # of a mapped file, an ordinary array
    wide -= centre
    wide /= safe
    result = wide.astype(np.float32)
    return np.clip(result, 0.0, 1.0, out=result) if clip else result
