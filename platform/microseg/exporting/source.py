"""What is exported: a registered model as its card describes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from microseg.config import TrialConfig
from microseg.models import grid_of
from microseg.tiling import Grid


@dataclass(frozen=True)
class Source:
    """A registered model, and what its card says of it.

    ``about`` is a sentence on where it comes from, ``scores`` those that it was chosen by; ``members`` are
    its networks, whose probabilities are averaged; ``halo`` is how far they look, in pixels, where that was
    measured. ``license`` is an SPDX identifier, empty where nobody chose one.
    """

    name: str
    version: str
    about: str
    author: str
    config: TrialConfig
    classes: tuple[str, ...]
    scores: dict[str, float]
    members: Sequence[keras.Model]
    halo: int | None = None
    pixel_size_um: float | None = None
    license: str = ""

    @property
    def grid(self) -> Grid:
        """How tiles lie on an image."""
        return grid_of(self.config, self.halo)

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the network's maps: the foreground's alone, or one for each class."""
        count = self.members[0].outputs[0].shape[-1]
        return self.classes if count == len(self.classes) else tuple(f"map {n + 1}" for n in range(count))
