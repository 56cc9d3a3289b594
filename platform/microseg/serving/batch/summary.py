"""What a batch prediction did."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from microseg.config import Strict
from microseg.errors import MicrosegError
from microseg.instances import HALO


class Written(NamedTuple):
    """One finished image.

    Attributes
    ----------
    mask : str
        Where its mask is.
    pixels : int
        How many pixels were predicted, of all planes.
    unlike : tuple of str
        How it differs from the training images, in sentences.
    objects : int
        How many were numbered.
    larger : int
        How many of these lie in pieces that are larger than the halo of blocks.
    resumed : float
        Share of it that an earlier run had done.
    """

    mask: str
    pixels: int
    unlike: tuple[str, ...] = ()
    objects: int = 0
    larger: int = 0
    resumed: float = 0.0


Outcome = Written | MicrosegError  # the latter says why an image could not be used


class PredictSummary(Strict):
    """What a batch prediction did.

    ``masks`` are the written files; ``objects`` is the number of objects, where they were asked for;
    ``larger`` maps an image to the number of its objects in pieces that are larger than ``halo``, that of
    the blocks in which large images are labelled;
    ``unlike`` maps an image that does not look like those of the training to sentences that say how, and
    ``failed`` one that could not be segmented to the reason; ``skipped`` are files that are no images;
    ``resumed`` maps an image to the share of it that an earlier run had done. ``megapixels`` and ``seconds``
    count what this run has read, predicted and written, not the loading of the model. ``seams`` says what
    tiles change of the model's predictions, where its card does.
    """

    masks: tuple[str, ...]
    objects: int | None = None
    larger: dict[str, int] = Field(default_factory=dict)
    halo: int = HALO
    failed: dict[str, str]
    skipped: tuple[str, ...]
    resumed: dict[str, float] = Field(default_factory=dict)
    megapixels: float
    seconds: float
    seams: str = ""
    unlike: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def megapixels_per_second(self) -> float:
        """Speed over the images that were segmented."""
        return self.megapixels / self.seconds if self.seconds > 0 else 0.0
