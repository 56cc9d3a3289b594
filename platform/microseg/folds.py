"""Grouped, stratified, hold-out aware folds; pure functions of a manifest."""

from __future__ import annotations

import numpy as np

from microseg.config import Strict
from microseg.data.manifest import Item, Manifest
from microseg.errors import MicrosegError


class Fold(Strict):
    """One fold: the names of the items that train and of those that validate."""

    index: int
    train: tuple[str, ...]
    valid: tuple[str, ...]
