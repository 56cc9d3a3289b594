"""What is timed: one network on synthetic cells, the same on every machine."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from microseg.components import create
from microseg.config import Component, Precision, TrialConfig
from microseg.data.pairs import Pair
from microseg.data.preprocess import PREPROCESSING
from microseg.data.synthetic import draw_cells

FIELD = 128  # side of a drawn field of view: larger ones take long to draw
FIELDS = 16


def timed_config(
    precision: Precision = "auto", batch_size: int = 8, tile: int = 256, depth: int = 4, filters: int = 32
) -> TrialConfig:
    """Return the configuration that is timed: a U-Net, trained on elastically deformed patches.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16", "float16"}
        Of the arithmetic.
    batch_size : int
        Patches at once, in training and inference.
    tile : int
        Side of a patch, pixels.
    depth, filters : int
        Levels of the U-Net, and the filters of its first.
    """
    return TrialConfig(
        model=Component(name="unet", params={"depth": depth, "filters": filters}),
        augment=Component(name="elastic"),
        tile=tile,
        batch_size=batch_size,
        precision=precision,
    )


def cells(side: int, images: int = 4) -> list[Pair]:
    """Return synthetic cells, preprocessed, and their masks, with so many pixels in height and width."""
    return [_pair(number, side) for number in range(images)]


def picture(side: int, number: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return an image, (side, side), put together of drawn fields of view, and its mask of 0 and 1."""
    across = -(-side // FIELD)
    fields = [_field((number + place) % FIELDS) for place in range(across * across)]
    image, mask = (
        np.block([list(plane[row * across : (row + 1) * across]) for row in range(across)])[:side, :side]
        for plane in zip(*fields, strict=True)
    )
    return image, mask


@functools.cache
def _field(number: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    image, labels = draw_cells(FIELD, session=0, image=number, seed=0)
    return image, (labels > 0).astype(np.uint8)


def _pair(number: int, side: int) -> Pair:
    image, mask = picture(side, number)
    config = timed_config()
    return Pair(
        f"cells-{number}", create(config.preprocess, PREPROCESSING, "preprocess", image[..., None]), mask
    )
