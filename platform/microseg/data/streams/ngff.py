"""The metadata of OME-Zarr images (NGFF 0.4 and 0.5, https://ngff.openmicroscopy.org), read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microseg import __version__
from microseg.data.streams.units import MICROMETRES, SECONDS, in_unit
from microseg.errors import MicrosegError

_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def ome_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the attributes of a group say in NGFF's terms, in whatever version."""
    facts = attributes.get("ome", attributes)
    return dict(facts) if isinstance(facts, Mapping) else {}


def read_multiscales(facts: Mapping[str, Any], name: str) -> tuple[list[str], str, dict[str, float]]:
    """Return the paths of the levels from the full resolution on, their axes, and the scale.

    Parameters
    ----------
    facts : mapping
        One entry of ``multiscales``. Before version 0.3, axes had no names and were always tczyx; before
        0.4, they had no units.
    name : str
        What to call the image in an error.

    Returns
    -------
    paths : list of str
    axes : str
        Letters of tczyx.
    scale : dict of str to float
        Micrometres along z, y and x, seconds along t, as far as they have a unit.

    Raises
    ------
    MicrosegError
        If a required field is missing or the axes are no image's.
    """
    try:
        axes = [_axis(entry) for entry in facts.get("axes", "tczyx")]
        paths = [str(level["path"]) for level in facts["datasets"]]
        level = facts["datasets"][0]
        sizes = [1.0] * len(axes)
        for transform in [
            *level.get("coordinateTransformations", ()),
            *facts.get("coordinateTransformations", ()),
        ]:
            if "scale" in transform:
                sizes = [size * float(by) for size, by in zip(sizes, transform["scale"], strict=True)]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise MicrosegError(
            f"{name}: its OME-Zarr metadata is incomplete ({reason}); write it again"
        ) from error
    letters = "".join(letter for letter, _ in axes)
    if not {"y", "x"} <= set(letters) <= set("tczyx") or len(set(letters)) != len(axes):
        raise MicrosegError(
            f"{name}: axes {[letter for letter, _ in axes]}; an image has y and x, and may have t, c and z"
        )
    found = {
        letter: in_unit(size, unit, SECONDS if letter == "t" else MICROMETRES)
        for (letter, unit), size in zip(axes, sizes, strict=True)
    }
    return paths, letters, {letter: size for letter, size in found.items() if size is not None}


def _axis(entry: Any) -> tuple[str, str | None]:
    """Return an axis's letter and unit; one of type channel or time may have any name."""
    if isinstance(entry, str):
        return entry.lower(), None
    kind = {"channel": "c", "time": "t"}.get(entry.get("type", ""))
    return kind or str(entry["name"]).lower(), entry.get("unit")


def label_attributes(
    name: str, axes: str, scale: Mapping[str, float], levels: int, version: str
) -> dict[str, Any]:
    """Return the attributes of a label image whose levels ``0`` to ``n - 1`` each take every second pixel.

    Every second pixel from the first on: the centres of first pixels coincide, so levels need no translation.

    Parameters
    ----------
    name : str
        Of the image.
    axes : str
        In the letters t, z, y and x.
    scale : mapping of str to float
        See `microseg.data.streams.image.Facts`; an axis of unknown scale has no unit.
    levels : int
        Of the pyramid.
    version : str
        ``"0.4"`` (for Zarr 2) or ``"0.5"`` (for Zarr 3).
    """
    multiscales: dict[str, Any] = {
        "name": name,
        "axes": [_described(axis, scale) for axis in axes],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [{"type": "scale", "scale": _sizes(axes, scale, 2**level)}],
            }
            for level in range(levels)
        ],
        "type": "nearest",
        "metadata": {"method": "every second pixel", "creator": f"microseg {__version__}"},
    }
    if version == "0.4":
        return {"multiscales": [{"version": version} | multiscales], "image-label": {"version": version}}
    return {"ome": {"version": version, "multiscales": [multiscales], "image-label": {}}}


def _described(axis: str, scale: Mapping[str, float]) -> dict[str, str]:
    described = {"name": axis, "type": _KINDS[axis]}
    return described | {"unit": _UNITS[axis]} if axis in scale else described


def _sizes(axes: Sequence[str], scale: Mapping[str, float], step: int) -> list[float]:
    return [scale.get(axis, 1.0) * (step if axis in "yx" else 1) for axis in axes]
