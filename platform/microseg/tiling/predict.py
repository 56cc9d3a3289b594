"""Predict an image, or a part of one, in overlapping tiles that are blended without seams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError
from microseg.tiling.axis import Axis, Places, axis, mirrored
from microseg.tiling.grid import Grid, check_grid
from microseg.tiling.windows import Array

Image = NDArray[np.generic]
Corner = tuple[int, int]
Region = tuple[slice, slice]
Predict = Callable[[Image], NDArray[np.floating]]


class Sliced(Protocol):
    """Whatever is read by slices: a NumPy array, a Zarr array, a part of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""

    def __getitem__(self, key: Any, /) -> Any: ...


def predict_region(
    image: Sliced,
    predict: Predict,
    *,
    grid: Grid,
    region: Region,
    batch_size: int,
    fixed: bool = False,
) -> Iterator[Array]:
    """Predict a part of an image, a few rows at a time, as `predict_tiled` predicts the whole.

    The tiles are those of the whole image. Nothing is held but a row of tiles across the region, its
    predictions, and a batch.

    Parameters
    ----------
    image : array-like, (height, width, channels)
        Whatever is read by two slices, rows and columns, and has a shape; nothing more is read at once than
        a row of tiles.
    predict, grid, batch_size, fixed
        See `predict_tiled`. With ``fixed``, and a network that answers a tile alike whatever else is in the
        batch, the numbers are those of `predict_tiled` bit by bit.
    region : tuple of slice
        Rows and columns of the image, at least one of each.

    Yields
    ------
    ndarray of float32, shape (rows, columns of the region, classes)
        From the first to the last row of the region.

    Raises
    ------
    MicrosegError
        If a setting is out of range, or the region does not lie in the image.
    """
    _check_image(image.shape)
    if batch_size < 1:
        raise MicrosegError(f"batch_size is {batch_size}; give at least 1")
    check_grid(grid)
    sides = image.shape[:2]
    if not all(0 <= part.start < part.stop <= side for part, side in zip(region, sides, strict=True)):
        raise MicrosegError(f"region {region} of an image of {sides} pixels; give rows and columns of it")
    rows, columns = (axis(side, grid).part(part) for side, part in zip(sides, region, strict=True))
    size = batch_size if fixed else _evened(len(rows.starts) * len(columns.starts), batch_size)
    yield from _blended(_predictions(_tiles(image, rows, columns), predict, size), rows, columns)


def predict_tiled(
    image: Sliced,
    predict: Predict,
    *,
    grid: Grid,
    batch_size: int,
    fixed: bool = False,
) -> Array:
    """Predict a whole image in overlapping tiles and blend them without seams.

    With the window ``flat``, and a network whose output depends on no pixel farther away than the halo, the
    result is that of `predict_whole` with the grid's margins: exactly what one piece gives.

    Parameters
    ----------
    image : array-like, (height, width, channels)
        Whatever is read by two slices, of any size from one pixel on; it is mirrored at its borders and up
        to a tile's size, see `Grid`.
    predict : callable
        From a batch (n, tile, tile, channels) of the image's dtype to (n, tile, tile, classes).
    grid : Grid
        Tile, halo, stride and window.
    batch_size : int
        Most tiles per call of ``predict``. All calls for an image take equally many, as few as it needs
        calls; the last call is filled up by repetition.
    fixed : bool
        Whether every call takes ``batch_size`` tiles, however many an image needs.

    Returns
    -------
    ndarray of float32, shape (height, width, classes)
        The weighted mean of all tiles over each pixel.

    Raises
    ------
    MicrosegError
        If the image is empty or has no channel axis, or a setting is out of range.
    """
    _check_image(image.shape)
    height, width = image.shape[:2]
    region = slice(0, height), slice(0, width)
    slabs = predict_region(image, predict, grid=grid, region=region, batch_size=batch_size, fixed=fixed)
    first = next(slabs)
    total = np.empty((height, width, first.shape[-1]), np.float32)
    done = 0
    for slab in itertools.chain([first], slabs):
        total[done : done + len(slab)] = slab
        done += len(slab)
    return total


