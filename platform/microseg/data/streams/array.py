"""A decoded image as one that is read in windows."""

from __future__ import annotations

from microseg.data.images import Array
from microseg.data.streams.image import Facts, ImageStream, Plane


class _ArrayBlocks:
    """An array as a grid of one block."""

    def __init__(self, array: Array) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        self.planes: dict[str, int] = {}
        self.block = array.shape[:2]
        self.decoded = array.nbytes
        self.facts = Facts()
        self._array = array

    def decode(self, plane: Plane, row: int, column: int) -> Array:
        return self._array

    def close(self) -> None:
        """Nothing is open."""


def stream_of(array: Array, name: str) -> ImageStream:
    """Return an image that is in memory already as a stream, for what takes streams only.

    Parameters
    ----------
    array : ndarray, shape (height, width, channels)
        As `microseg.data.images.decode_image` gives it.
    name : str
        What to call it in errors.
    """
    return ImageStream(name, _ArrayBlocks(array))
