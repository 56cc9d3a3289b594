"""The blocks of an image, and how windows of it are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError
from microseg.tiling import Sliced

Window = tuple[slice, slice]
Read = Callable[[slice, slice], NDArray[Any]]


class Writable(Sliced, Protocol):
    """What is written by slices too."""

    @property
    def dtype(self) -> Any:
        """NumPy's type of the values."""

    def __setitem__(self, key: Any, value: Any, /) -> None: ...


Source = Read | Sliced


class Core(NamedTuple):
    """The part of an image that one block fills, without any margin."""

    rows: slice
    columns: slice
    shape: tuple[int, int]  # of the image

    @property
    def window(self) -> Window:
        """The block's rows and columns."""
        return self.rows, self.columns

    def grown(self, margin: int) -> Window:
        """Return the block with a margin, as far as the image goes."""
        rows, columns = (
            slice(max(0, side.start - margin), min(length, side.stop + margin))
            for side, length in zip(self.window, self.shape, strict=True)
        )
        return rows, columns

    def rim(self, margin: int, width: int) -> NDArray[np.bool_]:
        """Return which pixels of the block with its margin lie that near to where the image goes on."""
        sides = [np.arange(side.start, side.stop) for side in self.grown(margin)]
        near = [
            (at < at[0] + width * (at[0] > 0)) | (at > at[-1] - width * (at[-1] < length - 1))
            for at, length in zip(sides, self.shape, strict=True)
        ]
        rim: NDArray[np.bool_] = near[0][:, None] | near[1][None, :]
        return rim

    def on_seams(self, labels: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return the objects of a core that touch another block, ascending."""
        height, width = self.shape
        lines = [
            labels[: int(self.rows.start > 0)],
            labels[len(labels) - int(self.rows.stop < height) :],
            labels[:, : int(self.columns.start > 0)],
            labels[:, labels.shape[1] - int(self.columns.stop < width) :],
        ]
        found = np.unique(np.concatenate([line.ravel() for line in lines]))
        return found[found > 0]


def cores(shape: tuple[int, int], block: int) -> Iterator[Core]:
    """Yield the blocks of an image in reading order; the last of a row or column may be smaller.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image.
    block : int
        Side of a block, in pixels.

    Raises
    ------
    MicrosegError
        If the side is not positive.
    """
    if block < 1:
        raise MicrosegError(f"block is {block}; give the side of a block in pixels, at least 1")
    height, width = shape
    for y in range(0, height, block):
        for x in range(0, width, block):
            yield Core(slice(y, min(y + block, height)), slice(x, min(x + block, width)), (height, width))


def crop(array: NDArray[Any], window: Window, inner: Window) -> NDArray[Any]:
    """Return a part of what was read of a window."""
    rows, columns = (
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip(inner, window, strict=True)
    )
    return array[rows, columns]


def read_window(source: Source, window: Window) -> NDArray[Any]:
    """Read a window, (height, width, channels), of an array or through a callable.

    Raises
    ------
    MicrosegError
        If what is read has another size.
    """
    pixels = np.asarray(source(*window) if callable(source) else source[window])
    expected = tuple(side.stop - side.start for side in window)
    if pixels.ndim != 3 or pixels.shape[:2] != expected:
        raise MicrosegError(
            f"a window of {expected[0]} x {expected[1]} pixels was read as {pixels.shape}; "
            "give an image of (height, width, channels) with the labels' height and width"
        )
    return pixels
