"""Encoders of `keras.applications`: which layers are the skips, and what their weights expect as input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import keras
import numpy as np
from keras import layers
from pydantic import AfterValidator

from microseg.errors import MicrosegError
from microseg.models.blocks import Tensor

EncoderName = Literal["vgg16"]


def _known_weights(value: str) -> str:
    """Refuse a weights file that is not there before anything is trained."""
    if value in ("none", "imagenet"):
        return value
    if not Path(value).is_absolute() or not Path(value).is_file():
        raise ValueError("allowed: none, imagenet, or the absolute path of a local weights file")
    return value


Weights = Annotated[str, AfterValidator(_known_weights)]


class Encoder(NamedTuple):
    """One row of the table.

    ``levels`` are the layers whose outputs are the levels, finest first, at ``strides`` relative to the
    input. ``order``, ``scale`` and ``offset`` turn RGB in [0, 1] into what the ImageNet weights were
    trained on: ``x[order] * scale + offset``.
    """

    build: Callable[..., keras.Model]
    levels: tuple[str, ...]
    strides: tuple[int, ...]
    order: tuple[int, int, int]
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]


ENCODERS: dict[str, Encoder] = {
    # Simonyan and Zisserman 2015, arXiv:1409.1556; trained on BGR in [0, 255] minus the ImageNet mean.
    "vgg16": Encoder(
        keras.applications.VGG16,
        ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"),
        (1, 2, 4, 8, 16),
        order=(2, 1, 0),
        scale=(255.0, 255.0, 255.0),
        offset=(-103.939, -116.779, -123.68),
    ),
}


def _kernel(row: Encoder, channels: int, pretrained: bool) -> Any:
    """Return the 1 x 1 kernel (1, 1, channels, 3) that makes the encoder's three channels of the image's."""
    scale = np.asarray(row.scale if pretrained else (1.0, 1.0, 1.0), "float32")
    if channels == 3:
        order = row.order if pretrained else (0, 1, 2)
        return np.eye(3, dtype="float32")[:, list(order)][None, None] * scale
    return np.full((1, 1, channels, 3), 1.0 / channels, "float32") * scale


def adapt(x: Tensor, row: Encoder, pretrained: bool) -> Tensor:
    """Make an image of any channel count the encoder's input.

    Grey is replicated to three channels and RGB reordered, with the scale and offset of the pretrained
    weights: fixed numbers. Other channel counts start as the mean of the channels and are learned.
    It is one 1 x 1 convolution, so that a saved model carries its own input preprocessing; float32,
    because 8-bit grey values times 255 do not fit the mantissa of bfloat16.
    """
    channels = x.shape[-1]
    adapter = layers.Conv2D(
        3,
        1,
        kernel_initializer=keras.initializers.Constant(_kernel(row, channels, pretrained)),
        bias_initializer=keras.initializers.Constant(np.asarray(row.offset) if pretrained else 0.0),
        trainable=channels not in (1, 3),
        dtype="float32",
        name="adapter",
    )
    return adapter(x)


def load_encoder(name: EncoderName, depth: int, weights: str) -> keras.Model:
    """Build an encoder as a model from three channels to its first levels, with its weights.

    It is built on an input of its own: weights files are matched by the order of the layers, which a
    layer in front would shift.

    Raises
    ------
    MicrosegError
        If the ImageNet weights cannot be downloaded, or the local file does not fit the encoder.
    """
    row = ENCODERS[name]
    try:
        network = row.build(include_top=False, weights=None if weights == "none" else weights)
    except Exception as error:  # Keras reports a failed download as a bare Exception
        reason = " ".join(str(error).split())
        raise MicrosegError(
            f"encoder '{name}': weights '{weights}' could not be loaded ({reason}); "
            "use weights: none, or the absolute path of a weights file without the classifier"
        ) from error
    levels = [network.get_layer(layer).output for layer in row.levels[:depth]]
    return keras.Model(network.inputs, levels, name=name)
