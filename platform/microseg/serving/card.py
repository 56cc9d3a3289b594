"""What a served model must know about itself, kept as ``card.json`` beside its networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

import microseg
from microseg.config import Candidate, Component, Precision, Strict, TrialConfig, first_problem
from microseg.errors import MicrosegError
from microseg.serving.unlike import Appearance, Look, differences, scale_difference
from microseg.tiling import halo_of

CARD = "card.json"

Kind = Candidate | Literal["imported"]

MEANING: dict[Kind, str] = {
    "ensemble": "the networks of all folds, whose probabilities are averaged",
    "best_fold": "the network of the fold with the best score",
    "retrained": (
        "one network, trained once more on all images of the folds for the median of their best epochs; no "
        "validation score of this very network exists, its scores are those of the fold networks"
    ),
    "imported": "one network that was trained elsewhere, on images that nobody here knows",
}


class Tiling(Strict):
    """What tiles do to a model's predictions, measured on validation images when it was packaged.

    ``halo`` is the radius in pixels that holds 99 % of the networks' gradient, at most a quarter of the tile.
    ``seam_mean`` and ``seam_worst`` are the mean and the 99.9th percentile, over pixels, of the absolute
    difference between the probabilities in tiles and in one piece. See `microseg.training.context`.
    """

    halo: int = Field(ge=0)
    seam_mean: float = Field(ge=0.0)
    seam_worst: float = Field(ge=0.0)


class ModelCard(Strict):
    """Identity, input and origin of a model.

    Tile, overlap, batch size, preprocessing and threshold are those of ``config``, so that serving
    cannot drift from what was validated. ``name`` is the registered model's; ``kind`` says how its networks
    came about; ``classes`` are named as in the `Manifest`; ``axes`` orders multi-page TIFF files;
    ``precision`` is the one that was used where ``config`` says "auto"; ``data_digest`` is the manifest's,
    empty for an imported network whose data is unknown; ``scores`` are cross-validated means such as
    ``val/dice`` (selection scores: the folds chose the epoch). ``instances`` is how objects are told apart,
    an entry of ``INSTANCES`` with the parameters that a search chose; None where there were no objects to
    search on. ``appearance`` is how the training images look; None where nobody knows them.
    """

    name: str
    kind: Kind = "ensemble"
    study: str
    trial: str
    config: TrialConfig
    channels: int = Field(ge=1)
    classes: tuple[str, ...] = Field(min_length=1)
    axes: str | None = None
    pixel_size_um: float | None = None
    precision: Precision = "float32"
    data_digest: str
    scores: dict[str, float] = Field(default_factory=dict)
    instances: Component | None = None
    tiling: Tiling | None = None
    appearance: Appearance | None = None
    microseg_version: str = microseg.__version__

    @property
    def description(self) -> str:
        """What the model is, in a sentence."""
        return f"Of study {self.study}, {self.trial}: {MEANING[self.kind]}."

    @property
    def halo(self) -> int:
        """The pixels at a tile's borders that are left to its neighbours: measured, or as in validation."""
        return self.tiling.halo if self.tiling else halo_of(self.config.tile, self.config.overlap)

    @property
    def seams(self) -> str:
        """What tiles do to the predictions, in a sentence; empty where nobody measured it."""
        if self.tiling is None:
            return ""
        return (
            f"tiles of {self.config.tile} pixels with a halo of {self.halo} change a probability by "
            f"{self.tiling.seam_mean:.2g} on average and by {self.tiling.seam_worst:.2g} in 1 of 1000 pixels "
            "(measured on validation images)"
        )

    def unlike(self, found: Callable[[], Look], pixel_size_um: float | None) -> tuple[str, ...]:
        """Say how an image differs from the training images, as far as these are known.

        Parameters
        ----------
        found : callable
            Returns how it looks; called only where that can be compared.
        pixel_size_um : float or None
            Side of its pixels, where known.
        """
        look = differences(self.appearance, found()) if self.appearance else []
        return (*look, *scale_difference(self.pixel_size_um, pixel_size_um))

    def write(self, directory: Path) -> None:
        """Write the card into a model's directory."""
        (directory / CARD).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> ModelCard:
        """Read the card of a model's directory.

        Raises
        ------
        MicrosegError
            If there is none, or it was written for another version of these fields.
        """
        path = directory / CARD
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise MicrosegError(f"{directory}: no {CARD}; this is not a microseg model") from error
        except ValidationError as error:
            raise MicrosegError(
                f"{path}: {first_problem(error, cls)}; use the microseg version that wrote it"
            ) from error
