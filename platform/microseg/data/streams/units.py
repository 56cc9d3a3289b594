"""Units of length and time, as OME-Zarr, OME-XML and ImageJ write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_METRES = {"nano": -3, "micro": 0, "milli": 3, "centi": 4, "": 6, "pico": -6}
MICROMETRES: Mapping[str, float] = {
    **{f"{prefix}{word}": 10.0**power for prefix, power in _METRES.items() for word in ("meter", "metre")},
    **{"pm": 1e-6, "nm": 1e-3, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6},
    **{"µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "angstrom": 1e-4, "Å": 1e-4},
    **{"inch": 25400.0},
}
SECONDS: Mapping[str, float] = {
    **{"nanosecond": 1e-9, "microsecond": 1e-6, "millisecond": 1e-3, "second": 1.0},
    **{"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0},
    **{"minute": 60.0, "min": 60.0, "hour": 3600.0, "h": 3600.0, "day": 86400.0, "d": 86400.0},
}


def in_unit(value: Any, unit: str | None, table: Mapping[str, float]) -> float | None:
    """Convert a size to the unit that is 1 in a table; None where it is no positive number or of no unit."""
    try:
        size = float(value) * table.get((unit or "").strip(), math.nan)
    except (TypeError, ValueError):
        return None
    return size if math.isfinite(size) and size > 0 else None
