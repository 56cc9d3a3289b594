"""A TIFF file as blocks: tiles, strips, or rows where a plane lies in the file in one uncompressed piece."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from microseg.data.images import Array
from microseg.data.streams.image import Facts, Plane
from microseg.data.streams.tiff_scale import tiff_scale
from microseg.data.tiff import ALPHA, check_segments, stated_axes
from microseg.errors import MicrosegError

_JPEG = frozenset({6, 7, 34892, 33007})  # compressions whose tables are in a tag of the page
_PIECE = 2**20  # bytes of a block of rows


class TiffBlocks:
    """The first image of a TIFF file, at full resolution.

    Parameters
    ----------
    path : Path
        Any TIFF that tifffile decodes, BigTIFF and pyramids too.
    axes : str or None
        As for `microseg.data.images.decode_image`; planes along T and Z are allowed here.

    Raises
    ------
    MicrosegError
        If the axes are not known, or the image lies in several files or in pages that are no planes.
    ValueError
        If the file ends before its pixels do; or as tifffile raises for damaged files.
    """

    shape: tuple[int, int, int]
    planes: dict[str, int]
    block: tuple[int, int]

    def __init__(self, path: Path, axes: str | None) -> None:
        self._file = tifffile.TiffFile(path)
        try:
            self._read_layout(str(path), axes)
            check_segments(self._file, self._size)
        except BaseException:
            self._file.close()
            raise

    def _read_layout(self, name: str, axes: str | None) -> None:
        series = self._file.series[0]
        self._page = page = series.keyframe
        self._size = self._file.filehandle.size
        if len(self._file.series) > 1:
            raise MicrosegError(
                f"{name}: the file holds {len(self._file.series)} images of different sizes; save the wanted"
                " one alone"
            )
        if series.is_multifile:
            raise MicrosegError(f"{name}: one part of an image in several files; save it in one")
        letters = stated_axes(series, axes, name)
        pages = len(letters) - len(page.shape)
        self._axes = dict(zip(letters[:pages], series.shape, strict=False))
        self._planar, depth, height, width, samples = page.shaped
        channels = self._axes.get("C", 1)
        if letters[pages:] not in {"YX", "YXS", "SYX"} or not set(self._axes) <= set("TZC") or depth > 1:
            raise MicrosegError(
                f"{name}: axes {letters} of shape {series.shape} in pages of {page.shape}; save it with one"
                " page for each plane of Y and X"
            )
        samples *= self._planar
        if min(channels, samples) > 1:
            raise MicrosegError(
                f"{name}: both channels and colours ({channels}, {samples}); save one of them per file"
            )
        self.shape = (height, width, channels * samples)
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        self.planes = {axis.lower(): self._axes[axis] for axis in "TZ" if self._axes.get(axis, 1) > 1}
        alpha = page.samplesperpixel in (2, 4) and bool(ALPHA & set(page.extrasamples))
        self.facts = Facts(tiff_scale(self._file), alpha)
        self._choose_blocks(series)

    def _choose_blocks(self, series: Any) -> None:
        """Cut into rows what lies in one uncompressed piece: its only strip may be the whole image."""
        height, width, channels = self.shape
        page = self._page
        if page.dtype is None:  # tifffile calls the series float64 then
            raise ValueError(f"values of {page.bitspersample} bits of format {page.sampleformat}")
        self._start = series.dataoffset
        self._pages = list(series) if self._start is None else []
        raw = self._start is not None or (
            page.is_final and all(len(each.dataoffsets) == self._planar for each in self._pages if each)
        )
        self._row_bytes = width * page.shaped[4] * self.dtype.itemsize if raw else 0
        if raw:
            self.block = (max(1, min(height, _PIECE // self._row_bytes)), width)
        else:
            self.block = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
        self.decoded = self.block[0] * self.block[1] * channels * self.dtype.itemsize

    def decode(self, plane: Plane, row: int, column: int) -> Array:
        """Return a block, see `microseg.data.streams.image.Blocks`."""
        parts = [
            self._part(self._page_number(plane, channel), sample, row, column)
            for channel, sample in itertools.product(range(self._axes.get("C", 1)), range(self._planar))
        ]
        block = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        return np.ascontiguousarray(block, self.dtype)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _page_number(self, plane: Plane, channel: int) -> int:
        """Count a plane's page in the file's order of axes."""
        at = dict(zip(self.planes, plane, strict=True)) | {"c": channel}
        number = 0
        for axis, size in self._axes.items():
            number = number * size + at.get(axis.lower(), 0)
        return number

    def _part(self, number: int, sample: int, row: int, column: int) -> Array:
        return (self._rows if self._row_bytes else self._segment)(number, sample, row, column)

    def _rows(self, number: int, sample: int, row: int, _column: int) -> Array:
        """Read rows of a piece of the file."""
        height, width, samples = *self.shape[:2], self._page.shaped[4]
        if self._start is None:
            start = self._existing(number).dataoffsets[sample]
        else:
            start = self._start + (number * self._planar + sample) * height * self._row_bytes
        first = row * self.block[0]
        rows = min(self.block[0], height - first)
        stored = self.dtype.newbyteorder(self._file.byteorder)
        self._file.filehandle.seek(start + first * self._row_bytes)
        data = self._file.filehandle.read(rows * self._row_bytes)
        return np.frombuffer(data, stored).reshape(rows, width, samples)

    def _segment(self, number: int, sample: int, row: int, column: int) -> Array:
        """Decode a tile or strip."""
        page, key = self._existing(number), self._page
        across, down = -(-self.shape[1] // self.block[1]), -(-self.shape[0] // self.block[0])
        index = (sample * down + row) * across + column
        data = None
        if page.databytecounts[index]:
            self._file.filehandle.seek(page.dataoffsets[index])
            data = self._file.filehandle.read(page.databytecounts[index])
        jpeg = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
        array, _, shape = key.decode(data, index, **(jpeg if key.compression in _JPEG else {}))
        if array is None:  # a tile that was never written
            return np.full(shape[1:], key.nodata, self.dtype)
        part: Array = array[0]
        return part

    def _existing(self, number: int) -> Any:
        page = self._pages[number]
        if page is None:
            raise ValueError(f"page {number + 1} is missing")
        return page
