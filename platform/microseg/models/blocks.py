"""Building blocks that the network families share: functions from tensors to tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from keras import layers

Normalisation = Literal["none", "batch", "group"]
Activation = Literal["relu", "leaky_relu", "elu", "mish"]
Attention = Literal[False, True, "projected"]
Up = Literal["nearest", "nearest_only", "transposed"]
Placement = Literal["within", "end", "junctions"]
Head = Literal["plain", "normalised", "convolved"]
Tensor = Any

GROUPS = 8
# Small data sets have few steps per epoch: with Keras' 0.99 the averages that prediction uses would lag
# hundreds of steps behind the network, and early epochs would look worse than they are.
BATCH_MOMENTUM = 0.9
# The activation function of this name has 0.2 in Keras, the layer 0.3; published networks used the layer.
LEAK = 0.3


@dataclass(frozen=True)
class Style:
    """How the blocks of one network, or of one of its levels, are built.

    Parameters
    ----------
    normalisation, activation : str
        After every convolution, in this order unless ``activation_first``.
    dropout : float
        Rate of every dropout, where ``dropout_at`` says: ``within`` a block, between its two convolutions;
        at the ``end`` of a block, in a residual one before the sum; at the ``junctions``, after every
        pooling and every concatenation.
    residual : bool
        Give every block a shortcut.
    attention : bool or str
        Gate the skip connections: true for `attention_gate`, ``projected`` for `projected_gate`.
    up : str
        Doubles the resolution, see `upsample`; ``normalise_up`` normalises its convolution like any other.
    kernel, dilation : int
        Side of the kernels of a block and distance of their taps, in pixels.
    """

    normalisation: Normalisation = "batch"
    activation: Activation = "relu"
    dropout: float = 0.0
    residual: bool = False
    attention: Attention = False
    up: Up = "nearest"
    dropout_at: Placement = "within"
    kernel: int = 3
    dilation: int = 1
    normalise_up: bool = True
    activation_first: bool = False


def normalise(x: Tensor, style: Style) -> Tensor:
    """Apply the normalisation of the style; group normalisation is Wu and He 2018, arXiv:1803.08494."""
    if style.normalisation == "batch":
        return layers.BatchNormalization(momentum=BATCH_MOMENTUM)(x)
    if style.normalisation == "group":
        return layers.GroupNormalization(groups=math.gcd(GROUPS, x.shape[-1]))(x)
    return x


def activate(x: Tensor, style: Style) -> Tensor:
    """Apply the activation of the style."""
    if style.activation == "leaky_relu":
        return layers.LeakyReLU(LEAK)(x)
    return layers.Activation(style.activation)(x)


def drop(x: Tensor, style: Style, place: Placement) -> Tensor:
    """Drop values where the style does so at this place."""
    return layers.Dropout(style.dropout)(x) if style.dropout and style.dropout_at == place else x


def _conv(x: Tensor, filters: int, kernel: int, dilation: int = 1) -> Tensor:
    convolution = layers.Conv2D(
        filters, kernel, padding="same", dilation_rate=dilation, kernel_initializer="he_normal"
    )
    return convolution(x)


def convolve(x: Tensor, filters: int, kernel: int, style: Style) -> Tensor:
    """Convolve and normalise, without activation and dilation."""
    return normalise(_conv(x, filters, kernel), style)


def unit(x: Tensor, filters: int, style: Style) -> Tensor:
    """Convolve with the kernel of the style, normalise and activate, in the order of the style."""
    x = _conv(x, filters, style.kernel, style.dilation)
    if style.activation_first:
        return normalise(activate(x, style), style)
    return activate(normalise(x, style), style)


def block(x: Tensor, filters: int, style: Style) -> Tensor:
    """Convolve twice, with a projected shortcut where the style is residual.

    The residual form is He et al. 2016, DOI 10.1109/CVPR.2016.90: the sum precedes the last activation.
    """
    y = drop(unit(x, filters, style), style, "within")
    if not style.residual:
        return drop(unit(y, filters, style), style, "end")
    y = normalise(_conv(y, filters, style.kernel, style.dilation), style)
    y = layers.Add()([drop(y, style, "end"), convolve(x, filters, 1, style)])
    return activate(y, style)


def upsample(x: Tensor, filters: int, style: Style) -> Tensor:
    """Double height and width.

    ``nearest`` repeats pixels and convolves 2 x 2 to ``filters``, ``nearest_only`` repeats pixels and
    keeps the channels, ``transposed`` is a transposed 2 x 2 convolution to ``filters``.
    """
    if style.up == "transposed":
        return layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer="he_normal")(x)
    x = layers.UpSampling2D(2)(x)
    if style.up == "nearest_only":
        return x
    x = _conv(x, filters, 2)
    return activate(normalise(x, style) if style.normalise_up else x, style)


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


def projected_gate(skip: Tensor, gating: Tensor, style: Style) -> Tensor:
    """Weight a skip connection as `attention_gate` does, with projections before and after.

    The gating signal is first projected to the channels of the skip connection, in which both are
    compared; the weighted features are projected once more. The form is that of Ghaznavi et al. 2022,
    DOI 10.1016/j.compbiomed.2022.105805.
    """
    filters = skip.shape[-1]
    signal = layers.Activation("relu")(convolve(gating, filters, 1, style))
    theta = layers.Conv2D(filters, 2, strides=2)(skip)
    phi = layers.Conv2DTranspose(filters, 3, padding="same")(layers.Conv2D(filters, 1)(signal))
    compared = layers.Activation("relu")(layers.Add()([theta, phi]))
    coefficients = layers.Conv2D(1, 1, activation="sigmoid")(compared)
    weighted = layers.Multiply()([skip, layers.UpSampling2D(2)(coefficients)])
    return convolve(weighted, filters, 1, style)


def gate(skip: Tensor, gating: Tensor, style: Style, filters: int) -> Tensor:
    """Apply the attention of the style to a skip connection, where it has any."""
    if style.attention == "projected":
        return projected_gate(skip, gating, style)
    return attention_gate(skip, gating, filters) if style.attention else skip


def decode(
    x: Tensor, skips: Sequence[Tensor], filters: Sequence[int], style: Style | Sequence[Style]
) -> Tensor:
    """Return to full resolution: at each skip, coarsest last in the sequence, double, concatenate, convolve.

    Parameters
    ----------
    x : tensor
        The deepest features.
    skips : sequence of tensors
        Encoder features, finest first; each has twice the resolution of the next.
    filters : sequence of int
        Filters of the decoder block at each skip, in the order of the skips.
    style : Style or sequence of Style
        How the blocks are built: all alike, or one style per skip, in the order of the skips.
    """
    styles = [style] * len(skips) if isinstance(style, Style) else style
    for skip, width, level in reversed(list(zip(skips, filters, styles, strict=True))):
        gated = gate(skip, x, level, width // 2 or 1)
        x = layers.Concatenate()([gated, upsample(x, width, level)])
        x = block(drop(x, level, "junctions"), width, level)
    return x


def head(x: Tensor, classes: int, kind: Head = "plain", name: str = "probability") -> Tensor:
    """Map features to probabilities in [0, 1]: sigmoid for one map, softmax for several.

    ``normalised`` normalises the maps before that (batch), ``convolved`` first reduces the features to two
    per map with a 3 x 3 convolution and ReLU, which a dead unit can block for good.

    It computes in float32 under every precision policy: a 16-bit probability near 1 has a step of 0.004.
    """
    activation = "sigmoid" if classes == 1 else "softmax"
    if kind == "convolved":
        x = layers.Activation("relu")(_conv(x, 2 * classes, 3))
    if kind != "normalised":
        return layers.Conv2D(classes, 1, activation=activation, dtype="float32", name=name)(x)
    x = layers.Conv2D(classes, 1, dtype="float32")(x)
    x = layers.BatchNormalization(momentum=BATCH_MOMENTUM, dtype="float32")(x)
    return layers.Activation(activation, dtype="float32", name=name)(x)
