"""U-Nets whose encoder is a classification network of `keras.applications`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import keras
from keras import layers
from pydantic import Field

from microseg.errors import MicrosegError
from microseg.models.blocks import (
    Activation,
    Normalisation,
    Style,
    Tensor,
    activate,
    attention_gate,
    convolve,
    head,
    normalise,
)
from microseg.models.blocks import block as double_convolution
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

Block = Literal["plain", "residual", "preactivation"]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Up = Literal["nearest", "transposed"]


class Decoder(NamedTuple):
    """How every step of the decoder is built; ``up_kernel`` is the side of the up-sampling's kernel."""

    style: Style
    block: Block
    up_kernel: int


def encoder_unet(  # noqa: PLR0913 - the keyword arguments are the family's configuration
    channels: int,
    classes: int,
    *,
    encoder: EncoderName = "vgg16",
    weights: Weights = "none",
    freeze: Freeze = False,
    scaling: InputScaling = "auto",
    depth: Annotated[int, Field(ge=2)] | None = None,
    bottleneck: Annotated[int, Field(ge=0, le=2048)] = 0,
    filters: Annotated[int, Field(ge=1, le=512)] = 64,
    block: Block = "plain",
    attention: bool = False,
    dropout: Rate | list[Rate] = 0.0,
    head_dropout: Rate = 0.0,
    normalisation: Normalisation = "batch",
    activation: Activation = "relu",
    up: Up = "transposed",
    up_kernel: Annotated[int, Field(ge=2, le=5)] = 2,
) -> keras.Model:
    """Build a U-Net on the levels of a classification network.

    Tiryaki et al. 2022, DOI 10.1002/cyto.a.24533, built U-VGG16 and U-VGG19, which are the defaults here with
    ``scaling: none``, and U-Xception: depth 4, bottleneck 512, filters 16, block preactivation, activation
    leaky_relu, up_kernel 3, dropout [.5, .5, .5, .1, .1, .5], head_dropout .25, scaling none.

    Parameters
    ----------
    channels, classes : int
        Channels of the input (1 is replicated, 3 is RGB, others are projected by a learned 1 x 1
        convolution) and maps of the output: 1 with a sigmoid, 2 or more with a softmax.
    encoder : str
        A row of ``ENCODERS``.
    weights : str
        ``none``, ``imagenet`` (needs the network once), or the absolute path of a Keras weights file
        without the classifier, trained with the same input scaling as the ImageNet weights.
        With weights the image must be preprocessed to [0, 1].
    freeze : bool or int
        Keep the encoder's weights as they are: always, or for that many epochs.
    scaling : str
        Of the encoder's input: ``imagenet`` is what its ImageNet weights were trained on, ``none`` leaves the
        image as it is, ``auto`` is ``imagenet`` with weights and ``none`` without.
    depth : int, optional
        Number of levels taken from the encoder; all where it is not given.
    bottleneck : int
        Filters of a block behind one more pooling; 0: the encoder's deepest level is the bottleneck.
    filters : int
        Filters of the decoder at full resolution; each coarser step doubles them.
    block : str
        Of the decoder: two convolutions, the same with a shortcut, or `preactivation`.
    attention : bool
        Gate the skip connections (Oktay et al. 2018, arXiv:1804.03999).
    dropout : float or list of float
        Rate in front of each block, behind the pooling or the concatenation: one for all, or one per block
        from the bottleneck, where there is one, to full resolution.
    head_dropout : float
        Rate in front of the head.
    normalisation, activation, up : str
        Of the decoder, as in `unet`.
    up_kernel : int
        Side of the up-sampling's kernel, in pixels.

    Raises
    ------
    MicrosegError
        If the encoder has fewer levels, the weights cannot be loaded, or the rates do not fit the blocks.
    """
    style = Style(normalisation, activation, residual=block == "residual", attention=attention, up=up)
    decoder = Decoder(style, block, up_kernel)
    network = load_encoder(encoder, depth, weights)
    network.trainable = not freeze
    inputs = keras.Input((None, None, channels), name="image")
    levels = network(adapt(inputs, input_scaling(encoder, weights, scaling)))
    skips = dict(zip(level_strides(encoder, depth), levels, strict=True))
    deepest = max(skips)
    steps = (2 * deepest if bottleneck else deepest).bit_length() - 1
    rates = _rates(dropout, steps + bool(bottleneck))
    if bottleneck:
        x = _refine(layers.MaxPooling2D(2)(skips[deepest]), bottleneck, rates.pop(0), decoder)
    else:
        x = skips.pop(deepest)
    for step, rate in zip(reversed(range(steps)), rates, strict=True):
        x = _finer(x, skips.get(2**step), filters * 2**step, rate, decoder)
    if head_dropout:
        x = layers.Dropout(head_dropout)(x)
    return keras.Model(inputs, head(x, classes), name=f"{encoder}_unet")


def encoder_unet_stride(params: Mapping[str, Any]) -> int:
    """Return what the input's height and width must be a multiple of, in pixels.

    Raises
    ------
    MicrosegError
        If the encoder has fewer levels than ``depth``, or the rates of the dropout do not fit the blocks.
    """
    deepest = level_strides(params["encoder"], params["depth"])[-1]
    least = 2 * deepest if params["bottleneck"] else deepest
    _rates(params["dropout"], least.bit_length() - 1 + bool(params["bottleneck"]))
    return least


def preactivation(x: Tensor, filters: int, style: Style) -> Tensor:
    """Convolve, then add two residual blocks whose activation and normalisation come first.

    After He et al. 2016, arXiv:1603.05027, in the form of Tiryaki et al. 2022, DOI 10.1002/cyto.a.24533:
    the activation precedes the first normalisation, and the shortcut is normalised too.
    """
    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(x)
    for _ in range(2):
        y = normalise(activate(x, style), style)
        y = activate(convolve(y, filters, 3, style), style)
        x = layers.Add()([convolve(y, filters, 3, style), normalise(x, style)])
    return activate(x, style)


def _rates(dropout: float | Sequence[float], count: int) -> list[float]:
    if not isinstance(dropout, Sequence):
        return [dropout] * count
    if len(dropout) != count:
        raise MicrosegError(
            f"model 'encoder_unet': parameter 'dropout' has {len(dropout)} rates, the decoder {count} "
            f"blocks; give one number, or {count} rates from the coarsest block to the finest"
        )
    return list(dropout)


def _refine(x: Tensor, filters: int, rate: float, decoder: Decoder) -> Tensor:
    """Drop values, then convolve by the block of the decoder."""
    x = layers.Dropout(rate)(x) if rate else x
    build = preactivation if decoder.block == "preactivation" else double_convolution
    return build(x, filters, decoder.style)


def _finer(x: Tensor, skip: Tensor | None, filters: int, rate: float, decoder: Decoder) -> Tensor:
    """Double the resolution, concatenate the encoder's level of that resolution if there is one, convolve."""
    doubled = _double(x, filters, decoder)
    if skip is None:
        return _refine(doubled, filters, rate, decoder)
    gated = attention_gate(skip, x, filters // 2 or 1) if decoder.style.attention else skip
    return _refine(layers.Concatenate()([gated, doubled]), filters, rate, decoder)


def _double(x: Tensor, filters: int, decoder: Decoder) -> Tensor:
    kernel, style = decoder.up_kernel, decoder.style
    if style.up == "nearest":
        return activate(convolve(layers.UpSampling2D(2)(x), filters, kernel, style), style)
    doubling = layers.Conv2DTranspose(
        filters, kernel, strides=2, padding="same", kernel_initializer="he_normal"
    )
    return doubling(x)
