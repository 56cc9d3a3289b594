"""U-Nets whose encoder is a classification network of `keras.applications`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import keras
from pydantic import Field

from microseg.models.blocks import Activation, Normalisation, Style, Up, decode, head
from microseg.models.encoders import ENCODERS, Encoder, EncoderName, Weights, adapt, load_encoder


def encoder_unet(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    encoder: EncoderName = "vgg16",
    weights: Weights = "none",
    freeze: bool = False,
    depth: Annotated[int, Field(ge=2, le=5)] = 5,
    filters: Annotated[int, Field(ge=1, le=512)] = 64,
    attention: bool = False,
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
    up: Up = "transposed",
) -> keras.Model:
    """Build a U-Net on the levels of a classification network.

    Parameters
    ----------
    channels, classes : int
        Channels of the input (1 is replicated, 3 is RGB, others are projected by a learned 1 x 1
        convolution) and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    encoder : str
        A row of ``ENCODERS``.
    weights : str
        ``none``, ``imagenet`` (needs the network once), or the absolute path of a Keras weights file
        without the classifier, trained with the same input preprocessing as the ImageNet weights.
        With weights the image must be preprocessed to [0, 1].
    freeze : bool
        Keep the encoder's weights as they are.
    depth : int
        Number of levels taken from the encoder.
    filters : int
        Filters of the decoder's finest level; each coarser level doubles them.
    attention, dropout, normalisation, activation, up
        Of the decoder, as in `unet`.

    Raises
    ------
    MicrosegError
        If the weights cannot be loaded.
    """
    style = Style(normalisation, activation, dropout, attention=attention, up=up)
    network = load_encoder(encoder, depth, weights)
    network.trainable = not freeze
    inputs = keras.Input((None, None, channels), name="image")
    levels = network(adapt(inputs, ENCODERS[encoder], weights != "none"))
    x = decode(levels[-1], levels[:-1], [filters * 2**level for level in range(depth - 1)], style)
    return keras.Model(inputs, head(x, classes), name=f"{encoder}_unet")


def encoder_unet_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    row: Encoder = ENCODERS[params["encoder"]]
    level: int = params["depth"] - 1
    return row.strides[level]
