"""How far around a pixel a network looks, and what cutting an image into tiles changes, as measured.

The theoretical receptive field of a deep network spans hundreds of pixels, most of which have next to no
effect on its output (Luo et al. 2016, arXiv:1701.04128).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from microseg.runtime import input_gradient
from microseg.tiling import Grid, predict_tiled, predict_whole

Image = NDArray[np.float32]

SHARE = 0.99  # of the gradient that the halo holds
WORST = 0.999  # quantile of the pixels' differences that stands for the worst of them


def view(image: Image, side: int) -> Image:
    """Return the square of some side about an image's centre, mirrored where the image is smaller."""
    cut = [slice(max(0, (length - side) // 2), None) for length in image.shape[:2]]
    square = image[cut[0], cut[1]][:side, :side]
    missing = [side - length for length in square.shape[:2]]
    return np.pad(square, [*((gap // 2, gap - gap // 2) for gap in missing), (0, 0)], mode="symmetric")


def influence(network: keras.Model, images: Sequence[Image]) -> NDArray[np.float64]:
    """Return how much of the gradient of a centre pixel's likeliest class lies at each distance.

    Parameters
    ----------
    network : keras.Model
        From (batch, side, side, channels) to (batch, side, side, maps).
    images : sequence of ndarray, shape (side, side, channels)
        Preprocessed squares. Each counts equally, however certain the network is of its centre.

    Returns
    -------
    ndarray of float64, shape (side // 2 + 1,)
        Shares by Chebyshev distance in pixels, whose sum is 1; all 0 where no gradient is left.
    """
    shares = [_by_distance(_gradient(network, image)) for image in images]
    mean: NDArray[np.float64] = np.mean(shares, axis=0)
    return mean / mean.sum() if mean.any() else mean


def _gradient(network: keras.Model, image: Image) -> Image:
    centre = image.shape[0] // 2
    slopes = input_gradient(
        lambda batch: keras.ops.max(network(batch, training=False)[:, centre, centre], axis=-1), image[None]
    )
    absolute: Image = np.abs(slopes[0]).sum(axis=-1)
    return absolute


def _by_distance(slopes: Image) -> NDArray[np.float64]:
    side = len(slopes)
    away = np.abs(np.arange(side) - side // 2)
    distances = np.maximum(away[:, None], away)
    sums = np.bincount(distances.ravel(), slopes.ravel(), minlength=side // 2 + 1)
    return sums / sums.sum() if np.isfinite(sums).all() and sums.any() else np.zeros(side // 2 + 1)


def measured_halo(networks: Sequence[keras.Model], images: Sequence[Image], tile: int) -> int:
    """Return the radius that holds 99 % of the gradient, averaged over networks and images.

    Parameters
    ----------
    networks : sequence of keras.Model
        The members of an ensemble.
    images : sequence of ndarray, shape (height, width, channels)
        Preprocessed; the tile about each one's centre is looked at.
    tile : int
        Side of a tile in pixels.

    Returns
    -------
    int
        Chebyshev radius in pixels, at most a quarter of the tile; that too where no gradient is left.
    """
    squares = [view(image, tile) for image in images]
    total = np.cumsum(np.sum([influence(network, squares) for network in networks], axis=0))
    return min(tile // 4, int(np.searchsorted(total, SHARE * total[-1]))) if total[-1] else tile // 4


def seam_error(
    networks: Sequence[keras.Model], images: Sequence[Image], grid: Grid, batch_size: int
) -> tuple[float, float]:
    """Compare predictions in tiles with predictions in one piece, where both see the same surroundings.

    Parameters
    ----------
    networks : sequence of keras.Model
        The members of an ensemble, whose probabilities are averaged.
    images : sequence of ndarray, shape (height, width, channels)
        Preprocessed; of each a square of one and a half tiles, cut by two tiles each way at least.
    grid : Grid
        Tile, halo and the networks' stride.
    batch_size : int
        Most tiles that go through a network at once.

    Returns
    -------
    mean, worst : float
        Of the absolute difference of the probabilities over all pixels: mean and 99.9th percentile.
    """
    side = grid.tile * 3 // 2
    differences = [_difference(networks, view(image, side), grid, batch_size) for image in images]
    return float(np.mean(differences)), float(np.quantile(differences, WORST))


def _difference(networks: Sequence[keras.Model], square: Image, grid: Grid, batch_size: int) -> Image:
    def predict(batch: NDArray[np.generic]) -> NDArray[np.float32]:
        # Not `predict_on_batch`: see `microseg.training.validation.predict_in_one_piece`.
        answers = [np.asarray(network(batch, training=False), np.float32) for network in networks]
        return np.asarray(np.mean(answers, axis=0))

    tiled = predict_tiled(square, predict, grid=grid, batch_size=batch_size)
    margins = [grid.margin(length) for length in square.shape[:2]]
    whole = predict_whole(square, predict, multiple=grid.stride, margins=margins)
    difference: Image = np.abs(tiled - whole)
    return difference
