"""How far from itself each pixel of a warped tile is sampled: random fields, plain functions of arrays.

A field is a function of a shape (height, width) and a random generator. It returns displacements down and
across, in pixels, float32 of shape (2, height, width); image and mask are sampled at the same places.
Magnitudes are pixels or fractions of the tile, never the numbers of a library: an ``alpha`` of 1300 has
been published for 2.3 and for 26.6 pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, int]
Displacement = NDArray[np.float32]
Field = Callable[[Shape, np.random.Generator], Displacement]
Matrix = NDArray[np.float64]


def coordinates(shape: Shape) -> Displacement:
    """Return each pixel's own row and column."""
    return np.mgrid[: shape[0], : shape[1]].astype(np.float32)


def turned(degrees: float) -> Matrix:
    """Return the matrix, of rows and columns, that turns by an angle."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def sheared(degrees: float) -> Matrix:
    """Return the matrix that slants the rows: columns move by the tangent of the angle per row."""
    return np.array([[1.0, 0.0], [math.tan(math.radians(degrees)), 1.0]])


def linear(shape: Shape, _: np.random.Generator, *, matrix: Matrix) -> Displacement:
    """Apply a fixed matrix of rows and columns about the centre of the tile."""
    moved: Displacement = np.tensordot(_f32(matrix - np.eye(2)), _offset(shape, _centre(shape)), 1)
    return moved


def affine(  # noqa: PLR0913 - the magnitudes of one random draw
    shape: Shape,
    rng: np.random.Generator,
    *,
    angle: float = 0.0,
    shift: float = 0.0,
    shear: float = 0.0,
    zoom: float = 0.0,
    isotropic: bool = True,
) -> Displacement:
    """Turn, slant, magnify and move about the centre, each drawn uniformly within plus and minus its limit.

    Parameters
    ----------
    shape, rng
        As for every field.
    angle, shear : float
        Degrees.
    shift : float
        Fraction of the height and of the width, drawn for each.
    zoom : float
        0.3 magnifies by 0.7 to 1.3.
    isotropic : bool
        Whether both axes are magnified alike.
    """
    turn, slant = rng.uniform(-angle, angle), rng.uniform(-shear, shear)
    magnification = 1.0 + rng.uniform(-zoom, zoom, 2)
    if isotropic:
        magnification = magnification[[0, 0]]
    moved = rng.uniform(-shift, shift, 2) * shape
    matrix = turned(turn) @ sheared(slant) / magnification
    return linear(shape, rng, matrix=matrix) + _f32(moved)[:, None, None]


def window(shape: Shape, rng: np.random.Generator, *, smallest: float) -> Displacement:
    """Fill the tile with a part of it, whose sides are a random fraction from ``smallest`` to 1."""
    less = 1.0 - rng.uniform(smallest, 1.0)
    corner = rng.uniform(0.0, 1.0, 2) * (np.array(shape) - 1)
    return -np.float32(less) * _offset(shape, corner)


def elastic(shape: Shape, rng: np.random.Generator, *, displacement: float, sigma: float) -> Displacement:
    """Displace by noise of a root mean square length in pixels, smoothed by a Gaussian of sigma pixels."""
    down, across = (_gaussian_basis(side, sigma) for side in shape)
    return np.float32(displacement / math.sqrt(2.0)) * _noise(down, across, rng)


def bounded_elastic(shape: Shape, rng: np.random.Generator, *, largest: float, sigma: float) -> Displacement:
    """Displace by smooth noise whose largest component is a fraction of the width."""
    down, across = (_gaussian_basis(side, sigma) for side in shape)
    noise = _noise(down, across, rng)
    return np.float32(largest * shape[1] / np.abs(noise).max()) * noise


def nodes(shape: Shape, rng: np.random.Generator, *, displacement: float, cells: int) -> Displacement:
    """Displace the nodes of a regular grid, and linearly what lies between; rms length in pixels."""
    down, across = (_linear_basis(side, cells) for side in shape)
    return np.float32(displacement / math.sqrt(2.0)) * _noise(down, across, rng)


def lens(shape: Shape, rng: np.random.Generator, *, displacement: float) -> Displacement:
    """Displace along the radius by its cube: at the corners by up to a fraction of their distance.

    References
    ----------
    Brown 1966, Decentering distortion of lenses: the first radial coefficient.
    """
    offset, corner = _offset(shape, _centre(shape)), float((_centre(shape) ** 2).sum())
    strength = rng.uniform(-displacement, displacement) / max(corner, 1.0)
    return _f32(strength * (offset**2).sum(axis=0) * offset)


def bulge(shape: Shape, rng: np.random.Generator, *, amount: float, radius: float) -> Displacement:
    """Magnify (barrel) or shrink (pincushion, a negative amount) a disc about a random place.

    The distance r from the place becomes ``r sin(pi r / 2R) ** amount`` for r below R, which is
    ``radius`` times the width.
    """
    offset = _offset(shape, rng.uniform(0.0, 1.0, 2) * (np.array(shape) - 1))
    relative = np.hypot(*offset) / np.float32(radius * shape[1])
    # The place itself stays: 0 to a negative power would be infinite.
    inside = (relative > 0) & (relative < 1)
    sine = np.sin(np.pi / 2 * relative, out=np.ones_like(relative), where=inside)
    return _f32(offset * (sine**amount - 1))


def _f32(array: Array) -> NDArray[np.float32]:
    return array.astype(np.float32)


def _centre(shape: Shape) -> Matrix:
    return (np.array(shape) - 1) / 2


def _offset(shape: Shape, place: Matrix) -> NDArray[np.float32]:
    """Return each pixel's row and column, counted from a place."""
    return coordinates(shape) - _f32(place)[:, None, None]


@functools.lru_cache(maxsize=32)
def _gaussian_basis(side: int, sigma: float) -> NDArray[np.float32]:
    """Return Gaussian bumps, (side, bumps), one every sigma: noise on them is smoothed noise to 1e-4."""
    places = np.arange(-3 * sigma, side + 3 * sigma, sigma)
    return _of_unit_mean_square(np.exp(-0.5 * ((np.arange(side)[:, None] - places) / sigma) ** 2))


@functools.lru_cache(maxsize=32)
def _linear_basis(side: int, cells: int) -> NDArray[np.float32]:
    """Return the weights, (side, cells + 1), of linear interpolation between evenly spaced nodes."""
    position = np.linspace(0, cells, side)[:, None]
    return _of_unit_mean_square(np.maximum(0.0, 1.0 - np.abs(position - np.arange(cells + 1))))


def _of_unit_mean_square(basis: Array) -> NDArray[np.float32]:
    return _f32(basis / np.sqrt((basis**2).sum(axis=1).mean()))


def _noise(down: Array, across: Array, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return two random maps whose values have mean square 1, averaged over the tile and over draws."""
    # Not numpy's product: threads of BLAS that wait for each other took 140 ms beside a training, OpenCV 10.
    product = functools.partial(cv2.gemm, alpha=1.0, src3=None, beta=0.0)
    normal = rng.standard_normal((2, down.shape[1], across.shape[1]), np.float32)
    return np.stack([product(product(down, one), across, flags=cv2.GEMM_2_T) for one in normal])
