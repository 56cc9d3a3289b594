"""U-Net++: nested skip connections, supervised at every depth, pruned for speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import keras
from keras import layers
from pydantic import Field

from microseg.errors import MicrosegError
from microseg.models.blocks import (
    Activation,
    Normalisation,
    Style,
    Tensor,
    Up,
    block,
    head,
    unit,
    upsample,
)


def unet_plus_plus(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    depth: Annotated[int, Field(ge=2, le=7)] = 4,
    filters: Annotated[int, Field(ge=1, le=256)] = 16,
    nested_convolutions: Literal[1, 2] = 2,
    deep_supervision: bool = True,
    fast_head: Annotated[int, Field(ge=0, le=6)] = 0,
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0,
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
    activation_first: bool = False,
    up: Up = "transposed",
) -> keras.Model:
    """Build a U-Net++.

    Node ``(i, j)`` lies on level i (0 is the finest) and column j (0 is the encoder). It sees all earlier
    nodes of its level and node ``(i + 1, j - 1)``, up-sampled. Head j, from 1 to ``depth - 1``, maps node
    ``(0, j)`` to probabilities.

    Parameters
    ----------
    channels, classes : int
        Channels of the input and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    depth : int
        Number of resolution levels; the input must be a multiple of ``2 ** (depth - 1)``.
    filters : int
        Filters of the first level; each further level doubles them.
    nested_convolutions : int
        Convolutions of a nested node; the encoder's nodes have two.
    deep_supervision : bool
        Return the heads beside the prediction, so that each has a loss of its own.
    fast_head : int
        0 predicts with the average of all heads (the accurate mode); j predicts with head j alone (the fast
        mode). What only later heads need is trained with deep supervision and left out of the saved model;
        without deep supervision it is not even built.
    dropout : float
        Rate between the two convolutions of a node.
    normalisation, activation : str
        After every convolution, in this order unless ``activation_first``.
    up : str
        As in `unet`.

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1]:
        the prediction and, with deep supervision, the heads from 1 to ``depth - 1``.

    Raises
    ------
    MicrosegError
        If ``fast_head`` names a head that the depth does not have.

    References
    ----------
    Zhou et al. 2018, DOI 10.1007/978-3-030-00889-5_1; Zhou et al. 2020, DOI 10.1109/TMI.2019.2959609.
    """
    levels = _levels(depth, deep_supervision, fast_head)
    style = Style(normalisation, activation, dropout, up=up, activation_first=activation_first)
    inputs = keras.Input((None, None, channels), name="image")
    top = _nodes(inputs, [filters * 2**level for level in range(levels)], style, nested_convolutions)
    heads = [head(x, classes, name=f"head_{j}") for j, x in enumerate(top, start=1)]
    prediction = _predict(heads[fast_head - 1 : fast_head] if fast_head else heads)
    return keras.Model(
        inputs, [prediction, *heads] if deep_supervision else prediction, name="unet_plus_plus"
    )


def _levels(depth: int, deep_supervision: bool, fast_head: int) -> int:
    """Return how many levels are built, or refuse a head that is not there."""
    if fast_head >= depth:
        raise MicrosegError(
            f"model 'unet_plus_plus': fast_head {fast_head} is not there; depth {depth} has the heads 1 to "
            f"{depth - 1}, and 0 is the average of all"
        )
    return fast_head + 1 if fast_head and not deep_supervision else depth


def _nodes(x: Tensor, widths: Sequence[int], style: Style, convolutions: int) -> list[Tensor]:
    """Return the nested nodes of the finest level, (0, 1) first."""
    nested = block if convolutions == 2 else unit
    rows: list[list[Tensor]] = []
    for width in widths:
        rows.append([block(layers.MaxPooling2D(2)(x) if rows else x, width, style)])
        x = rows[-1][0]
    for column in range(1, len(widths)):
        for level, width in enumerate(widths[:-column]):
            finer = upsample(rows[level + 1][column - 1], width, style)
            rows[level].append(nested(layers.Concatenate()([*rows[level], finer]), width, style))
    return rows[0][1:]


def _predict(heads: Sequence[Tensor]) -> Tensor:
    """Average the heads; one alone passes through a layer of its own, so that no output is there twice."""
    if len(heads) == 1:
        return layers.Activation("linear", dtype="float32", name="probability")(heads[0])
    return layers.Average(dtype="float32", name="probability")(heads)


def prune(model: keras.Model, head: int) -> keras.Model:
    """Cut a U-Net++ down to what one head needs: the fast mode of a network that is already trained.

    Parameters
    ----------
    model : keras.Model
        A U-Net++ of `unet_plus_plus`, built or loaded.
    head : int
        From 1, the smallest and fastest, to the depth minus 1.

    Returns
    -------
    keras.Model
        Its only output is that head's; the weights are shared with `model`.

    Raises
    ------
    MicrosegError
        If the model has no such head.
    """
    heads = [layer.name for layer in model.layers if layer.name.startswith("head_")]
    if f"head_{head}" not in heads:
        allowed = ", ".join(name.removeprefix("head_") for name in heads) or "none: it is no U-Net++"
        raise MicrosegError(f"model '{model.name}' has no head {head}; its heads are {allowed}")
    return keras.Model(model.input, model.get_layer(f"head_{head}").output, name=f"{model.name}_{head}")


def unet_plus_plus_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels."""
    return int(2 ** (_levels(params["depth"], params["deep_supervision"], params["fast_head"]) - 1))
