"""How many tiles go through a network at once: as many as are fastest here, measured once.

The numbers that a network computes differ in their last digits with the size of a batch. So the size is
measured once per loaded model and then stays; where results must be equal bit by bit between processes or
machines, the environment variable ``MICROSEG_BATCH_SIZE`` fixes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError
from microseg.tiling import Predict

BATCH_SIZE = "MICROSEG_BATCH_SIZE"
LARGE = 256  # tiles' area from which on an image is worth a measurement
MOST_PIXELS = 2**20  # of a batch of several tiles: its activations take some hundred times that
Room = Callable[[int], bool]
_GAIN = 0.95  # a batch of twice the size must take at most this time per tile to be worth its memory


def fixed_batch_size() -> int | None:
    """Return the number of tiles that the environment fixes, or None.

    Raises
    ------
    MicrosegError
        If it is no whole number from 1 on.
    """
    given = os.environ.get(BATCH_SIZE, "").strip()
    if not given:
        return None
    if not given.isdecimal() or int(given) < 1:
        raise MicrosegError(f"{BATCH_SIZE} is '{given}'; give a number of tiles from 1 on, or unset it")
    return int(given)


def is_large(shape: tuple[int, ...], tile: int) -> bool:
    """Say whether an image, (height, width, ...), is worth a measurement of `fastest_batch_size`."""
    return shape[0] * shape[1] >= LARGE * tile**2


def unlimited(size: int) -> bool:
    """Say that there is memory for any number of tiles at once."""
    return True


def fastest_batch_size(
    predict: Predict,
    tile: NDArray[np.generic],
    clock: Callable[[], float] = time.perf_counter,
    room: Room = unlimited,
) -> int:
    """Double the number of tiles per call for as long as each tile gets faster.

    Parameters
    ----------
    predict : callable
        From a batch (n, tile, tile, channels).
    tile : ndarray, shape (tile, tile, channels)
        What to measure with.
    clock : callable
        The time in seconds.
    room : callable
        Is asked, before so many tiles at once are tried, whether there is memory for them.

    Returns
    -------
    int
        1, 2, 4, 8 or 16, with no more than `MOST_PIXELS` pixels in a batch of several tiles.
    """
    best, fastest = 1, _seconds_per_tile(predict, tile, 1, clock)
    while best < 16 and 2 * best * tile.shape[0] * tile.shape[1] <= MOST_PIXELS and room(2 * best):
        seconds = _seconds_per_tile(predict, tile, 2 * best, clock)
        if seconds > _GAIN * fastest:
            break
        best, fastest = 2 * best, seconds
    return best


def _seconds_per_tile(
    predict: Predict, tile: NDArray[np.generic], size: int, clock: Callable[[], float]
) -> float:
    batch = np.repeat(tile[None], size, axis=0)
    predict(batch)  # a first call of a size compiles and finds its algorithms
    started = clock()
    predict(batch)
    return (clock() - started) / size
