"""How tiles lie on an image and are blended."""

from __future__ import annotations

import math
from typing import NamedTuple

from microseg.errors import MicrosegError
from microseg.tiling.windows import WINDOWS


class Grid(NamedTuple):
    """How tiles lie on an image, in pixels.

    ``tile`` is the side of a tile; ``halo`` is what a tile leaves to its neighbours at its borders, less than
    half of it; ``stride`` is the network's: what the tile is a multiple of; ``window`` is an entry of
    ``WINDOWS``: how neighbours are blended.
    """

    tile: int
    halo: int
    stride: int = 1
    window: str = "flat"

    @property
    def alignment(self) -> int:
        """What the places of tiles are multiples of: the stride, halved until the halo leaves room for it.

        A network with pooling answers differently when its input moves by less than its stride. On tiles
        out of step, a U-Net of five levels differed from one piece by 0.0077 on average; in step, by 0.0001.
        """
        alignment = self.stride
        while alignment > self.tile - 2 * self.halo:
            alignment //= 2
        return alignment

    def margin(self, length: int) -> int:
        """Return by how much an axis is mirrored at its borders: the halo, unless one tile holds the axis.

        At the border of an image too, what a network makes of its own padding is left out: on phase contrast
        images, the Dice within 8 pixels of the border rose from 0.71 to 0.76 (0.75 with the true
        surroundings). An image of one tile stays one, at the cost of one, seen as a patch was in training.
        """
        return -(-self.halo // self.alignment) * self.alignment if length > self.tile else 0

    def starts(self, length: int) -> list[int]:
        """Return where the tiles along one axis start: as few as cover it, evenly spread, in step.

        Parameters
        ----------
        length : int
            Pixels along the axis, at least 1.

        Returns
        -------
        list of int
            From 0 on, equal distances that are multiples of the alignment; neighbours share at least two
            halos. The last tile ends at the end of the axis or beyond.
        """
        rest, room = max(0, length - self.tile), self.tile - 2 * self.halo
        count = 1 - -rest // (room // self.alignment * self.alignment)
        step = -(-rest // (max(1, count - 1) * self.alignment)) * self.alignment
        return [number * step for number in range(count)]

    def tiles(self, height: int, width: int) -> int:
        """Return how many tiles an image takes, with what is mirrored at its borders."""
        return math.prod(len(self.starts(side + 2 * self.margin(side))) for side in (height, width))


def halo_of(tile: int, overlap: float) -> int:
    """Return the halo, in pixels, of tiles that share the fraction ``overlap`` with a neighbour: its half."""
    return int(tile * overlap / 2)


def check_grid(grid: Grid) -> None:
    """Refuse tiles without pixels, or without a pixel beyond the halo, and an unknown window.

    Raises
    ------
    MicrosegError
        See above.
    """
    if grid.window not in WINDOWS:
        raise MicrosegError(f"window is '{grid.window}'; give one of {', '.join(WINDOWS)}")
    if grid.tile < 1:
        raise MicrosegError(f"tile is {grid.tile}; give the side of a tile in pixels, at least 1")
    if not 0 <= 2 * grid.halo < grid.tile:
        most = (grid.tile - 1) // 2
        raise MicrosegError(
            f"halo is {grid.halo}; give 0 to {most} pixels, less than half of tile {grid.tile}"
        )
