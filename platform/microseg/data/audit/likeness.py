"""How alike two images are: a perceptual hash proposes pairs, their fine structure decides.

Everything is measured on thumbnails, so that size, format and compression matter little. The hash is that
of the lowest cosine frequencies (Zauner 2010, "Implementation and benchmarking of perceptual image hash
functions"); it follows uneven light as readily as cells, so the pairs it proposes are compared by the
normalised cross-correlation of what is finer than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

from microseg.data.images import Array

SIDE = 64
TURNS = range(8)  # mirrored, upside down, transposed: every combination is a flip or quarter turn

# Of the sets of real images that this was tried on (AFM, fluorescence and stained nuclei, phase contrast),
# copies that were compressed, rescaled, blurred, noisy or of other contrast correlate by 0.85 or more,
# 19 in 20 by 0.93, and two images of different cells by 0.78 at most.
NEAR = 0.85
SAME = 0.97
_MOST_BITS = 14  # of 63 that differ: 11 at most in copies, 26 in the middle of unrelated pairs
_LOW = 8  # cosine frequencies per axis
_LIGHT = 8  # degree of the polynomial
_FINE, _COARSE = 1.0, 4.0  # of the structure that is compared: standard deviations in thumbnail pixels
_ROUNDING = 1e-5  # of the grey values: structure below it is that of float32
_CROPS = (0.98, 0.96, 0.94, 0.92)
_SHIFT = 4  # thumbnail pixels
_PROMISING = 0.3  # below it no crop of 0.96 was seen
_MOST_ALIGNED = 5000  # pairs: some 10 seconds; frames of one movie can be millions
_KEPT = 512  # images whose crops are held: 40 MB
_ROWS = 512


class Alike(NamedTuple):
    """Two images by their positions, and what their fine structure correlates by after a turn."""

    first: int
    second: int
    turn: int
    correlation: float


def thumbnail(image: Array) -> Array:
    """Average an image, over its channels too, to 64 x 64 pixels.

    Parameters
    ----------
    image : ndarray, shape (height, width, channels)
        Of any size and number type.

    Returns
    -------
    ndarray of float32, shape (64, 64)
        In the image's grey values.
    """
    small: Array = image.mean(axis=2, dtype=np.float32)
    for axis in (0, 1):
        edges = np.linspace(0, small.shape[axis], SIDE + 1).astype(int)
        widths = np.maximum(np.diff(edges), 1).astype(np.float32)
        small = np.add.reduceat(small, edges[:-1], axis=axis)
        small = small / (widths[:, None] if axis == 0 else widths)
    return small


def turned(pictures: Array, turn: int) -> Array:
    """Return pictures (the last two axes) in one of the 8 orientations; 0 leaves them as they are."""
    pictures = pictures[..., ::-1, :] if turn & 1 else pictures
    pictures = pictures[..., ::-1] if turn & 2 else pictures
    return np.swapaxes(pictures, -1, -2) if turn & 4 else pictures


def details(thumbnails: Array) -> Array:
    """Return the fine structure of thumbnails, each with mean 0 and norm 1, so that products correlate.

    Uneven light, a polynomial, is taken away first: two empty fields under one lamp are not one image. A
    soft limit keeps one bright cell from deciding alone. What has no structure becomes 0.

    Parameters
    ----------
    thumbnails : ndarray, shape (..., 64, 64)

    Returns
    -------
    ndarray of float32, shape (..., 64, 64)
    """
    axes = (-2, -1)
    flat = thumbnails.reshape(*thumbnails.shape[:-2], -1)
    flat = flat - flat.mean(axis=-1, keepdims=True)
    even = (flat - (flat @ _light()) @ _light().T).reshape(thumbnails.shape)
    band = ndimage.gaussian_filter(even, _FINE, axes=axes)
    band = band - ndimage.gaussian_filter(even, _COARSE, axes=axes)
    spread = band.std(axis=axes, keepdims=True)
    there = spread > _ROUNDING * np.abs(thumbnails).max(axis=axes, keepdims=True)
    band = np.divide(band, np.abs(band) + spread, out=np.zeros_like(band), where=there)
    band = band - band.mean(axis=axes, keepdims=True)
    norm = np.linalg.norm(band, axis=axes, keepdims=True)
    fine: Array = np.divide(band, norm, out=np.zeros_like(band), where=there)
    return fine


@cache
def _light() -> Array:
    """Return an orthonormal basis (columns) of the polynomials that model uneven light."""
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, SIDE), _LIGHT)
    pairs = [(i, j) for i in range(_LIGHT + 1) for j in range(_LIGHT + 1 - i)]
    products = [np.outer(powers[:, i], powers[:, j]).ravel() for i, j in pairs]
    basis: Array = np.linalg.qr(np.stack(products, axis=1))[0].astype(np.float32)
    return basis


def correlations(one: Array, other: Array) -> Array:
    """Return the correlation of each of one stack of details with its partner in the other."""
    found: Array = np.einsum("nyx,nyx->n", one, other)
    return found


def alike(thumbnails: Array, fine: Array) -> list[Alike]:
    """Find the pairs of images that are near duplicates.

    Parameters
    ----------
    thumbnails : ndarray of float32, shape (images, 64, 64)
    fine : ndarray of float32, shape (images, 64, 64)
        Their `details`.

    Returns
    -------
    list of Alike
        Each pair once, in its best orientation; those that correlate by ``NEAR`` or more, the most alike
        first. Crops are found down to some 95 % of the side.
    """
    found: dict[tuple[int, int], Alike] = {}
    for proposed in sorted(_proposed(thumbnails, fine), key=lambda one: -one.correlation):
        found.setdefault(proposed[:2], proposed)
    near = [pair for pair in found.values() if pair.correlation >= NEAR]
    doubtful = [pair for pair in found.values() if pair.correlation < NEAR][:_MOST_ALIGNED]
    versions = lru_cache(_KEPT)(lambda index: crops(thumbnails[index]))
    for pair in sorted(doubtful):  # by image, so that each is cropped once
        best = aligned(versions(pair.first), turned(versions(pair.second), pair.turn))
        if best >= NEAR:
            near.append(pair._replace(correlation=best))
    return sorted(near, key=lambda pair: (-pair.correlation, pair))


def crops(thumbnail: Array) -> Array:
    """Return the details of a thumbnail and of its middle, enlarged in steps, first the whole."""
    parts = [thumbnail]
    for share in _CROPS:
        start = (SIDE - 1) * (1 - share) / 2
        parts.append(ndimage.affine_transform(thumbnail, (share, share), (start, start), order=1))
    return details(np.stack(parts))


def aligned(one: Array, other: Array) -> float:
    """Return the best correlation, over small shifts, of two images where either may be a crop of the other.

    Parameters
    ----------
    one, other : ndarray of float32, shape (versions, 64, 64)
        Their `crops`.
    """
    first, second = fft.rfft2(one), fft.rfft2(other)
    spectra = np.concatenate([first[:1] * np.conj(second), first[1:] * np.conj(second[:1])])
    shifts = fft.fftshift(fft.irfft2(spectra, s=one.shape[-2:]), axes=(-2, -1))
    middle = slice(SIDE // 2 - _SHIFT, SIDE // 2 + _SHIFT + 1)
    return float(shifts[:, middle, middle].max())


def _proposed(thumbnails: Array, fine: Array) -> Iterator[Alike]:
    """Yield the pairs whose hashes are close and whose details are not plainly different."""
    bits = _hashes(thumbnails)
    for turn in TURNS:
        others, other_bits = turned(fine, turn), _hashes(turned(thumbnails, turn))
        for start in range(0, len(bits), _ROWS):
            distance = (bits.shape[1] - bits[start : start + _ROWS] @ other_bits.T) / 2
            first, second = np.nonzero(distance <= _MOST_BITS)
            for one, other in _chunks(first + start, second):
                together = correlations(fine[one], others[other])
                for index in np.flatnonzero(together >= _PROMISING):
                    yield Alike(int(one[index]), int(other[index]), turn, float(together[index]))


def _chunks(first: Array, second: Array) -> Iterator[tuple[Array, Array]]:
    """Take each pair once, and few enough at a time for any memory."""
    once = first < second
    first, second = first[once], second[once]
    for start in range(0, len(first), _ROWS):
        yield first[start : start + _ROWS], second[start : start + _ROWS]


def _hashes(thumbnails: Array) -> Array:
    """Return the signs (-1, 0 or 1) of each thumbnail's lowest cosine frequencies, without the mean."""
    frequencies = fft.dctn(thumbnails, axes=(-2, -1))[:, :_LOW, :_LOW]
    signs: Array = np.sign(frequencies).reshape(len(thumbnails), -1)[:, 1:].astype(np.float32)
    return signs
