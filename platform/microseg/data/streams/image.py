"""An image that is read window by window: blocks are decoded as windows need them; the last ones are kept."""

from __future__ import annotations

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from microseg.data.images import DAMAGE, Array, supported, without_alpha
from microseg.errors import MicrosegError, one_line

CACHE = 32 * 2**20

Plane = tuple[int, ...]


def all_planes(sizes: Mapping[str, int]) -> list[Plane]:
    """Return every plane of an image, in the order of its axes.

    Parameters
    ----------
    sizes : mapping of str to int
        How many planes there are along each axis, see `ImageStream`; without any there is one, ``()``.
    """
    return list(itertools.product(*map(range, sizes.values())))


class Facts(NamedTuple):
    """What a file says about its image beside the pixels.

    Attributes
    ----------
    scale : mapping of str to float
        Size of a pixel along ``z``, ``y`` and ``x`` in micrometres and of a step along ``t`` in seconds, as
        far as it is known.
    alpha : bool
        Whether the last channel is marked as transparency.
    ngff : str or None
        Version of the OME-Zarr metadata, ``"0.4"`` or ``"0.5"``.
    """

    scale: Mapping[str, float] = {}
    alpha: bool = False
    ngff: str | None = None


class Blocks(Protocol):
    """The planes of a file as grids of blocks, each of which can be decoded alone."""

    shape: tuple[int, int, int]  # height, width, channels of a plane as stored
    dtype: np.dtype[Any]  # as stored, native byte order
    planes: dict[str, int]
    block: tuple[int, int]  # height and width of a block; the last ones end at the image's border
    decoded: int  # bytes that decoding one block holds
    facts: Facts

    def decode(self, plane: Plane, row: int, column: int) -> Array:
        """Return the block of that row and column of the grid: (height, width, channels)."""

    def close(self) -> None:
        """Close the file."""


class ImageStream:
    """An open image, see `open_stream`. It may be read by several threads, one after the other.

    Attributes
    ----------
    name : str
        What it is called in errors.
    shape : tuple of int
        Height, width and channels of a plane.
    dtype : numpy.dtype
        Of what `read` returns: uint8, uint16 or float32, as for `microseg.data.images.decode_image`.
    planes : dict of str to int
        How many planes there are along ``t`` and ``z``, in this order, where more than one.
    scale : dict of str to float
        See `Facts`.
    ngff : str or None
        See `Facts`.
    block : tuple of int
        Height and width of the parts of the file that are decoded alone.
    chunk_bytes : int
        What decoding the smallest readable part of the file holds: a chunk, tile or strip.
    """

    def __init__(self, name: str, blocks: Blocks) -> None:
        if 0 in blocks.shape:
            raise MicrosegError(f"{name}: the image has no pixels; replace it")
        if blocks.dtype.kind not in "biuf":
            raise MicrosegError(f"{name}: {blocks.dtype} values; save numbers of 8 or 16 bits, or float32")
        self.name = name
        self._alpha = blocks.facts.alpha
        self.shape = (*blocks.shape[:2], blocks.shape[2] - self._alpha)
        self.dtype = supported(np.zeros((1, 1, 1), blocks.dtype), name).dtype
        self.planes = dict(blocks.planes)
        self.scale = dict(blocks.facts.scale)
        self.ngff = blocks.facts.ngff
        self.block = blocks.block
        self.chunk_bytes = blocks.decoded
        self._blocks = blocks
        self._kept: OrderedDict[tuple[Plane, int, int], Array] = OrderedDict()
        self._kept_bytes = 0
        self._capacity = CACHE
        self._block_bytes = math.prod(blocks.block) * blocks.shape[2] * blocks.dtype.itemsize
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel in micrometres; None where unknown, or where pixels are not square within 1 %."""
        height, width = self.scale.get("y"), self.scale.get("x")
        if height is None or width is None or abs(height - width) > 0.01 * max(height, width):
            return None
        return (height + width) / 2 if height != width else height

    def keep(self, columns: int) -> None:
        """Keep as many parts as lie side by side in so many columns, also where that is more than `CACHE`."""
        self._capacity = self._kept_at_most(columns)

    def memory(self, columns: int = 0) -> int:
        """Return the bytes that reading holds at most beside the window and what one part takes compressed.

        Those are the parts kept, and one that is decoded, joined and brought into native byte order.

        Parameters
        ----------
        columns : int
            See `keep`.
        """
        return self._kept_at_most(columns) + 3 * self.chunk_bytes

    def _kept_at_most(self, columns: int) -> int:
        width, block = self.shape[1], self.block[1]
        across = min(-(-columns // block) + 1, -(-width // block)) * self._block_bytes
        return max(min(CACHE, self.plane_bytes * math.prod(self.planes.values())), across)

    @property
    def plane_bytes(self) -> int:
        """Bytes of a plane."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, rows: slice, columns: slice, plane: Plane = ()) -> Array:
        """Read a window.

        Parts of the file that were decoded last are kept, `CACHE` bytes of them, so that windows that
        overlap decode few of them twice.

        Parameters
        ----------
        rows, columns : slice
            Of one plane.
        plane : tuple of int
            Which one, along each axis of `planes`.

        Returns
        -------
        ndarray, shape (height, width, channels)
            Of type `dtype`. A channel that is marked as transparency is dropped.

        Raises
        ------
        MicrosegError
            If that part of the file is damaged or not finite, if transparency varies over the window, or if
            there is no such plane.
        """
        self._check_plane(plane)
        top, bottom, _ = rows.indices(self.shape[0])
        left, right, _ = columns.indices(self.shape[1])
        shape = (max(bottom - top, 0), max(right - left, 0), self._blocks.shape[2])
        window = np.empty(shape, self._blocks.dtype)
        with self._lock:
            for row, inside_rows, to_rows in _parts(top, bottom, self._blocks.block[0]):
                for column, inside, to_columns in _parts(left, right, self._blocks.block[1]):
                    window[to_rows, to_columns] = self._block(plane, row, column)[inside_rows, inside]
        return supported(without_alpha(window, self.name) if self._alpha else window, self.name)

    def close(self) -> None:
        """Close the file, and forget what was decoded."""
        self._kept.clear()
        self._kept_bytes = 0
        self._blocks.close()

    def _check_plane(self, plane: Plane) -> None:
        sizes = tuple(self.planes.values())
        if len(plane) != len(sizes) or not all(0 <= at < size for at, size in zip(plane, sizes, strict=True)):
            raise MicrosegError(
                f"{self.name}: there is no plane {plane}; give one index for each of"
                f" {self.planes or 'its axes beside y and x, which are none'}"
            )

    def _block(self, plane: Plane, row: int, column: int) -> Array:
        key = plane, row, column
        if key not in self._kept:
            while self._kept and self._kept_bytes + self._block_bytes > self._capacity:
                self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            self._kept[key] = self._decode(key)
            self._kept_bytes += self._kept[key].nbytes
        self._kept.move_to_end(key)
        return self._kept[key]

    def _decode(self, key: tuple[Plane, int, int]) -> Array:
        try:
            return self._blocks.decode(*key)
        except DAMAGE as error:
            raise MicrosegError(
                f"{self.name}: damaged or incomplete file ({one_line(error)}); replace it"
            ) from error


def _parts(start: int, stop: int, block: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each block that an interval meets: its number, what of it is met, and where that goes."""
    for number in range(start // block, -(-stop // block) if stop > start else 0):
        low, high = max(start, number * block), min(stop, (number + 1) * block)
        yield (
            number,
            slice(low - number * block, high - number * block),
            slice(low - start, high - start),
        )
