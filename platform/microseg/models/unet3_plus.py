"""UNet 3+: every decoder level sees every other level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import keras
from keras import layers
from pydantic import Field

from microseg.models.blocks import Activation, Normalisation, Style, Tensor, block, unit
from microseg.models.side_outputs import probability, side_output


def unet3_plus(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    depth: Annotated[int, Field(ge=2, le=7)] = 5,
    filters: Annotated[int, Field(ge=1, le=256)] = 64,
    skip_filters: Annotated[int, Field(ge=1, le=256)] = 64,
    deep_supervision: bool = False,
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
) -> keras.Model:
    """Build a UNet 3+: full-scale skip connections.

    Parameters
    ----------
    channels, classes : int
        Channels of the input and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    depth : int
        Number of resolution levels; the input must be a multiple of ``2 ** (depth - 1)``.
    filters : int
        Filters of the encoder's first level; each further level doubles them.
    skip_filters : int
        Filters to which a decoder level reduces each of its ``depth`` sources; its own width is
        ``depth * skip_filters``.
    deep_supervision : bool
        Add a head for every level of the decoder and the deepest features, finest first.
    dropout : float
        Rate between the two convolutions of an encoder block.
    normalisation, activation : str
        After every convolution; after every normalisation.

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].
        With deep supervision ``outputs[0]`` is the finest head and ``outputs[1:]`` are all heads.

    References
    ----------
    Huang et al. 2020, arXiv:2004.08790, without its classification-guided module.
    """
    style = Style(normalisation, activation, dropout)
    inputs = keras.Input((None, None, channels), name="image")
    encoder = [block(inputs, filters, style)]
    for level in range(1, depth):
        encoder.append(block(layers.MaxPooling2D(2)(encoder[-1]), filters * 2**level, style))
    decoder = _decode(encoder, skip_filters, style)
    supervised = decoder if deep_supervision else decoder[:1]
    heads = [
        probability(side_output(x, classes, 2**level), f"level_{level}") for level, x in enumerate(supervised)
    ]
    outputs = [heads[0], *heads] if deep_supervision else heads[0]
    return keras.Model(inputs, outputs, name="unet3_plus")


def unet3_plus_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    return int(2 ** (params["depth"] - 1))


def _decode(encoder: Sequence[Tensor], filters: int, style: Style) -> list[Tensor]:
    """Return the features of every level of the decoder, finest first; the deepest are the encoder's.

    A level takes the encoder's finer levels and its own, and the decoder's coarser ones.
    """
    levels = list(encoder)
    for level in reversed(range(len(encoder) - 1)):
        sources = [unit(_resample(x, k - level), filters, style) for k, x in enumerate(levels)]
        x = layers.Concatenate()(sources)
        levels[level] = unit(x, x.shape[-1], style)
    return levels


def _resample(x: Tensor, levels: int) -> Tensor:
    """Bring features from so many levels further down (negative: up) to this one's resolution."""
    if levels < 0:
        return layers.MaxPooling2D(2**-levels)(x)
    return layers.UpSampling2D(2**levels, interpolation="bilinear")(x) if levels else x
