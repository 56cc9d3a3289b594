"""Decode TIFF: what its axes mean is said by the file or stated, never guessed."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
import tifffile

from microseg.errors import MicrosegError

Array = np.ndarray[Any, np.dtype[Any]]

TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# Without a handler of the application, tifffile's log lines would stand beside the one line of the error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_LOSSY = frozenset({6, 7, 34892})  # old-style JPEG, JPEG, lossy JPEG (tag 259)
ALPHA = frozenset({1, 2})  # associated and unassociated alpha (tag 338)


def has_jpeg(data: bytes) -> bool:
    """Say whether pages of a TIFF are compressed as JPEG."""
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        return any(int(page.compression) in _LOSSY for page in tif.pages)


def decode_tiff(data: bytes, name: str, axes: str | None) -> tuple[Array, bool]:
    """Decode TIFF to (height, width, channels), and whether the last channel is alpha."""
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        series, page = tif.series[0], tif.pages.first
        check_segments(tif, len(data))
        if len(tif.series) > 1:
            raise MicrosegError(
                f"{name}: the file holds {len(tif.series)} images of different sizes;"
                " save the wanted one alone"
            )
        letters = stated_axes(series, axes, name)
        array = series.asarray()
        alpha = page.samplesperpixel in (2, 4) and bool(ALPHA & set(page.extrasamples))
    return _as_channels_last(array, letters, name), alpha


def check_segments(tif: Any, size: int) -> None:
    """Refuse a file that ends before its pixels do: tifffile would fill the rest with zeros."""
    for page in tif.pages:
        ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > size or not page.dataoffsets:
            raise ValueError("the file ends before its pixels do")
    # ImageJ says how many pages there are; without the later ones tifffile takes the first for the image.
    stated = (tif.imagej_metadata or {}).get("images", 1) if tif.is_imagej else 1
    series = tif.series[0]
    end = 0 if series.dataoffset is None else series.dataoffset + series.nbytes
    if series.size < stated * tif.pages.first.size or end > size:
        raise ValueError("the file ends before its pixels do")


def stated_axes(series: Any, axes: str | None, name: str) -> str:
    """Return the file's axes as letters of TZCYXS: single pages, what the file says, or as stated.

    Raises
    ------
    MicrosegError
        If the file does not say them and they are not stated, or the stated ones do not fit.
    """
    own = str(series.axes)
    if own in {"YX", "YXS", "SYX"}:
        return own
    says_itself = series.kind in {"ome", "imagej"} and set(own) <= set("TZCYXS")
    if axes is None and says_itself:
        return own
    if axes is None:
        raise MicrosegError(
            f"{name}: a multi-page TIFF of shape {series.shape}; state the order of its axes, such as"
            " --axes CYX (letters of T, Z, C, Y, X)"
        )
    stated = axes + "S" if own.endswith("S") else axes
    if len(stated) == len(own):
        return stated
    if not (says_itself and set(own) < set(stated)):  # more letters than that are axes of length 1
        raise MicrosegError(
            f"{name}: the stated axes {axes} do not fit its shape {series.shape}; give one letter for each of"
            f" its {len(own)} dimensions"
        )
    return own


def _as_channels_last(array: Array, letters: str, name: str) -> Array:
    for letter in "TZ":
        if letter in letters:
            place = letters.index(letter)
            if array.shape[place] > 1:
                raise MicrosegError(
                    f"{name}: {array.shape[place]} planes along {letter}; images are segmented plane by"
                    " plane:"
                    " save each plane (or a projection) as a file of its own"
                )
            array, letters = array.squeeze(place), letters.replace(letter, "")
    for letter in "CS":  # channels last; both only where one of them has length 1
        if letter in letters:
            array = np.moveaxis(array, letters.index(letter), -1)
            letters = letters.replace(letter, "") + letter
    if letters.startswith("XY"):
        array = array.swapaxes(0, 1)
    if letters.endswith("CS") and 1 not in array.shape[2:]:
        raise MicrosegError(f"{name}: both channels and colours {array.shape[2:]}; save one of them per file")
    return array.reshape(*array.shape[:2], -1)
