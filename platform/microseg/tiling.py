"""Predict an image of any size with a network that sees tiles of one size; numpy only.

The network is an argument, so that training, batch prediction and serving share this one code path
and the tests can put the identity in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError

Array = NDArray[np.float32]
Corner = tuple[int, int]
Predict = Callable[[NDArray[np.generic]], NDArray[np.floating]]


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return where the tiles along one axis start: evenly spread, the last one flush with the end.

    Parameters
    ----------
    length : int
        Pixels along the axis, at least ``tile``.
    tile : int
        Side of a tile in pixels.
    overlap : float
        Least fraction of a tile shared with its neighbour, in [0, 1).

    Returns
    -------
    list of int
        Ascending starts; the first is 0, the last ``length - tile``.

    Raises
    ------
    MicrosegError
        If no tile fits or the overlap is out of range.
    """
    if not 1 <= tile <= length:
        raise MicrosegError(f"tile {tile} does not fit an axis of {length} pixels; give 1 to {length}")
    if not 0.0 <= overlap < 1.0:
        raise MicrosegError(f"overlap is {overlap}; give the shared fraction of a tile, 0 <= overlap < 1")
    stride = max(1, int(tile * (1.0 - overlap)))
    count = 1 - (tile - length) // stride  # ceiling division
    return [round(start) for start in np.linspace(0, length - tile, count)]


def _profile(tile: int, overlap: float) -> Array:
    """Return the weights along one axis: 1 in the core, falling towards both ends like a Hann window."""
    ramp = min(int(np.ceil(tile * overlap)), tile // 2)
    profile = np.ones(tile, np.float32)
    # Sampled at pixel centres, so that not even the outermost weight is zero: every pixel stays covered.
    rise = np.sin(0.5 * np.pi * (np.arange(ramp) + 0.5) / max(ramp, 1)) ** 2
    profile[:ramp] = rise
    profile[tile - ramp :] = rise[::-1]
    return profile


def blend_window(tile: int, overlap: float) -> Array:
    """Return the weight of every pixel of a tile where tiles overlap: a flat core with Hann flanks.

    Parameters
    ----------
    tile : int
        Side of a tile in pixels.
    overlap : float
        Fraction of a tile that the flanks take at each end, in [0, 1); 0 gives all ones.

    Returns
    -------
    ndarray of float32, shape (tile, tile)
        Weights in (0, 1], symmetric; they need no normalisation, `predict_tiled` divides by their sum.
    """
    profile = _profile(tile, overlap)
    return np.outer(profile, profile)


def _pad(image: NDArray[np.generic], least: Sequence[int]) -> tuple[NDArray[np.generic], Corner]:
    """Mirror an image smaller than the least height and width; return it and where the image starts."""
    missing = [max(0, length - side) for length, side in zip(least, image.shape[:2], strict=True)]
    if not any(missing):
        return image, (0, 0)
    widths = [(gap // 2, gap - gap // 2) for gap in missing]
    # A reflection needs a second pixel; "symmetric" repeats the border and works for one.
    mode = "reflect" if min(image.shape[:2]) > 1 else "symmetric"
    return np.pad(image, [*widths, (0, 0)], mode=mode), (widths[0][0], widths[1][0])  # type: ignore[call-overload]


def _predictions(
    image: NDArray[np.generic], predict: Predict, corners: Sequence[Corner], tile: int, batch_size: int
) -> Iterator[tuple[Corner, NDArray[np.floating]]]:
    """Yield every tile's corner and prediction; all batches have one shape, so no predictor retraces."""
    for first in range(0, len(corners), batch_size):
        part = corners[first : first + batch_size]
        filled = [*part, *[part[-1]] * (batch_size - len(part))]
        batch = np.stack([image[y : y + tile, x : x + tile] for y, x in filled])
        yield from zip(part, np.asarray(predict(batch)), strict=False)


def _coverage(starts: Sequence[int], length: int, profile: Array) -> Array:
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total


def predict_tiled(
    image: NDArray[np.generic], predict: Predict, *, tile: int, overlap: float, batch_size: int
) -> Array:
    """Predict a whole image in overlapping tiles and blend them without seams.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        Any size from one pixel on; smaller than a tile, it is mirrored to the tile's size.
    predict : callable
        From a batch (batch_size, tile, tile, channels) of the image's dtype to
        (batch_size, tile, tile, classes). The last batch is filled up by repetition.
    tile : int
        Side of a tile in pixels, a multiple of the network's stride.
    overlap : float
        Least fraction of a tile shared with its neighbour, in [0, 1).
    batch_size : int
        Tiles per call of ``predict``.

    Returns
    -------
    ndarray of float32, shape (height, width, classes)
        The weighted mean of all tiles over each pixel.

    Raises
    ------
    MicrosegError
        If the image is empty or has no channel axis, or a setting is out of range.
    """
    _check_image(image)
    if batch_size < 1:
        raise MicrosegError(f"batch_size is {batch_size}; give at least 1")
    padded, (top, left) = _pad(image, (tile, tile))
    rows, columns = (tile_starts(side, tile, overlap) for side in padded.shape[:2])
    corners = [(y, x) for y in rows for x in columns]
    window = blend_window(tile, overlap)[..., None]
    total: Array | None = None
    for (y, x), tile_map in _predictions(padded, predict, corners, tile, batch_size):
        if total is None:
            total = np.zeros((*padded.shape[:2], tile_map.shape[-1]), np.float32)
        total[y : y + tile, x : x + tile] += window * tile_map
    assert total is not None  # a non-empty image has at least one tile
    # The grid is a product of its axes, so the sum of all windows is one too: no second full-size array.
    profile = _profile(tile, overlap)
    total /= _coverage(rows, padded.shape[0], profile)[:, None, None]
    total /= _coverage(columns, padded.shape[1], profile)[None, :, None]
    return total[top : top + image.shape[0], left : left + image.shape[1]]


def predict_whole(image: NDArray[np.generic], predict: Predict, *, multiple: int) -> Array:
    """Predict an image in one piece: mirrored to a size that the network takes, and cropped back.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        Any size from one pixel on.
    predict : callable
        From a batch of one, (1, height, width, channels), to (1, height, width, classes).
    multiple : int
        What height and width must be a multiple of: the network's stride, in pixels.

    Returns
    -------
    ndarray of float32, shape (height, width, classes)

    Raises
    ------
    MicrosegError
        If the image is empty or has no channel axis.
    """
    _check_image(image)
    padded, (top, left) = _pad(image, [-side // multiple * -multiple for side in image.shape[:2]])
    probability: Array = np.asarray(predict(padded[None]), np.float32)[0]
    return probability[top : top + image.shape[0], left : left + image.shape[1]]


def _check_image(image: NDArray[np.generic]) -> None:
    if image.ndim != 3 or 0 in image.shape:
        raise MicrosegError(
            f"image has shape {image.shape}; expected (height, width, channels), none of them 0"
        )
