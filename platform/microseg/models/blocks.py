"""Building blocks that the network families share: functions from tensors to tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from keras import layers

Normalisation = Literal["none", "batch", "group"]
Activation = Literal["relu", "leaky_relu", "elu", "mish"]
Up = Literal["nearest", "transposed"]
Tensor = Any

GROUPS = 8
# Small data sets have few steps per epoch: with Keras' 0.99 the averages that prediction uses would lag
# hundreds of steps behind the network, and early epochs would look worse than they are.
BATCH_MOMENTUM = 0.9


@dataclass(frozen=True)
class Style:
    """How every block of one network is built.

    ``dropout`` is the rate between the two convolutions of a block, ``attention`` gates the skip
    connections, ``up`` doubles the resolution in the decoder.
    """

    normalisation: Normalisation = "batch"
    activation: Activation = "relu"
    dropout: float = 0.0
    residual: bool = False
    attention: bool = False
    up: Up = "nearest"


def normalise(x: Tensor, style: Style) -> Tensor:
    """Apply the normalisation of the style; group normalisation is Wu and He 2018, arXiv:1803.08494."""
    if style.normalisation == "batch":
        return layers.BatchNormalization(momentum=BATCH_MOMENTUM)(x)
    if style.normalisation == "group":
        return layers.GroupNormalization(groups=math.gcd(GROUPS, x.shape[-1]))(x)
    return x


def activate(x: Tensor, style: Style) -> Tensor:
    """Apply the activation of the style."""
    return layers.Activation(style.activation)(x)


def convolve(x: Tensor, filters: int, kernel: int, style: Style) -> Tensor:
    """Convolve and normalise, without activation."""
    x = layers.Conv2D(filters, kernel, padding="same", kernel_initializer="he_normal")(x)
    return normalise(x, style)


def block(x: Tensor, filters: int, style: Style) -> Tensor:
    """Convolve twice with 3 x 3 kernels, with a projected shortcut where the style is residual.

    The residual form is He et al. 2016, DOI 10.1109/CVPR.2016.90: the sum precedes the last activation.
    """
    y = activate(convolve(x, filters, 3, style), style)
    if style.dropout:
        y = layers.Dropout(style.dropout)(y)
    y = convolve(y, filters, 3, style)
    if style.residual:
        y = layers.Add()([y, convolve(x, filters, 1, style)])
    return activate(y, style)


def upsample(x: Tensor, filters: int, style: Style) -> Tensor:
    """Double height and width: nearest neighbour and a 2 x 2 convolution, or a transposed convolution."""
    if style.up == "transposed":
        return layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer="he_normal")(x)
    x = convolve(layers.UpSampling2D(2)(x), filters, 2, style)
    return activate(x, style)


def attention_gate(skip: Tensor, gating: Tensor, filters: int) -> Tensor:
    """Weight a skip connection by where the coarser level looks: additive attention.

    Parameters
    ----------
    skip : tensor, shape (batch, 2 h, 2 w, channels)
        Features of the encoder.
    gating : tensor, shape (batch, h, w, any)
        Features of the next coarser level.
    filters : int
        Channels of the space in which both are compared.

    References
    ----------
    Oktay et al. 2018, Attention U-Net, arXiv:1804.03999.
    """
    theta = layers.Conv2D(filters, 2, strides=2, use_bias=False)(skip)
    phi = layers.Conv2D(filters, 1)(gating)
    compared = layers.Activation("relu")(layers.Add()([theta, phi]))
    coefficients = layers.Conv2D(1, 1, activation="sigmoid")(compared)
    return layers.Multiply()([skip, layers.UpSampling2D(2, interpolation="bilinear")(coefficients)])


def decode(x: Tensor, skips: Sequence[Tensor], filters: Sequence[int], style: Style) -> Tensor:
    """Return to full resolution: at each skip, coarsest last in the sequence, double, concatenate, convolve.

    Parameters
    ----------
    x : tensor
        The deepest features.
    skips : sequence of tensors
        Encoder features, finest first; each has twice the resolution of the next.
    filters : sequence of int
        Filters of the decoder block at each skip, in the order of the skips.
    style : Style
        How the blocks are built.
    """
    for skip, width in zip(reversed(skips), reversed(filters), strict=True):
        gated = attention_gate(skip, x, width // 2 or 1) if style.attention else skip
        x = layers.Concatenate()([gated, upsample(x, width, style)])
        x = block(x, width, style)
    return x


def head(x: Tensor, classes: int) -> Tensor:
    """Map features to probabilities in [0, 1]: sigmoid for one map, softmax for several.

    It computes in float32 under every precision policy: a 16-bit probability near 1 has a step of 0.004.
    """
    activation = "sigmoid" if classes == 1 else "softmax"
    return layers.Conv2D(classes, 1, activation=activation, dtype="float32", name="probability")(x)
