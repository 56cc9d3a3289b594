"""One axis of an image, mirrored at its ends and cut into tiles."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microseg.tiling.grid import Grid
from microseg.tiling.windows import WINDOWS, Array

Places = NDArray[np.intp]


class Axis(NamedTuple):
    """Tiles along one axis of a mirrored image, or those of them that a part of the image needs.

    ``source`` is each place's pixel in the image; ``starts`` are the tiles' first places, ``weights`` what
    their pixels count; ``inside`` are the places of the wanted pixels, and ``coverage`` is the sum of the
    weights of all tiles of the image over each of these.
    """

    source: Places
    starts: list[int]
    weights: Array
    inside: slice
    coverage: Array

    @property
    def extent(self) -> slice:
        """The places that the tiles fill."""
        return slice(self.starts[0], self.starts[-1] + len(self.weights))

    def part(self, wanted: slice) -> Axis:
        """Return the axis with the tiles that count for some pixels of the image, and with these pixels."""
        first, stop = self.inside.start + wanted.start, self.inside.start + wanted.stop
        counting = np.flatnonzero(self.weights)
        starts = [
            start for start in self.starts if start + counting[0] < stop and start + counting[-1] >= first
        ]
        return self._replace(starts=starts, inside=slice(first, stop), coverage=self.coverage[wanted])


def axis(length: int, grid: Grid) -> Axis:
    """Return the tiles along an axis of so many pixels."""
    before = grid.margin(length) if length > grid.tile else (grid.tile - length) // 2
    starts = grid.starts(length + 2 * grid.margin(length))
    weights = (
        WINDOWS[grid.window](grid.tile, grid.halo) if len(starts) > 1 else np.ones(grid.tile, np.float32)
    )
    source = mirrored(length, before, starts[-1] + grid.tile)
    total = np.zeros(len(source), np.float32)
    for start in starts:
        total[start : start + grid.tile] += weights
    inside = slice(before, before + length)
    return Axis(source, starts, weights, inside, total[inside])


def mirrored(length: int, before: int, total: int) -> Places:
    """Return the image's pixel behind each pixel of an axis that is mirrored at both ends."""
    # A reflection needs a second pixel; "symmetric" repeats the border and works for one.
    mode: Literal["reflect", "symmetric"] = "reflect" if length > 1 else "symmetric"
    return np.pad(np.arange(length), (before, total - length - before), mode)
