"""How wide the strips of a large image may be, and the memory that its prediction takes at most."""

from __future__ import annotations

from typing import NamedTuple

from microseg.data.streams import CHUNK, ImageStream
from microseg.errors import MicrosegError
from microseg.instances import BLOCK, HALO, Method
from microseg.runtime import peak_memory
from microseg.serving.large.planes import BAND
from microseg.serving.segmenter import Segmenter
from microseg.serving.speed import Room

WIDEST = 4096  # columns of a strip: of 40960, tiles at borders of strips are then 1 in 25
_PREPROCESSING = 24  # bytes of a value on its way: as float64 twice, as float32 twice
_LABELLING = 100  # bytes of a pixel of a block while its objects are told apart
_SLACK = 1.1  # what the allocator holds beyond what is asked for


class Wanted(NamedTuple):
    """What is made of a large image's prediction.

    Attributes
    ----------
    method : Method or None
        How its objects are told apart, where they are wanted.
    encoding : int
        Bytes that writing the mask in its format holds at once.
    """

    method: Method | None = None
    encoding: int = 0


class Plan(NamedTuple):
    """How a large image is predicted.

    Attributes
    ----------
    strip : int
        Columns that are predicted at once, a multiple of `CHUNK`.
    batch_size : int
        Tiles per call of the networks.
    resident : int
        Bytes that the process held at most, libraries and networks at work, measured before.
    strips : int
        Bytes that a strip and the reading of the image take at most.
    """

    strip: int
    batch_size: int
    resident: int
    strips: int

    @property
    def bound(self) -> int:
        """Bytes that the process holds at most; it never holds less than it ever held."""
        return max(self.resident + self.strips, peak_memory())

    def __str__(self) -> str:
        return (
            f"memory: at most {gib(self.bound)} GiB ({gib(self.resident)} held with libraries and networks, "
            f"{gib(self.strips)} for strips of {self.strip} columns)"
        )


def plan(segmenter: Segmenter, image: ImageStream, wanted: Wanted, most: int | None) -> Plan:
    """Choose the widest strips and the fastest batches that a bound of memory allows.

    Parameters
    ----------
    segmenter : Segmenter
        Is tried on a batch: what that takes is measured, not guessed.
    image : ImageStream
        The image.
    wanted : Wanted
        What is made of it.
    most : int, optional
        Bytes that the process may hold.

    Raises
    ------
    MicrosegError
        If the narrowest strip takes more.
    """
    narrowest = _bytes(segmenter, image, wanted, CHUNK)
    batch_size, resident = segmenter.warm(image.shape, _room(most, narrowest))
    widest = min(WIDEST, -(-image.shape[1] // CHUNK) * CHUNK)
    found = [
        Plan(strip, batch_size, resident, _bytes(segmenter, image, wanted, strip))
        for strip in range(widest, 0, -CHUNK)
    ]
    fitting = [one for one in found if most is None or one.bound <= most]
    if not fitting:
        least = -(-found[-1].bound * 10 // 2**30) / 10
        raise MicrosegError(
            f"{image.name}: the bound of memory is {gib(most or 0)} GiB, but libraries, networks and the "
            f"narrowest strip take {gib(found[-1].bound)}; give --max-memory {least:g}GiB or more"
        )
    return fitting[0]


def gib(size: int) -> str:
    """Return bytes in GiB, with two digits behind the point."""
    return f"{size / 2**30:.2f}"


def _room(most: int | None, narrowest: int) -> Room:
    """Return whether more tiles at once leave memory for the narrowest strip, if they take twice the last."""
    before: int | None = None

    def fits(_: int) -> bool:
        nonlocal before
        peak = peak_memory()
        grown, before = peak - (before or peak), peak
        return most is None or peak + 2 * grown + narrowest <= most

    return fits


def _bytes(segmenter: Segmenter, image: ImageStream, wanted: Wanted, strip: int) -> int:
    """Add up what is held at once by predicting, by telling objects apart, or by encoding the mask."""
    tile, method = segmenter.grid.tile, wanted.method
    wide = min(strip, image.shape[1]) + 2 * tile
    values = tile * wide * max(image.shape[2], segmenter.card.channels)
    predicting = values * (image.dtype.itemsize + _PREPROCESSING) + 3 * tile * wide * segmenter.maps * 4
    writing = 3 * CHUNK * min(strip, image.shape[1]) * (4 if method else 1)
    labelling = _LABELLING * (BLOCK + 2 * (HALO + max(method.reach, 1))) ** 2 if method else 0
    reading = min(BAND, image.plane_bytes) + image.memory(wide)
    return int(_SLACK * (reading + max(predicting + writing, labelling, wanted.encoding)))
