"""What others have made, taken into the comparison with our own: networks, tables of results, masks."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["IMPORTED", "OPTIMISTIC", "ImportRequest", "Imported", "import_model"]


def __getattr__(name: str) -> Any:
    """Load what imports networks when it is asked for: a table of results needs no Keras, nor its seconds."""
    if name in __all__:
        return getattr(importlib.import_module("microseg.importing.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
