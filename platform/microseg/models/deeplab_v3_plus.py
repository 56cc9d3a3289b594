"""DeepLabv3+ on the encoders of `keras.applications`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import keras
from keras import layers
from pydantic import Field

from microseg.models.blocks import Activation, Normalisation, Style, Tensor, activate, convolve, normalise
from microseg.models.encoders import (
    EncoderName,
    Freeze,
    InputScaling,
    Weights,
    adapt,
    input_scaling,
    level_strides,
    load_encoder,
)

LOW_LEVEL = 4  # stride of the encoder's level that brings the outlines back


def deeplab_v3_plus(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    encoder: EncoderName = "resnet50",
    weights: Weights = "none",
    freeze: Freeze = False,
    scaling: InputScaling = "auto",
    output_stride: Literal[8, 16] = 16,
    rates: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (6, 12, 18),
    filters: Annotated[int, Field(ge=1, le=512)] = 256,
    low_level_filters: Annotated[int, Field(ge=1, le=512)] = 48,
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
) -> keras.Model:
    """Build DeepLabv3+: atrous spatial pyramid pooling, and a decoder with one skip connection.

    The encoder ends at the level of the output stride: its later stages are left out, not dilated.

    Parameters
    ----------
    channels, classes : int
        Channels of the input and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    encoder, weights, freeze, scaling
        As in `encoder_unet`.
    output_stride : int
        Input pixels per pixel of the pyramid.
    rates : tuple of int
        Distances of the atrous kernels' taps, in pixels of output stride 16; at 8 they are doubled.
    filters, low_level_filters : int
        Filters of the pyramid and the decoder, and of the projected skip connection.
    dropout : float
        Rate behind the pyramid.
    normalisation, activation : str
        Of the pyramid and the decoder, as in `unet`.

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].

    Raises
    ------
    MicrosegError
        If the weights cannot be loaded.

    References
    ----------
    Chen et al. 2018, DOI 10.1007/978-3-030-01234-2_49, arXiv:1802.02611.
    """
    style = Style(normalisation, activation)
    strides = level_strides(encoder, None)
    network = load_encoder(encoder, strides.index(output_stride) + 1, weights)
    network.trainable = not freeze
    inputs = keras.Input((None, None, channels), name="image")
    levels = network(adapt(inputs, input_scaling(encoder, weights, scaling)))
    x = _pyramid(levels[-1], [rate * 16 // output_stride for rate in rates], filters, style)
    if dropout:
        x = layers.Dropout(dropout)(x)
    x = layers.UpSampling2D(output_stride // LOW_LEVEL, interpolation="bilinear")(x)
    skip = activate(convolve(levels[strides.index(LOW_LEVEL)], low_level_filters, 1, style), style)
    x = layers.Concatenate()([skip, x])
    for _ in range(2):
        x = _separable(x, filters, 1, style)
    return keras.Model(inputs, _head(x, classes), name=f"{encoder}_deeplab_v3_plus")


def deeplab_v3_plus_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    return int(params["output_stride"])


def _separable(x: Tensor, filters: int, rate: int, style: Style) -> Tensor:
    """Convolve each channel with an atrous 3 x 3 kernel, then mix the channels."""
    depthwise = layers.DepthwiseConv2D(
        3, padding="same", dilation_rate=rate, use_bias=False, depthwise_initializer="he_normal"
    )
    x = activate(normalise(depthwise(x), style), style)
    return activate(convolve(x, filters, 1, style), style)


def _pyramid(x: Tensor, rates: list[int], filters: int, style: Style) -> Tensor:
    """Look at the features from several distances, and at their mean over the image.

    The mean's share of the projection is added rather than concatenated and projected with the rest: the
    same function, without spreading the mean over the image first. It is not normalised before: over the
    few means of a small batch that would leave next to nothing.
    """
    branches = [activate(convolve(x, filters, 1, style), style)]
    branches += [_separable(x, filters, rate, style) for rate in rates]
    mean = layers.GlobalAveragePooling2D(keepdims=True)(x)
    mean = layers.Conv2D(filters, 1, kernel_initializer="he_normal")(mean)
    mean = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal")(activate(mean, style))
    near = layers.Conv2D(filters, 1, kernel_initializer="he_normal")(layers.Concatenate()(branches))
    return activate(normalise(layers.Add()([near, mean]), style), style)


def _head(x: Tensor, classes: int) -> Tensor:
    """Map features to probabilities in [0, 1] at full resolution, in float32 as `blocks.head` does.

    Enlarged are the few maps in front of the activation, not the features: the same values for less memory.
    """
    maps = layers.Conv2D(classes, 1, dtype="float32")(x)
    maps = layers.UpSampling2D(LOW_LEVEL, interpolation="bilinear", dtype="float32")(maps)
    activation = "sigmoid" if classes == 1 else "softmax"
    return layers.Activation(activation, dtype="float32", name="probability")(maps)
