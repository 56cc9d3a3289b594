"""Tiled prediction as `microseg predict` does it, beside the bare network on tiles that are ready."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from microseg import runtime
from microseg.bench.networks import picture
from microseg.bench.turns import Way, timed
from microseg.config import TrialConfig
from microseg.models import build_model
from microseg.serving.card import ModelCard
from microseg.serving.segmenter import Segmenter


def saved(config: TrialConfig, folder: Path) -> Segmenter:
    """Save a network with random weights as a study would register it, and load it as a server does."""
    with runtime.fresh_session(config.precision, config.seed):
        folder.mkdir(parents=True)
        build_model(config.model, 1, 1).save(folder / "fold-0.keras")
    card = ModelCard(
        name="bench", study="-", trial="-", config=config, channels=1, classes=("cell",), data_digest=""
    )
    card.write(folder)
    return Segmenter(folder)


class Prediction:
    """One image, predicted in tiles and, as a reference, as so many tiles side by side.

    Parameters
    ----------
    segmenter : Segmenter
        The loaded model.
    side : int
        Height and width of the image, pixels.
    """

    def __init__(self, segmenter: Segmenter, side: int) -> None:
        self._segmenter = segmenter
        self._image = picture(side)[0][..., None]
        self.pixels = side * side
        self.tiles = segmenter.grid.tiles(side, side)
        self._batch = segmenter.batch_size(self._image.shape)
        tile, rng = segmenter.grid.tile, np.random.default_rng(0)
        self._tiles = rng.random((self.tiles, tile, tile, 1), np.float32)

    def tiled(self) -> None:
        """Predict the image: preprocessing, tiles, network, blending."""
        self._segmenter.probability(self._image)

    def bare(self) -> None:
        """Let the network alone see as many tiles, in batches as large."""
        for first in range(0, self.tiles, self._batch):
            self._segmenter.networks[0].predict_on_batch(self._tiles[first : first + self._batch])

    @property
    def ways(self) -> dict[str, Way]:
        """Both ways, by name."""
        return {"bare": timed(self.bare), "tiled": timed(self.tiled)}
