"""Arrays of Zarr in blocks: a chunk of one plane each, a file that is there once it is done."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.array_spec import ArrayConfigParams

from microseg.data.images import Array
from microseg.data.streams.image import Plane

CHUNK = 1024

# zarr leaves out chunks that are all fill value, and a block of background would look as if it were to do.
_WRITE_ALL: ArrayConfigParams = {"write_empty_chunks": True}


def frugal() -> AbstractContextManager[Any]:
    """Let zarr decode one chunk after the other for as long as the context lasts.

    Its threads are started at their first use and stay as many: one, if that is in this context.
    Each of its threads keeps memory of its own: with 6 threads and 10 chunks under way, its defaults, the
    objects of 12288 x 12288 pixels took 371 MiB and those of 4096 x 4096 300 MiB; with one, 231 and 230.
    """
    one = {"threading.max_workers": 1, "async.concurrency": 1}
    context: AbstractContextManager[Any] = zarr.config.set(one)
    return context


class PlaneArray:
    """A plane of an array of Zarr, read and written by two slices."""

    def __init__(self, array: Any, plane: Plane) -> None:
        self._array, self._plane = array, plane
        self.shape: tuple[int, int] = array.shape[-2:]
        self.dtype: np.dtype[Any] = array.dtype

    def __getitem__(self, window: tuple[slice, slice]) -> Array:
        """Read a window."""
        return np.asarray(self._array[(*self._plane, *window)])

    def __setitem__(self, window: tuple[slice, slice], values: Any) -> None:
        """Write a window."""
        self._array[(*self._plane, *window)] = values


def open_level(folder: Path) -> Any:
    """Open an array for reading and writing."""
    return zarr.open_array(folder, mode="r+").with_config(_WRITE_ALL)


def add_level(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any, axes: list[str]) -> Any:
    """Create an array of blocks of one plane each."""
    version = group.metadata.zarr_format
    array = group.create_array(
        name,
        shape=shape,
        chunks=(*(1 for _ in shape[:-2]), *(min(CHUNK, side) for side in shape[-2:])),
        dtype=dtype,
        fill_value=0,
        chunk_key_encoding={"name": "default" if version == 3 else "v2", "separator": "/"},
        dimension_names=axes if version == 3 else None,  # NGFF 0.5 requires them; Zarr 2 has none
        overwrite=True,
    )
    return array.with_config(_WRITE_ALL)


def add_halved(group: zarr.Group, finer: Any, name: str, axes: list[str]) -> Any:
    """Add a level with every second pixel, block by block."""
    shape = (*finer.shape[:-2], *(math.ceil(side / 2) for side in finer.shape[-2:]))
    level = add_level(group, name, shape, finer.dtype, axes)
    for plane, rows, columns in blocks(shape):
        twice = tuple(slice(2 * side.start, 2 * side.stop, 2) for side in (rows, columns))
        level[(*plane, rows, columns)] = finer[(*plane, *twice)]
    return level


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[Plane, slice, slice]]:
    """Yield the blocks of an array, plane by plane, in reading order."""
    for plane in np.ndindex(*shape[:-2]):
        for corner in itertools.product(*(range(0, side, CHUNK) for side in shape[-2:])):
            rows, columns = (
                slice(at, min(at + CHUNK, side)) for at, side in zip(corner, shape[-2:], strict=True)
            )
            yield plane, rows, columns
