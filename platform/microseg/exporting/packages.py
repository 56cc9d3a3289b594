"""Packages that only an export needs."""

from __future__ import annotations

import importlib
from typing import Any

from microseg.errors import MicrosegError


def needed(name: str) -> Any:
    """Import a module of a package of the extra ``export``.

    Raises
    ------
    MicrosegError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MicrosegError(
            f"{name} cannot be imported ({error}); it comes with: pip install 'microseg[export]'"
        ) from error
