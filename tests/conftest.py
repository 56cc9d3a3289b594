"""Fixtures that every test may use: quiet libraries, and the real labelled images where they are."""

import os
from pathlib import Path

import pytest

# Before any library is imported: no version checks over the network, no telemetry, no start-up chatter.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MICROSEG_SHARED", PROJECT.parent / "shared"))


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout."""
    return PROJECT


@pytest.fixture
def real_data():
    """Return a function from a set's name to its folder; the test is skipped where the set is absent."""

    def find(name: str) -> Path:
        folder = SHARED / "data" / name
        if not folder.is_dir():
            pytest.skip(f"the labelled images '{name}' are not beside this checkout (MICROSEG_SHARED)")
        return folder

    return find