def _evened(tiles: int, most: int) -> int:
    """Return the size of the fewest batches that are all equally large."""
    return -(-tiles // -(-tiles // most))


def _tiles(image: Sliced, rows: Axis, columns: Axis) -> Iterator[tuple[Corner, Image]]:
    """Yield every tile's corner and pixels in reading order; each row of tiles is read at once."""
    tile, left = len(rows.weights), columns.starts[0]
    for y in rows.starts:
        band = _read(image, rows.source[y : y + tile], columns.source[columns.extent])
        for x in columns.starts:
            yield (y, x), band[:, x - left : x - left + tile]


def _read(image: Sliced, rows: Places, columns: Places) -> Image:
    top, left = rows.min(), columns.min()
    window = slice(int(top), int(rows.max()) + 1), slice(int(left), int(columns.max()) + 1)
    return np.asarray(image[window])[np.ix_(rows - top, columns - left)]


def _predictions(
    tiles: Iterator[tuple[Corner, Image]], predict: Predict, size: int
) -> Iterator[tuple[Corner, NDArray[np.floating]]]:
    """Yield every tile's corner and prediction; all batches have one shape."""
    while part := list(itertools.islice(tiles, size)):
        corners, windows = zip(*part, strict=True)
        batch = np.stack([*windows, *[windows[-1]] * (size - len(part))])
        yield from zip(corners, np.asarray(predict(batch)), strict=False)


def _blended(
    predictions: Iterator[tuple[Corner, NDArray[np.floating]]], rows: Axis, columns: Axis
) -> Iterator[Array]:
    """Yield the rows that no later tile changes, from the sums of a rolling row of tiles."""
    tile, left = len(rows.weights), columns.starts[0]
    weights = np.outer(rows.weights, columns.weights)[..., None]
    width = columns.extent.stop - left
    total: Array | None = None
    following = [*rows.starts[1:], rows.extent.stop]
    by_row = itertools.groupby(predictions, key=lambda prediction: prediction[0][0])
    for (y, row), end in zip(by_row, following, strict=True):
        for (_, x), tile_map in row:
            if total is None:
                total = np.zeros((tile, width, tile_map.shape[-1]), np.float32)
            total[:, x - left : x - left + tile] += weights * tile_map
        assert total is not None  # each row has at least one tile
        yield from _finished(total, slice(y, end), rows, columns)
        total[: tile - (end - y)] = total[end - y :]
        total[tile - (end - y) :] = 0.0


def _finished(total: Array, done: slice, rows: Axis, columns: Axis) -> Iterator[Array]:
    """Yield the mean over finished places, as far as they lie in the region."""
    first, stop = max(done.start, rows.inside.start), min(done.stop, rows.inside.stop)
    if first >= stop:
        return
    left = columns.starts[0]
    inside = slice(columns.inside.start - left, columns.inside.stop - left)
    slab = total[first - done.start : stop - done.start, inside].copy()
    # The grid is a product of its axes, so the sum of all windows is one too: no second full-size array.
    slab /= rows.coverage[first - rows.inside.start : stop - rows.inside.start, None, None]
    slab /= columns.coverage[None, :, None]
    yield slab


def predict_whole(image: Image, predict: Predict, *, multiple: int, margins: Sequence[int] = (0, 0)) -> Array:
    """Predict an image in one piece: mirrored to a size that the network takes, and cropped back.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        Any size from one pixel on.
    predict : callable
        From a batch of one, (1, height, width, channels), to (1, height, width, classes).
    multiple : int
        What height and width must be a multiple of: the network's stride, in pixels.
    margins : sequence of int
        Pixels that are mirrored before the image, and at least as many behind it: see `Grid.margin`.

    Returns
    -------
    ndarray of float32, shape (height, width, classes)

    Raises
    ------
    MicrosegError
        If the image is empty or has no channel axis.
    """
    _check_image(image.shape)
    (height, width), (top, left) = image.shape[:2], margins
    rows = mirrored(height, top, -(height + 2 * top) // multiple * -multiple)
    columns = mirrored(width, left, -(width + 2 * left) // multiple * -multiple)
    probability: Array = np.asarray(predict(image[np.ix_(rows, columns)][None]), np.float32)[0]
    return probability[top : top + height, left : left + width]


def _check_image(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or 0 in shape:
        raise MicrosegError(f"image has shape {shape}; expected (height, width, channels), none of them 0")
