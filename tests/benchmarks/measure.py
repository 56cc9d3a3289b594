"""What the benchmarks share: a training as a recipe, processes of their own, and the output."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from microseg.bench.start import Measured, environment, search_once
from microseg.bench.start import run_python as timed
from microseg.config import Strict, TrialConfig
from microseg.data.manifest import Manifest
from microseg.folds import Fold

__all__ = [
    "PROJECT",
    "Measured",
    "Recipe",
    "environment",
    "search_once",
    "spread",
    "terminal",
    "timed",
    "write_json",
]

PROJECT = Path(__file__).resolve().parents[2]


class Recipe(Strict):
    """One fold's training, complete enough for a script that knows neither Ray nor MLflow."""

    config: TrialConfig
    manifest: Manifest
    fold: Fold
    cache: Path
    threads: int


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return median and range."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def terminal() -> Console:
    """Return where tables are printed; a log file has no width to wrap at."""
    return Console() if sys.stdout.isatty() else Console(width=140)


def write_json(path: Path | None, record: Any) -> None:
    """Write a record where one was asked for."""
    if path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
