"""Windows: how much a tile's prediction of a pixel counts among those of its neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def flat(tile: int, halo: int) -> Array:
    """Return 1 in the core and 0 in the halo, with a Hann flank of the halo's width between them.

    A pixel that only one tile has beyond its halo is that tile's alone.
    """
    ramp = min(halo, tile // 2 - halo)
    edge = np.minimum(np.arange(tile), np.arange(tile)[::-1]) + 0.5  # from the border to the pixel's centre
    rise = np.clip((edge - halo) / max(ramp, 1), 0.0, 1.0) if halo else np.ones(tile)
    weights: Array = np.sin(0.5 * np.pi * rise).astype(np.float32) ** 2
    return weights


def hann(tile: int, halo: int) -> Array:
    """Return the Hann window of a whole tile, whatever its halo; no pixel has the weight 0."""
    weights: Array = np.sin(np.pi * (np.arange(tile) + 0.5) / tile).astype(np.float32) ** 2
    return weights


def gaussian(tile: int, halo: int) -> Array:
    """Return a Gaussian of a whole tile, whatever its halo; its standard deviation is an eighth of the tile.

    References
    ----------
    Isensee et al. 2021, nnU-Net, DOI 10.1038/s41592-020-01008-z.
    """
    deviations = (np.arange(tile) + 0.5 - tile / 2) / (tile / 8)
    weights: Array = np.exp(-0.5 * deviations**2).astype(np.float32)
    return weights


# The weights along one axis of a tile, (tile,) in [0, 1], positive beyond the halo.
WINDOWS: dict[str, Callable[[int, int], Array]] = {"flat": flat, "hann": hann, "gaussian": gaussian}
