"""Swin-Unet: a U-Net of window attention, without convolutions beyond the patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import keras
from keras import layers
from pydantic import Field

from microseg.errors import MicrosegError
from microseg.models.blocks import Tensor, head
from microseg.models.window_attention import WindowAttention

EPSILON = 1e-5


def swin_unet(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    depth: Annotated[int, Field(ge=2, le=5)] = 4,
    filters: Annotated[int, Field(ge=2, le=256)] = 96,
    patch: Annotated[int, Field(ge=1, le=8)] = 4,
    blocks: Annotated[int, Field(ge=1, le=18)] = 2,
    heads: Annotated[int, Field(ge=1, le=32)] = 3,
    window: Annotated[int, Field(ge=2, le=16)] = 8,
    drop_path: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1,
) -> keras.Model:
    """Build a Swin-Unet.

    Parameters
    ----------
    channels, classes : int
        Channels of the input and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    depth : int
        Number of resolution levels; the input must be a multiple of ``patch * 2 ** (depth - 1)``.
    filters : int
        Length of a patch's embedding; each coarser level doubles it.
    patch : int
        Side of the patches in which the image is embedded, in pixels.
    blocks : int
        Attention blocks per level, of the encoder and of the decoder; every second one has its windows
        shifted by half.
    heads : int
        Attention heads of the first level; each coarser level doubles them. They divide ``filters``.
    window : int
        Side of the attention windows, in patches; 7 is published, for images of 224 pixels, while 8
        needs no padding at powers of two.
    drop_path : float
        Rate at which the branches of the deepest block are dropped for a whole image, in training; it
        grows linearly from 0 at the first block (stochastic depth, Huang et al. 2016, arXiv:1603.09382).

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].

    Raises
    ------
    MicrosegError
        If the heads do not divide the filters.

    References
    ----------
    Cao et al. 2021, arXiv:2105.05537. Its results start from ImageNet weights; here they are random.
    """
    _check_heads(filters, heads)

    def level_blocks(x: Tensor, level: int) -> Tensor:
        for index in range(blocks):
            shift = window // 2 if index % 2 else 0
            rate = drop_path * (level * blocks + index) / (depth * blocks - 1)
            x = _block(x, WindowAttention(heads * 2**level, window, shift), rate)
        return x

    inputs = keras.Input((None, None, channels), name="image")
    x = layers.Conv2D(filters, patch, strides=patch, name="patches")(inputs)
    levels = [level_blocks(_normalise(x), 0)]
    for level in range(1, depth):
        levels.append(level_blocks(_merge(levels[-1]), level))
    x = _normalise(levels[-1])
    for level in reversed(range(depth - 1)):
        width = filters * 2**level
        x = layers.Concatenate()([_expand(x, width, 2), levels[level]])
        x = level_blocks(_dense(width)(x), level)
    x = _expand(_normalise(x), filters, patch)
    return keras.Model(inputs, head(x, classes), name="swin_unet")


def swin_unet_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels.

    Raises
    ------
    MicrosegError
        If the heads do not divide the filters.
    """
    _check_heads(params["filters"], params["heads"])
    return int(params["patch"] * 2 ** (params["depth"] - 1))


def _check_heads(filters: int, heads: int) -> None:
    if filters % heads:
        raise MicrosegError(
            f"model 'swin_unet': {filters} filters do not divide into {heads} heads; "
            f"set filters to a multiple of {heads}"
        )


def _dense(units: int, **options: Any) -> layers.Layer:
    return layers.Dense(units, kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02), **options)


def _normalise(x: Tensor) -> Tensor:
    return layers.LayerNormalization(epsilon=EPSILON)(x)


def _block(x: Tensor, attention: WindowAttention, drop_path: float) -> Tensor:
    """Add window attention, then a perceptron of two layers, each to its normalised input."""
    width = x.shape[-1]
    y = attention(_dense(3 * width)(_normalise(x)))
    x = layers.Add()([x, _drop_path(_dense(width)(y), drop_path)])
    y = _dense(4 * width, activation="gelu")(_normalise(x))
    return layers.Add()([x, _drop_path(_dense(width)(y), drop_path)])


def _drop_path(x: Tensor, rate: float) -> Tensor:
    """Drop a branch for whole images of the batch."""
    return layers.Dropout(rate, noise_shape=(None, 1, 1, 1))(x) if rate else x


def _merge(x: Tensor) -> Tensor:
    """Halve the resolution: the four neighbours of a patch side by side, projected to twice the channels."""
    width = x.shape[-1]
    neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return _dense(2 * width, use_bias=False)(_normalise(layers.Concatenate()(neighbours)))


def _expand(x: Tensor, filters: int, factor: int) -> Tensor:
    """Multiply the resolution: a linear layer gives every position its ``factor ** 2`` finer ones."""
    return _normalise(layers.Conv2DTranspose(filters, factor, strides=factor, use_bias=False)(x))
