"""Exact percentiles of an image of any size and number type, from histograms of its values' digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from microseg.data.preprocess.bands import Array, Bands, channel_values, strips

_DIGIT = 16  # bits: a histogram of 65536 counts

Place = tuple[int, int]  # the leading digits of a wanted value, and its rank among the values that share them
Counts = dict[tuple[int, int], Array]  # histograms of one digit, by channel and leading digits


def percentiles(bands: Bands, percents: Sequence[float]) -> Array:
    """Return percentiles of each channel: what `numpy.percentile` gives for the whole image, bit for bit.

    Parameters
    ----------
    bands : Bands
        Passed through once for 8 and 16 bits, twice for 32 bits and four times for 64.
    percents : sequence of float
        0 to 100. Between two values of the image, interpolated linearly.

    Returns
    -------
    ndarray of float64, shape (percents, channels)

    References
    ----------
    Hyndman and Fan 1996, Sample quantiles in statistical packages, definition 7,
    doi:10.1080/00031305.1996.10473566.
    """
    lower, upper, weight = _neighbours(bands, percents)
    gap = upper - lower
    # From the nearer end, as numpy does: the result never leaves the interval.
    found: Array = np.where(weight < 0.5, lower + gap * weight, upper - gap * (1 - weight))
    return found


def _neighbours(bands: Bands, percents: Sequence[float]) -> tuple[Array, Array, Array]:
    """Return the values below and above each percentile, and the way from one to the other, 0 to 1.

    It is a radix selection: a histogram of the leading digits tells which of them the wanted values have,
    and the next pass looks at the following digit of only those.
    """
    dtype = next(iter(bands())).dtype.newbyteorder("=")
    places: list[list[Place]] = []
    weight = np.empty(0)
    for shift in reversed(range(0, dtype.itemsize * 8, _DIGIT)):
        counts = _histograms(bands, shift, [{prefix for prefix, _ in wanted} for wanted in places])
        if not places:
            ranks, weight = _ranks(percents, int(counts[0, 0].sum()))
            places = [[(0, rank) for rank in ranks]] * len(counts)
        ends = {key: np.cumsum(histogram) for key, histogram in counts.items()}
        places = [[_next(ends, channel, place) for place in wanted] for channel, wanted in enumerate(places)]
    keys = [[prefix for prefix, _ in wanted] for wanted in places]
    lower, upper = np.split(_values(np.array(keys, f"u{dtype.itemsize}").T, dtype), 2)
    return lower, upper, weight[:, None]


def _ranks(percents: Sequence[float], count: int) -> tuple[list[int], Array]:
    """Return the ranks of all lower neighbours and then of all upper ones, and the ways between them."""
    position = np.true_divide(percents, 100) * (count - 1)
    below = np.floor(position).astype(int)
    return [*below.tolist(), *np.minimum(below + 1, count - 1).tolist()], position - below


def _histograms(bands: Bands, shift: int, leading: list[set[int]]) -> Counts:
    """Count the digits at a shift, per channel and leading digits; where these are not known yet, all."""
    counts: Counts = {}
    for strip in strips(bands):
        digit = min(_DIGIT, strip.dtype.itemsize * 8)
        for channel, values in channel_values(strip):
            keys = _keys(values) >> shift
            for prefix in leading[channel] if leading else {0}:
                inside = keys[keys >> digit == prefix] & (2**digit - 1) if leading else keys
                found = np.bincount(inside.astype(np.intp), minlength=2**digit)
                counts[channel, prefix] = counts.get((channel, prefix), 0) + found
    return counts


def _next(ends: Counts, channel: int, place: Place) -> Place:
    """Return a place with one digit more, from the cumulated histogram of that digit."""
    prefix, rank = place
    cumulated = ends[channel, prefix]
    digit = int(np.searchsorted(cumulated, rank, side="right"))
    return prefix * len(cumulated) + digit, rank - (int(cumulated[digit - 1]) if digit else 0)


def _keys(values: Array) -> Array:
    """Return unsigned integers in the order of the values."""
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    bits = native.view(f"u{native.itemsize}")
    return bits ^ _turned(native.dtype, bits)


def _values(keys: Array, dtype: np.dtype[Any]) -> Array:
    """Return the values of `_keys`."""
    return (keys ^ _turned(dtype, ~keys)).view(dtype)


def _turned(dtype: np.dtype[Any], bits: Array) -> Array:
    """Return which bits differ between values and keys, from bits that lead with the values' signs.

    Negative numbers come before the others: the sign is turned. The other bits of an IEEE float grow with
    its magnitude, and are turned in negative ones.
    """
    sign = 8 * dtype.itemsize - 1
    top = bits.dtype.type(0 if dtype.kind == "u" else 1 << sign)
    if dtype.kind != "f":
        return np.asarray(top)
    return np.asarray((bits.view(f"i{dtype.itemsize}") >> sign).view(bits.dtype) | top)
