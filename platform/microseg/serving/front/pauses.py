"""When to try a version again that failed: at once, then after longer and longer pauses."""

from __future__ import annotations

import time

LONGEST = 300.0  # seconds
STEADY = 600.0  # seconds: what ran for so long had not failed before


class Pauses:
    """Failures of versions, and the pauses that they earn.

    Parameters
    ----------
    first : float
        Seconds after the second failure; each further one doubles them, up to five minutes.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def failed(self, version: str, lived: float = 0.0) -> None:
        """Note that a version failed, after it had served for some seconds."""
        failures = 1 if lived >= STEADY else self._failures.get(version, 0) + 1
        self._failures[version] = failures
        # The exponent is bounded: a version that fails for a year would overflow a float.
        pause = min(self._first * 2.0 ** min(failures - 2, 32), LONGEST) if failures > 1 else 0.0
        self._until[version] = time.monotonic() + pause

    def pausing(self, version: str) -> bool:
        """Return whether it is too early to try a version."""
        return time.monotonic() < self._until.get(version, 0.0)
