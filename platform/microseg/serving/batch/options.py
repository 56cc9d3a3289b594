"""What a batch prediction may be asked for."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import ByteSize, Field

from microseg.config import Strict

Format = Literal["auto", "png", "ome-tiff", "ome-zarr"]


class PredictOptions(Strict):
    """How images are predicted and masks are written.

    ``instances`` asks for numbered objects and their table, ``tta`` for the mean over the 8 symmetries of a
    square. ``format`` is that of the masks; "auto" is the image's own for OME-Zarr, else PNG, and OME-TIFF
    for stacks and for what is too large for a PNG. ``max_memory`` is what the process may hold, such as
    "4GiB". ``skip_flat`` takes tiles for background whose preprocessed values are less than this apart; 0
    asks the networks about every tile. ``axes`` is the order of the axes of multi-page TIFF files, by default
    that of the training images. ``ray`` asks for the workers of a Ray cluster, see
    `microseg.serving.batch.cluster`.
    """

    instances: bool = False
    tta: bool = False
    format: Format = "auto"
    max_memory: ByteSize | None = Field(default=None, gt=0)
    skip_flat: float = Field(default=0.0, ge=0.0)
    axes: str | None = Field(default=None, pattern="^[TZCYX]+$")
    ray: bool = False


PLAIN = PredictOptions()


class Request(NamedTuple):
    """What is to be predicted: the model, the images, the folder for the masks, and how."""

    model_uri: str
    images: tuple[str, ...]
    target: str
    options: PredictOptions
