"""Physical sizes that a TIFF file states: OME-XML, ImageJ, or pixels per centimetre."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import tifffile

from microseg.data.streams.units import MICROMETRES, SECONDS, in_unit

_CENTIMETRE = 3  # value of the tag ResolutionUnit (296)


def tiff_scale(tif: tifffile.TiffFile) -> dict[str, float]:
    """Return sizes along ``z``, ``y`` and ``x`` in micrometres, and along ``t`` in seconds, where stated.

    Resolutions in pixels per inch are left out: most are a screen's or a printer's, not the microscope's.
    """
    if tif.is_ome:
        return _ome(tif.ome_metadata or "")
    if tif.is_imagej:
        return _imagej(tif.imagej_metadata or {}, tif.pages.first)
    page = tif.pages.first
    unit = "cm" if page.tags.valueof(296) == _CENTIMETRE else None
    return _known({"y": (_side(page, 283), unit), "x": (_side(page, 282), unit)})


def _ome(document: str) -> dict[str, float]:
    """Read the attributes of the first image (OME-XML: PhysicalSize in micrometres, time in seconds)."""
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        return {}
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return {}
    sizes = {
        axis.lower(): (pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "ZYX"
    }
    return _known(
        {"t": (pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))} | sizes,
    )


def _imagej(facts: Mapping[str, Any], page: Any) -> dict[str, float]:
    """Read ImageJ's description: lengths in its own unit, resolutions in pixels per unit."""
    unit = str(facts.get("unit", "")).replace("\\u00B5", "µ")  # ImageJ escapes what is not ASCII
    return _known(
        {
            "t": (facts.get("finterval"), "s"),
            "z": (facts.get("spacing"), unit),
            "y": (_side(page, 283), unit),
            "x": (_side(page, 282), unit),
        }
    )


def _side(page: Any, tag: int) -> float | None:
    """Return a pixel's side in units of a resolution tag, a fraction of pixels per unit."""
    pixels, units = page.tags.valueof(tag, default=(0, 0))
    return units / pixels if pixels and units else None


def _known(sizes: Mapping[str, tuple[Any, str | None]]) -> dict[str, float]:
    """Convert what is a positive number of a known unit."""
    found = {
        axis: in_unit(value, unit, SECONDS if axis == "t" else MICROMETRES)
        for axis, (value, unit) in sizes.items()
    }
    return {axis: size for axis, size in found.items() if size is not None}
