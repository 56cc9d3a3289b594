"""MultiResUNet: kernels of three sizes in every block, and convolutions on the skip connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import keras
from keras import layers
from pydantic import Field

from microseg.models.blocks import BATCH_MOMENTUM, Activation, Style, Tensor, activate, head

# Of the width of a block: of the convolutions in a chain that see 3, 5 and 7 pixels across.
SHARES = (0.167, 0.333, 0.5)


def multires_unet(
    channels: int,
    classes: int,
    *,
    depth: Annotated[int, Field(ge=2, le=7)] = 5,
    filters: Annotated[int, Field(ge=4, le=256)] = 32,
    alpha: Annotated[float, Field(ge=1.5, le=8.0)] = 1.67,
    activation: Activation = "relu",
) -> keras.Model:
    """Build a MultiResUNet.

    A block chains three 3 x 3 convolutions, whose outputs together see what kernels of 3, 5 and 7 pixels
    see, and adds a projected shortcut. A skip connection passes residual convolutions (a Res path), more
    of them the finer it is, so that the decoder's features meet features of a like depth.

    Parameters
    ----------
    channels, classes : int
        Channels of the input and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    depth : int
        Number of resolution levels; the input must be a multiple of ``2 ** (depth - 1)``.
    filters : int
        U of the first level: the filters of the U-Net block that a block stands for; each further level
        doubles them.
    alpha : float
        Width of a block relative to U, split by 1/6, 1/3 and 1/2 over its three convolutions.
    activation : str
        After every normalisation but those of the shortcuts.

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].

    References
    ----------
    Ibtehaz and Rahman 2020, DOI 10.1016/j.neunet.2019.08.025, arXiv:1902.04049. The published head has
    a normalisation before its sigmoid; here it is a plain 1 x 1 convolution.
    """
    style = Style(activation=activation)
    units = [filters * 2**level for level in range(depth)]
    inputs = keras.Input((None, None, channels), name="image")
    skips, x = [], inputs
    for level, unit in enumerate(units[:-1]):
        x = _block(x, alpha * unit, style)
        skips.append(_res_path(x, unit, depth - 1 - level, style))
        x = layers.MaxPooling2D(2)(x)
    x = _block(x, alpha * units[-1], style)
    for skip, unit in zip(reversed(skips), reversed(units[:-1]), strict=True):
        x = layers.Conv2DTranspose(unit, 2, strides=2, kernel_initializer="he_normal")(x)
        x = _block(layers.Concatenate()([x, skip]), alpha * unit, style)
    return keras.Model(inputs, head(x, classes), name="multires_unet")


def multires_unet_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    return int(2 ** (params["depth"] - 1))


def _convolve(x: Tensor, filters: int, kernel: int) -> Tensor:
    """Convolve and shift once: the normalisation has the bias, and the next layer the scale."""
    x = layers.Conv2D(filters, kernel, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=BATCH_MOMENTUM, scale=False)(x)


def _normalise(x: Tensor) -> Tensor:
    return layers.BatchNormalization(momentum=BATCH_MOMENTUM)(x)


def _block(x: Tensor, width: float, style: Style) -> Tensor:
    """Apply a MultiRes block of about ``width`` filters."""
    y, scales = x, []
    for share in SHARES:
        y = activate(_convolve(y, int(width * share), 3), style)
        scales.append(y)
    y = _normalise(layers.Concatenate()(scales))
    y = layers.Add()([_convolve(x, y.shape[-1], 1), y])
    return _normalise(activate(y, style))


def _res_path(x: Tensor, filters: int, length: int, style: Style) -> Tensor:
    """Apply ``length`` residual 3 x 3 convolutions to a skip connection."""
    for _ in range(length):
        y = activate(_convolve(x, filters, 3), style)
        y = layers.Add()([_convolve(x, filters, 1), y])
        x = _normalise(activate(y, style))
    return x
