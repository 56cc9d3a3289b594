"""U2-Net: a U-Net whose blocks are U-Nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import keras
from keras import layers
from pydantic import Field

from microseg.models.blocks import Activation, Normalisation, Style, Tensor, head, unit
from microseg.models.side_outputs import probability, side_output

Size = Literal["full", "lite"]


class Stage(NamedTuple):
    """A residual U-block: filters inside and at its ends, and the dilation of each level, finest first.

    ``pooled`` halves the resolution from level to level; otherwise the dilation alone widens the view.
    """

    inner: int
    outer: int
    dilations: tuple[int, ...]
    pooled: bool


def u2net(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    size: Size = "full",
    depth: Annotated[int, Field(ge=2, le=7)] = 6,
    filters: Annotated[int, Field(ge=4, le=256)] = 64,
    deep_supervision: bool = True,
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
) -> keras.Model:
    """Build a U2-Net.

    Every level of the decoder, and the deepest of the encoder, gives a side output; the prediction is a
    1 x 1 convolution of them all.

    Parameters
    ----------
    channels, classes : int
        Channels of the input and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    size : str
        ``full`` doubles the filters from level to level, up to eightfold (published: 44.0 million
        parameters); ``lite`` has the same filters at all levels (1.1 million).
    depth : int
        Number of resolution levels; the input must be a multiple of ``2 ** (depth - 1)``. The blocks'
        own U-Nets reach down to that resolution too, except at the two deepest levels, which dilate.
    filters : int
        Filters of the first level.
    deep_supervision : bool
        Supervise the fused prediction and every side output, as published.
    normalisation, activation : str
        After every convolution; after every normalisation.

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].
        With deep supervision ``outputs[0]`` is the fused prediction and ``outputs[1:]`` are it and the
        side outputs, finest first.

    References
    ----------
    Qin et al. 2020, DOI 10.1016/j.patcog.2020.107404, arXiv:2005.09007.
    """
    style = Style(normalisation, activation)
    encoder, decoder = _stages(size, depth, filters)
    inputs = keras.Input((None, None, channels), name="image")
    levels = [_u_block(inputs, encoder[0], style)]
    for stage in encoder[1:]:
        levels.append(_u_block(layers.MaxPooling2D(2)(levels[-1]), stage, style))
    for level in reversed(range(depth - 1)):
        coarser = layers.UpSampling2D(2, interpolation="bilinear")(levels[level + 1])
        levels[level] = _u_block(layers.Concatenate()([coarser, levels[level]]), decoder[level], style)
    sides = [side_output(x, classes, 2**level) for level, x in enumerate(levels)]
    fused = head(layers.Concatenate(dtype="float32")(sides), classes)
    if not deep_supervision:
        return keras.Model(inputs, fused, name="u2net")
    heads = [probability(side, f"level_{level}") for level, side in enumerate(sides)]
    return keras.Model(inputs, [fused, fused, *heads], name="u2net")


def u2net_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    return int(2 ** (params["depth"] - 1))


def _stages(size: Size, depth: int, filters: int) -> tuple[list[Stage], list[Stage]]:
    """Return the encoder's and the decoder's blocks, finest first; the decoder lacks the deepest."""
    growth, narrowing = {"full": (8, 2), "lite": (1, 4)}[size]
    down = [filters * min(2**level, growth) for level in range(depth)]
    up = [down[max(level - 1, 0)] for level in range(depth)]  # as wide as the next finer level
    inner = [width // narrowing for width in up]
    encoder = [_stage(level, depth, inner[level], down[level]) for level in range(depth)]
    # The last block works at full resolution on the widest input: published with a quarter inside.
    finest = _stage(0, depth, filters // 4, filters)
    coarser = [_stage(level, depth, inner[level], up[level]) for level in range(1, depth - 1)]
    return encoder, [finest, *coarser]


def _stage(level: int, depth: int, inner: int, outer: int) -> Stage:
    """Choose the block of a level: pooled down to the network's deepest resolution, or dilated."""
    if level >= depth - 2:  # too coarse to be pooled further
        return Stage(inner, outer, (1, 2, 4, 8), pooled=False)
    return Stage(inner, outer, (1,) * (depth - level) + (2,), pooled=True)


def _u_block(x: Tensor, stage: Stage, style: Style) -> Tensor:
    """Add to the features what a U-Net makes of them: RSU-L, or RSU-4F where it is not pooled."""
    x = unit(x, stage.outer, style)
    skips: list[Tensor] = []
    y = x
    for dilation in stage.dilations[:-1]:
        y = layers.MaxPooling2D(2)(y) if stage.pooled and skips else y
        y = unit(y, stage.inner, replace(style, dilation=dilation))
        skips.append(y)
    y = unit(y, stage.inner, replace(style, dilation=stage.dilations[-1]))
    return layers.Add()([x, _ascend(y, skips, stage, style)])


def _ascend(y: Tensor, skips: Sequence[Tensor], stage: Stage, style: Style) -> Tensor:
    """Return from a block's deepest level to its first."""
    for level in reversed(range(len(skips))):
        y = layers.Concatenate()([y, skips[level]])
        dilated = replace(style, dilation=stage.dilations[level])
        y = unit(y, stage.inner if level else stage.outer, dilated)
        if stage.pooled and level:
            y = layers.UpSampling2D(2, interpolation="bilinear")(y)
    return y
