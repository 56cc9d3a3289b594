"""To wait for a server that is away: as long as MLflow's client does, some four minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

WAITS = (1, 2, 4, 8, 16, 32, 64, 120)  # seconds

T = TypeVar("T")


def patiently(act: Callable[[], T], away: Callable[[Exception], bool]) -> T:
    """Do something, and again later and later while a server that it needs is away.

    Parameters
    ----------
    act : callable
        What may be done twice: before a connection broke it may have been done or not.
    away : callable
        Says whether an exception means that the server is away; others are raised at once.

    Returns
    -------
    T
        What `act` returns. Its last exception is raised if the server stays away.
    """
    for wait in WAITS:
        try:
            return act()
        except Exception as error:
            if not away(error):
                raise
            time.sleep(wait)
    return act()
