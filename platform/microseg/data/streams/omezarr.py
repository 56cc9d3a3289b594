"""A folder of Zarr as blocks: an OME-Zarr image of any version, or a plain array."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from microseg.data.images import Array
from microseg.data.streams.codecs import bounded
from microseg.data.streams.image import Facts, Plane
from microseg.data.streams.ngff import ome_attributes, read_multiscales
from microseg.errors import MicrosegError

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def is_zarr(folder: Path) -> bool:
    """Say whether a folder is a group or an array of Zarr."""
    return any((folder / mark).is_file() for mark in ZARR_MARKS)


class _Files(LocalStore):
    """A folder of which only files are read: a device or a pipe may have no end."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        path = self.root / key
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{key} is no file")
        return await super().get(key, prototype, byte_range)


class ZarrBlocks:
    """The full resolution of an image; what its chunks hold of other planes is decoded again for each.

    A chunk that is not in the folder has the fill value of the array, as Zarr defines it. No path in the
    metadata leads out of the folder. Links of the file system do as everywhere: who can make them reads
    what they lead to anyhow, and `microseg.storage` makes none.

    Parameters
    ----------
    path : Path
        Folder of an OME-Zarr image, or of an array.
    axes : str or None
        Of an array that does not name its axes, in the letters T, Z, C, Y and X.

    Raises
    ------
    MicrosegError
        If the folder holds no image or several, or the axes are not known.
    ValueError
        As zarr raises for damaged metadata and unknown codecs, and `bounded` for others.
    """

    shape: tuple[int, int, int]
    planes: dict[str, int]
    block: tuple[int, int]

    def __init__(self, path: Path, axes: str | None) -> None:
        array, letters, scale, ngff = _image(path, axes)
        sizes = dict(zip(letters, array.shape, strict=True))
        self._array, self._letters = bounded(array), letters
        self.shape = (sizes["y"], sizes["x"], sizes.get("c", 1))
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        self.planes = {axis: sizes[axis] for axis in "tz" if sizes.get(axis, 1) > 1}
        if 0 in array.chunks:
            raise ValueError(f"chunks of the shape {array.chunks}")
        chunks = dict(zip(letters, array.chunks, strict=True))
        self.block = (chunks["y"], chunks["x"])
        in_channels = math.ceil(self.shape[2] / chunks.get("c", 1))
        self.decoded = math.prod(array.chunks) * in_channels * self.dtype.itemsize
        self.facts = Facts(scale, ngff=ngff)

    def decode(self, plane: Plane, row: int, column: int) -> Array:
        """Return a block, see `microseg.data.streams.image.Blocks`."""
        at: dict[str, int | slice] = dict(zip(self.planes, plane, strict=True))
        at |= {
            axis: slice(number * side, (number + 1) * side)
            for axis, number, side in zip("yx", (row, column), self.block, strict=True)
        }
        at |= {"c": slice(None)}
        part = np.asarray(self._array[tuple(at.get(axis, 0) for axis in self._letters)])
        kept = [axis for axis in self._letters if axis in "yxc"]
        part = part.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
        return np.ascontiguousarray(part.reshape(*part.shape[:2], -1), self.dtype)

    def close(self) -> None:
        """Files are open only while a chunk is read."""


def _image(path: Path, axes: str | None) -> tuple[Any, str, Mapping[str, float], str | None]:
    """Find an image's array: its axes as letters, its scale, and the version of its metadata."""
    node = zarr.open(_Files(path, read_only=True), mode="r")
    if isinstance(node, zarr.Array):
        return node, _array_axes(node, axes, path), {}, None
    facts = ome_attributes(node.attrs)
    if "plate" in facts or "well" in facts:
        raise MicrosegError(f"{path}: a plate with many images; give the folder of one, such as {path}/A/1/0")
    if "bioformats2raw.layout" in facts and "multiscales" not in facts:
        if (path / "1").is_dir():
            raise MicrosegError(f"{path}: it holds several images; give the folder of one, such as {path}/0")
        return _image(path / "0", axes)
    multiscales = facts.get("multiscales", [])
    if len(multiscales) != 1:
        raise MicrosegError(
            f"{path}: a Zarr group with {len(multiscales)} images in its metadata (multiscales); give the"
            " folder of one OME-Zarr image, or of one array"
        )
    paths, letters, scale = read_multiscales(multiscales[0], str(path))
    array = node.get(paths[0])
    if not isinstance(array, zarr.Array):
        raise MicrosegError(
            f"{path}: its metadata names the array {paths[0]}, which is missing; copy it again"
        )
    if len(letters) != array.ndim:
        raise MicrosegError(
            f"{path}: its metadata names {len(letters)} axes, but the array has the shape {array.shape};"
            " write it again"
        )
    return array, letters, scale, "0.5" if array.metadata.zarr_format == 3 else "0.4"


def _array_axes(array: Any, axes: str | None, path: Path) -> str:
    """Return the axes of a plain array: named by it, stated, or plainly y and x."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    named = "".join(str(name).lower() for name in names if name)
    letters = named if len(names) == array.ndim == len(named) else (axes or "").lower()
    letters = letters or ("yx" if array.ndim == 2 else "")
    if len(letters) != array.ndim or not {"y", "x"} <= set(letters) <= set("tczyx"):
        raise MicrosegError(
            f"{path}: a Zarr array of shape {array.shape} with axes '{letters}'; state the order of its axes,"
            " such as --axes CYX (letters of T, Z, C, Y, X)"
        )
    return letters
