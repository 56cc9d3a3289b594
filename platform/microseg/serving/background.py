"""Empty parts of an image, which need no network; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microseg.tiling import Predict


def skipping_flat(predict: Predict, least: float, maps: int) -> Predict:
    """Return what takes tiles of nearly equal values for background, and asks ``predict`` for the others.

    Parameters
    ----------
    predict : callable
        From a batch (n, tile, tile, channels) to (n, tile, tile, maps). Of n tiles it is given those that are
        not flat, filled up by repetition to 1, 2, 4, ... or n: few sizes, which it compiles once each.
    least : float
        The distance between the smallest and the largest value of some channel from which on a tile is not
        flat, in units of the preprocessed image.
    maps : int
        Of several probability maps the first is the background's.
    """

    def skipping(batch: NDArray[np.generic]) -> NDArray[np.floating]:
        busy = np.flatnonzero((np.ptp(batch, axis=(1, 2)) >= least).any(axis=-1))
        answer = np.zeros((*batch.shape[:3], maps), np.float32)
        answer[..., 0] = maps > 1
        if len(busy):
            size = min(1 << (len(busy) - 1).bit_length(), len(batch))
            filled = np.concatenate([busy, np.repeat(busy[-1:], size - len(busy))])
            answer[busy] = np.asarray(predict(batch[filled]))[: len(busy)]
        return answer

    return skipping
