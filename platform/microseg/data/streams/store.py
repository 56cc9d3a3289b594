"""Masks as OME-Zarr, written block by block; what is interrupted goes on, and nothing is ever half there.

A chunk of Zarr is a file, and zarr gives it its name once it is whole. So the files say which blocks are
done, after a crash and to several processes on one file system alike.
"""

from __future__ import annotations

import itertools
import json
import shutil
import uuid
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import zarr
from numpy.typing import DTypeLike

from microseg.data.images import Array
from microseg.data.streams.image import ImageStream, Plane
from microseg.data.streams.levels import CHUNK, PlaneArray, add_halved, add_level, open_level
from microseg.data.streams.ngff import label_attributes
from microseg.errors import MicrosegError

_UNFINISHED = "microseg"  # key of the attributes that say what is being made


class MaskStore:
    """A mask in the making, see `MaskStore.open`.

    Attributes
    ----------
    target : Path
        The folder's name once the mask is whole.
    resumed : bool
        Whether an earlier run had begun it.
    shape : tuple of int
        Height and width of a plane.
    planes : dict of str to int
        As of the image.
    array : zarr.Array
        All planes: the axes of ``planes``, then height and width.
    """

    def __init__(self, target: Path, *, resumed: bool) -> None:
        self.target = target
        self.resumed = resumed
        self._folder = _unfinished(target)
        self._facts: dict[str, Any] = _facts_of(self._folder)
        self.array: Any = open_level(self._folder / "0")
        self.shape: tuple[int, int] = (self.array.shape[-2], self.array.shape[-1])
        self.planes: dict[str, int] = self._facts["planes"]

    @classmethod
    def open(cls, target: Path, like: ImageStream, dtype: DTypeLike, origin: dict[str, Any]) -> Self:
        """Begin a mask, or go on with one that was begun for the same image in the same way.

        It lies in a hidden folder beside the target until `finish`.

        Parameters
        ----------
        target : Path
            Such as ``name.ome.zarr``.
        like : ImageStream
            The image, whose size, planes, scale and version of OME-Zarr the mask takes.
        dtype : dtype
            uint8, uint16 or uint32 for masks; any other for what they are made of.
        origin : dict
            Whatever makes results equal: model, version, image, options; as JSON has it. It stays in the
            mask's attributes.
        """
        facts: dict[str, Any] = {
            "origin": _as_json(origin),
            "name": Path(like.name).stem.removesuffix(".ome"),
            "planes": like.planes,
            "scale": like.scale,
            "ngff": like.ngff or "0.5",
            "shape": [*like.planes.values(), *like.shape[:2]],
            "dtype": np.dtype(dtype).name,
        }
        folder = _unfinished(target)
        resumed = _facts_of(folder) == facts
        if not resumed:
            _discard(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = _create(folder.with_name(f"{folder.name}.{uuid.uuid4().hex}"), facts)
            try:
                fresh.rename(folder)
            except OSError:  # another process was faster: its folder is not empty
                shutil.rmtree(fresh)
                if _facts_of(folder) != facts:
                    raise
        return cls(target, resumed=resumed)

    @property
    def fraction(self) -> float:
        """Share of the blocks that are done, from 0 to 1."""
        return float(self.array.nchunks_initialized / self.array.nchunks)

    def done(self, rows: slice, columns: slice, plane: Plane = ()) -> bool:
        """Say whether all of a window of whole blocks is written."""
        return all(self._file(chunk).is_file() for chunk in self._chunks(rows, columns, plane))

    def write(self, values: Array, rows: slice, columns: slice, plane: Plane = ()) -> None:
        """Write a window of whole blocks; each of them appears as a whole or not at all.

        Parameters
        ----------
        values : ndarray, shape (height, width)
        rows, columns : slice
            From a multiple of `CHUNK` to another, or to the border of the image.
        plane : tuple of int
            Which one, along each axis of ``planes``.
        """
        self._chunks(rows, columns, plane)
        self.array[(*plane, rows, columns)] = values

    def plane_array(self, plane: Plane = ()) -> PlaneArray:
        """Return one plane as an array that is read and written by two slices."""
        return PlaneArray(self.array, plane)

    def check(self) -> None:
        """Refuse a mask of which blocks are missing: they would be read as background.

        Raises
        ------
        MicrosegError
            See above.
        """
        missing = self.array.nchunks - self.array.nchunks_initialized
        if missing:
            raise MicrosegError(
                f"{self.target}: {missing} of {self.array.nchunks} blocks are missing; resume it"
            )

    def complete(self) -> Path:
        """Add the pyramid and the metadata, and return the folder, which is hidden still.

        Every level takes every second pixel of the one before (labels have no mean), until a side is shorter
        than `CHUNK`. Interrupted, it may be called again.

        Raises
        ------
        MicrosegError
            As `check`.
        """
        self.check()
        group = zarr.open_group(self._folder, mode="r+", use_consolidated=False)
        axes = [*self.planes, "y", "x"]
        levels = [self.array]
        while min(levels[-1].shape[-2:]) >= CHUNK:
            levels.append(add_halved(group, levels[-1], str(len(levels)), axes))
        facts = self._facts
        attributes = label_attributes(
            facts["name"], "".join(axes), facts["scale"], len(levels), facts["ngff"]
        )
        group.update_attributes(attributes)
        for partial in self._folder.rglob("*.partial"):  # of processes that were killed
            partial.unlink()
        return self._folder

    def finish(self, target: Path | None = None) -> Path:
        """Complete the mask and give the folder its name; an older one is replaced.

        Parameters
        ----------
        target : Path, optional
            Another name than that which it was begun with, in the same file system.

        Raises
        ------
        MicrosegError
            As `complete`.
        """
        final = target or self.target
        _replace(self.complete(), final)
        return final

    def discard(self) -> None:
        """Remove it: what it was wanted for is done."""
        _discard(self._folder)

    def _file(self, chunk: tuple[int, ...]) -> Path:
        return self._folder / "0" / str(self.array.metadata.encode_chunk_key(chunk))

    def _chunks(self, rows: slice, columns: slice, plane: Plane) -> list[tuple[int, ...]]:
        """Return the places of a window's chunks in their grid."""
        sides = []
        for side, length in zip((rows, columns), self.shape, strict=True):
            start, stop, _ = side.indices(length)
            if start % CHUNK or (stop % CHUNK and stop != length):
                raise ValueError(f"{side} of {length} is not in whole blocks of {CHUNK}")
            sides.append(range(start // CHUNK, -(-stop // CHUNK)))
        if len(plane) != len(self.planes):
            raise ValueError(f"plane {plane} of {self.planes}")
        return [(*plane, *place) for place in itertools.product(*sides)]


def _as_json(origin: dict[str, Any]) -> Any:
    """Return it as it will be read back: with lists for tuples."""
    return json.loads(json.dumps(origin))


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _facts_of(folder: Path) -> Any:
    """Return what an unfinished mask is to become; None where there is none, or no whole one."""
    try:
        return dict(zarr.open_group(folder, mode="r", use_consolidated=False).attrs).get(_UNFINISHED)
    except (FileNotFoundError, ValueError):
        return None


def _create(folder: Path, facts: dict[str, Any]) -> Path:
    zarr_format: Literal[2, 3] = 3 if facts["ngff"] == "0.5" else 2
    group = zarr.create_group(folder, zarr_format=zarr_format, attributes={_UNFINISHED: facts})
    add_level(group, "0", tuple(facts["shape"]), facts["dtype"], [*facts["planes"], "y", "x"])
    return folder


def _replace(folder: Path, target: Path) -> None:
    """Give a folder its name; a folder that is not empty cannot be replaced in one step."""
    old = target.with_name(f".{target.name}.old")
    _discard(old)
    if target.exists():
        target.rename(old)
    folder.rename(target)
    _discard(old)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
