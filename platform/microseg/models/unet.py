"""The U-Net family: plain, residual, with attention gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import keras
from keras import layers
from pydantic import Field

from microseg.models.blocks import Activation, Normalisation, Style, Up, block, decode, head


def unet(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    depth: Annotated[int, Field(ge=2, le=8)] = 4,
    filters: Annotated[int, Field(ge=1, le=256)] = 16,
    attention: bool = False,
    residual: bool = False,
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
    up: Up = "nearest",
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
    attention : bool
        Gate the skip connections (Oktay et al. 2018, arXiv:1804.03999).
    residual : bool
        Give every block a shortcut (He et al. 2016, DOI 10.1109/CVPR.2016.90).
    dropout : float
        Rate between the two convolutions of a block.
    normalisation, activation, up : str
        After every convolution; after every normalisation; from a level to the next finer one.

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].

    References
    ----------
    Ronneberger, Fischer and Brox 2015, DOI 10.1007/978-3-319-24574-4_28.
    """
    style = Style(normalisation, activation, dropout, residual, attention, up)
    widths = [filters * 2**level for level in range(depth)]
    inputs = keras.Input((None, None, channels), name="image")
    skips, x = [], inputs
    for width in widths[:-1]:
        skips.append(block(x, width, style))
        x = layers.MaxPooling2D(2)(skips[-1])
    x = decode(block(x, widths[-1], style), skips, widths[:-1], style)
    return keras.Model(inputs, head(x, classes), name="unet")


def unet_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    return int(2 ** (params["depth"] - 1))
