"""From a finished OME-Zarr mask to a tiled OME-TIFF with its pyramid, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tifffile
import zarr

from microseg.data.files import replacing
from microseg.data.images import Array
from microseg.data.streams.levels import CHUNK, blocks
from microseg.data.streams.ngff import ome_attributes, read_multiscales

_CLASSIC = 2**32 - 2**25  # bytes that offsets of 32 bits reach, less room for metadata


def write_ome_tiff(mask: Path, target: Path) -> None:
    """Write a mask as OME-TIFF: tiled, compressed, with its pyramid in SubIFDs and its physical sizes.

    Memory does not grow with the mask. The file takes its name only when it is whole.

    Parameters
    ----------
    mask : Path
        The folder that `MaskStore.complete` or `MaskStore.finish` returns.
    target : Path
        Such as ``name.ome.tif``; without ``.ome``, readers take it for a plain pyramid.
    """
    group = zarr.open_group(mask, mode="r", use_consolidated=False)
    facts = ome_attributes(group.attrs)["multiscales"][0]
    paths, axes, scale = read_multiscales(facts, str(mask))
    levels: list[Any] = [group[path] for path in paths]
    large = sum(level.nbytes for level in levels) > _CLASSIC  # compressed it may be smaller, but who knows
    with replacing(target) as file, tifffile.TiffWriter(file, bigtiff=large, ome=True) as writer:
        for number, level in enumerate(levels):
            first = number == 0
            writer.write(
                _tiles(level),
                shape=level.shape,
                dtype=level.dtype,
                tile=tuple(min(CHUNK, -(-side // 16) * 16) for side in level.shape[-2:]),
                compression="zlib",
                photometric="minisblack",
                maxworkers=1,  # with more, tifffile collects half a gigabyte before it compresses
                metadata=_metadata(facts["name"], axes.upper(), scale) if first else None,
                subifds=len(levels) - 1 if first else None,
                subfiletype=0 if first else 1,
                **_resolution(scale, 2**number),
            )


def _tiles(level: Any) -> Iterator[Array]:
    for plane, rows, columns in blocks(level.shape):
        yield level[(*plane, rows, columns)]


def _metadata(name: str, axes: str, scale: Mapping[str, float]) -> dict[str, Any]:
    """Name the axes, and the sizes along them, as OME-XML does."""
    sizes: dict[str, Any] = {"axes": axes, "Name": name}
    for axis, size in scale.items():
        key = "TimeIncrement" if axis == "t" else f"PhysicalSize{axis.upper()}"
        sizes |= {key: size, f"{key}Unit": "s" if axis == "t" else "µm"}
    return sizes


def _resolution(scale: Mapping[str, float], step: int) -> dict[str, Any]:
    """Return pixels per centimetre for readers that know no OME-XML."""
    if not {"x", "y"} <= set(scale):
        return {}
    return {
        "resolution": tuple(1e4 / (scale[axis] * step) for axis in "xy"),
        "resolutionunit": "CENTIMETER",
    }
