"""What crosses the borders of blocks: which objects of neighbours are one; as large as the borders."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

from microseg.instances.grid import Core, crop

Ids = NDArray[np.int64]


class Seams:
    """The objects on the borders of the blocks, which are added in reading order.

    Parameters
    ----------
    divides : bool
        Whether the method divides pieces of foreground. If not, all that touches is one. If it does, two
        objects are one where each is what the other shares most of the border with: they are the same
        pixels where both blocks saw the whole piece, and otherwise their neighbours stay apart.
    """

    def __init__(self, *, divides: bool) -> None:
        self._divides = divides
        self._count = 0
        self._areas: list[Ids] = []
        self._pairs: list[Ids] = []
        # A line of objects one pixel inside the next block, and the column where it starts.
        self._above: list[tuple[int, Ids]] = []
        self._below: list[tuple[int, Ids]] = []
        self._left: Ids = np.zeros(0, np.int64)

    def add(self, core: Core, labels: NDArray[np.integer], objects: NDArray[np.integer], areas: Ids) -> None:
        """Join a block's objects with those of the blocks above and to the left.

        Parameters
        ----------
        core : Core
            The block.
        labels : ndarray of int
            Its objects, in the core and one pixel around it.
        objects : ndarray of int
            Those that touch another block, ascending.
        areas : ndarray of int64
            Their pixels in the core.
        """
        numbers = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        numbers[objects] = self._count + np.arange(len(objects)) + 1
        self._count += len(objects)
        self._areas.append(areas)
        around = core.grown(1)
        window = numbers[labels]
        inside = crop(window, around, core.window)
        if core.columns.start == 0:
            self._above, self._below = self._below, []
        else:
            self._join(self._left, inside[:, 0])
        for start, line in self._above:
            first = max(start, core.columns.start)
            stop = min(start + len(line), core.columns.stop)
            if first < stop:
                own = inside[0, first - core.columns.start : stop - core.columns.start]
                self._join(line[first - start : stop - start], own)
        self._below.append((around[1].start, window[-1].copy()))
        self._left = crop(window, around, (core.rows, around[1]))[:, -1].copy()

    def _join(self, one: Ids, other: Ids) -> None:
        """Remember which objects of two blocks are one, by what they call the same pixels."""
        both = (one > 0) & (other > 0)
        pairs, shared = np.unique(np.stack([one[both], other[both]]), axis=1, return_counts=True)
        if self._divides:
            pairs = pairs[:, _largest(pairs[0], shared) & _largest(pairs[1], shared)]
        self._pairs.append(pairs)

    def numbers(self, min_size: int) -> tuple[Ids, int]:
        """Return the final number of every object that was added, in that order, and how many there are.

        Parameters
        ----------
        min_size : int
            Objects of fewer pixels, all blocks together, get 0.
        """
        first, second = np.concatenate([*self._pairs, np.zeros((2, 0), np.int64)], axis=1) - 1
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(self._count, self._count))
        count, joined = csgraph.connected_components(graph, directed=False)
        sizes = np.bincount(joined, np.concatenate([*self._areas, np.zeros(0)]), minlength=count)
        kept = sizes >= min_size
        return (np.cumsum(kept) * kept)[joined], int(kept.sum())


def _largest(labels: Ids, shared: Ids) -> NDArray[np.bool_]:
    """Return which pairs share the most pixels of all pairs of the same object."""
    _, index = np.unique(labels, return_inverse=True)
    most = np.zeros(index.max(initial=-1) + 1, np.int64)
    np.maximum.at(most, index, shared)
    largest: NDArray[np.bool_] = shared == most[index]
    return largest
