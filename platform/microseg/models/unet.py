"""The U-Net family: plain, residual, with attention gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import keras
from keras import layers
from pydantic import Field

from microseg.models.blocks import (
    Activation,
    Attention,
    Head,
    Normalisation,
    Placement,
    Style,
    Up,
    block,
    decode,
    drop,
)
from microseg.models.blocks import head as map_to_probability

DropoutAt = Literal["within", "end", "junctions", "growing", "deepest"]
Kernels = Annotated[tuple[Annotated[int, Field(ge=1, le=15)], ...], Field(min_length=1)]
Dilations = Annotated[tuple[Annotated[int, Field(ge=1, le=32)], ...], Field(min_length=1)]

PLACES: dict[DropoutAt, Placement] = {
    "within": "within",
    "end": "end",
    "junctions": "junctions",
    "growing": "within",
    "deepest": "end",
}


def unet(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    depth: Annotated[int, Field(ge=2, le=8)] = 4,
    filters: Annotated[int, Field(ge=1, le=256)] = 16,
    kernels: Kernels = (3,),
    dilations: Dilations = (1,),
    attention: Attention = False,
    residual: bool = False,
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
    dropout_at: DropoutAt = "within",
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
    up: Up = "nearest",
    normalise_deepest_up: bool = True,
    head: Head = "plain",
) -> keras.Model:
    """Build a U-Net.

    Parameters
    ----------
    channels, classes : int
        Channels of the input and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    depth : int
        Number of resolution levels; the input must be a multiple of ``2 ** (depth - 1)``.
    filters : int
        Filters of the first level; each further level doubles them.
    kernels, dilations : list of int
        Side of the kernels and distance of their taps (pixels) per level, finest first, the same in encoder
        and decoder. The last one repeats; what lies beyond the depth is not used.
    attention : bool or str
        Gate the skip connections: true (Oktay et al. 2018, arXiv:1804.03999), or ``projected`` with
        additional projections (Ghaznavi et al. 2022, DOI 10.1016/j.compbiomed.2022.105805).
    residual : bool
        Give every block a shortcut (He et al. 2016, DOI 10.1109/CVPR.2016.90).
    dropout : float
        Rate of the dropout.
    dropout_at : str
        ``within``: between the two convolutions of a block. ``end``: at the end of a block. ``junctions``:
        after every pooling and concatenation. ``growing``: between the two convolutions, from nothing at the
        finest level in equal steps to the full rate at the deepest. ``deepest``: at the end of the encoder's
        two deepest blocks.
    normalisation, activation : str
        After every convolution; after every normalisation.
    up : str
        From a level to the next finer one: ``nearest`` neighbour and a 2 x 2 convolution, ``nearest_only``
        without it, ``transposed`` 2 x 2 convolution.
    normalise_deepest_up : bool
        Normalise the convolution of the deepest up-sampling too. False reproduces a network that was
        published without.
    head : str
        ``plain``: 1 x 1 convolution. ``normalised``: with batch normalisation. ``convolved``: after a
        3 x 3 convolution to two features per map.

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].

    References
    ----------
    Ronneberger, Fischer and Brox 2015, DOI 10.1007/978-3-319-24574-4_28.
    """
    style = Style(normalisation, activation, dropout, residual, attention, up, PLACES[dropout_at])
    encoder = [
        replace(style, dropout=rate, kernel=_at(kernels, level), dilation=_at(dilations, level))
        for level, rate in enumerate(_rates(dropout, dropout_at, depth))
    ]
    decoder = [replace(level, dropout=0.0) if dropout_at == "deepest" else level for level in encoder[:-1]]
    decoder[-1] = replace(decoder[-1], normalise_up=normalise_deepest_up)
    widths = [filters * 2**level for level in range(depth)]
    inputs = keras.Input((None, None, channels), name="image")
    skips, x = [], inputs
    for width, level in zip(widths[:-1], encoder, strict=False):
        skips.append(block(x, width, level))
        x = drop(layers.MaxPooling2D(2)(skips[-1]), level, "junctions")
    x = decode(block(x, widths[-1], encoder[-1]), skips, widths[:-1], decoder)
    return keras.Model(inputs, map_to_probability(x, classes, head), name="unet")


def _at(values: Sequence[int], level: int) -> int:
    """Return the value of a level where the last one repeats."""
    return values[min(level, len(values) - 1)]


def _rates(rate: float, dropout_at: DropoutAt, depth: int) -> list[float]:
    """Return the rate of the dropout at every level of the encoder, finest first."""
    if dropout_at == "growing":
        return [rate * level / (depth - 1) for level in range(depth)]
    if dropout_at == "deepest":
        return [0.0] * (depth - 2) + [rate] * 2
    return [rate] * depth


def unet_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    return int(2 ** (params["depth"] - 1))
