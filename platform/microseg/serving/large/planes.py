"""A plane of a large image as the networks take it, window by window."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from microseg.data.preprocess import Transform, output_channels
from microseg.data.streams import ImageStream, Plane
from microseg.serving.card import ModelCard
from microseg.serving.channels import Image, checked

BAND = 32 * 2**20  # bytes of a band of whole rows
_WINDOW, _WINDOWS = 256, 8  # side of a sample, and samples along each axis


class CheckedPlane:
    """One plane with the model's channels; each window is checked, see `microseg.serving.channels`.

    Attributes
    ----------
    shape : tuple of int
        Height, width and channels.
    """

    def __init__(self, card: ModelCard, image: ImageStream, plane: Plane) -> None:
        self._card, self._image, self._plane = card, image, plane
        self.shape = (*image.shape[:2], card.channels)

    def __getitem__(self, window: tuple[slice, slice]) -> Image:
        """Read a window."""
        return checked(self._image.read(*window, self._plane), self._card)

    def bands(self) -> Iterator[Image]:
        """Yield the plane in bands of whole rows, within `BAND`.

        They divide rows of parts of the file evenly. Where one of these exceeds what is kept of the file, its
        parts are decoded once for each band: twice for 40960 columns of 8 bits, 4 times for three channels.
        """
        height, width, _ = self.shape
        row = width * self._image.shape[2] * self._image.dtype.itemsize
        block = self._image.block[0]
        rows = -(-block // -(-block * row // BAND))
        for start in range(0, height, rows):
            yield self[start : min(start + rows, height), 0:width]


class Prepared:
    """A plane that is preprocessed window by window, see `microseg.data.preprocess.fit`."""

    def __init__(self, card: ModelCard, plane: CheckedPlane, transform: Transform) -> None:
        self._plane, self._transform = plane, transform
        channels = output_channels(card.config.preprocess, card.channels)
        self.shape = (*plane.shape[:2], channels)

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.float32]:
        """Read a window as the networks take it."""
        return np.asarray(self._transform(self._plane[window]), np.float32)


def sampled(plane: CheckedPlane) -> list[Image]:
    """Return windows evenly spread over a plane: enough to tell how it looks, without reading all of it."""
    starts = [
        np.unique(np.linspace(0, max(0, side - _WINDOW), _WINDOWS).astype(int)).tolist()
        for side in plane.shape[:2]
    ]
    return [plane[y : y + _WINDOW, x : x + _WINDOW] for y in starts[0] for x in starts[1]]
