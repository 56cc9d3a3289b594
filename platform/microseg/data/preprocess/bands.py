"""An image in bands of rows: what is measured on it is found without holding all of it in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Transform = Callable[[Array], Array]
Bands = Callable[[], Iterable[Array]]
"""Each call starts anew: whole rows of one image, top to bottom, (rows, width, channels), of any heights."""

_STRIP = 2**18  # values: they stay in the processor's cache, and what is made of them in memory


def moments(bands: Bands) -> tuple[Array, Array]:
    """Return the mean and the standard deviation of each channel, equal to the bit for any division.

    Sums of 8 and 16 bits are exact; others are sums of rows, which no division cuts, added exactly.

    Returns
    -------
    tuple of two ndarray of float64, shape (channels,)
        Of equal values: exactly that value, and 0.

    References
    ----------
    Shewchuk 1997, Adaptive precision floating-point arithmetic, doi:10.1007/PL00009321 (``math.fsum``).
    """
    first = next(iter(bands()))
    exact = first.dtype.kind in "iu" and first.dtype.itemsize <= 2
    return _moments_of_integers(bands) if exact else _moments_of_rows(bands, first[0, 0])


def strips(bands: Bands) -> Iterator[Array]:
    """Yield the same rows in low bands, so that work on them needs little memory, however high they were."""
    for band in bands():
        rows = max(1, _STRIP // band[0].size)
        for start in range(0, len(band), rows):
            yield band[start : start + rows]


def channel_values(strip: Array) -> Iterator[tuple[int, Array]]:
    """Yield each channel's number and the vector of its values."""
    yield from enumerate(strip.reshape(-1, strip.shape[-1]).T)


def _moments_of_integers(bands: Bands) -> tuple[Array, Array]:
    """Sum values and squares in one pass: 64 bits hold those of a strip, Python's integers hold all."""
    sums: dict[int, list[int]] = {}
    for strip in strips(bands):
        for channel, values in channel_values(strip):
            wide, so_far = values.astype(np.int64), sums.get(channel, [0, 0, 0])
            added = (wide.size, int(wide.sum()), int(wide @ wide))
            sums[channel] = [a + b for a, b in zip(so_far, added, strict=True)]
    # A quotient of integers is rounded once; squares less the squared mean would cancel in floats.
    mean = [total / count for count, total, _ in sums.values()]
    variance = [(count * squares - total**2) / count**2 for count, total, squares in sums.values()]
    return np.array(mean), np.sqrt(variance)


def _moments_of_rows(bands: Bands, origin: Array) -> tuple[Array, Array]:
    """Sum differences to a pixel, then squared differences to the mean: two passes, nothing cancels."""
    origin = origin.astype(np.float64)
    mean = origin + _mean_power(bands, origin, 1)
    return mean, np.sqrt(_mean_power(bands, mean, 2))


def _mean_power(bands: Bands, centre: Array, power: int) -> Array:
    """Return each channel's mean of (value - centre) ** power."""
    sums: list[Array] = []  # of rows, (rows, channels)
    width = 0
    for strip in strips(bands):
        width = strip.shape[1]
        # Channel by channel in memory: numpy's order of summation depends on nothing but the width.
        planes = np.moveaxis(strip, -1, 0).astype(np.float64, order="C")
        planes -= centre[:, None, None]
        sums.append((planes**power).sum(axis=-1).T)
    rows = np.concatenate(sums)
    return np.array([math.fsum(channel) / (len(rows) * width) for channel in rows.T])
