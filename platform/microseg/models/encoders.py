"""Encoders of `keras.applications`: which tensors are their levels, what their weights expect as input."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import keras
import numpy as np
from keras import applications, layers
from pydantic import AfterValidator, Field

from microseg.config import did_you_mean
from microseg.errors import MicrosegError, one_line
from microseg.models.blocks import BATCH_MOMENTUM, Tensor
from microseg.models.saved import UNREADABLE, check_file

Freeze = Annotated[int, Field(ge=0)] | bool
InputScaling = Literal["auto", "imagenet", "none"]


class Scaling(NamedTuple):
    """What makes RGB in [0, 1] the input of an encoder: ``x[order] * scale + offset``."""

    order: tuple[int, int, int] = (0, 1, 2)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


PLAIN = Scaling()
CAFFE = Scaling((2, 1, 0), (255.0, 255.0, 255.0), (-103.939, -116.779, -123.68))
TORCH = Scaling(
    scale=(1 / 0.229, 1 / 0.224, 1 / 0.225), offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)
)
SYMMETRIC = Scaling(scale=(2.0, 2.0, 2.0), offset=(-1.0, -1.0, -1.0))
BY_128 = Scaling(scale=(255 / 128, 255 / 128, 255 / 128), offset=(-1.0, -1.0, -1.0))


class Encoder(NamedTuple):
    """One row of the table.

    ``levels`` name the tensors that are the levels, finest first: the output of a layer, or with
    ``:input`` what enters it, or ``END``, the output of the network. ``:input`` stands where Keras numbers
    the layer in front by what the process built before (``activation_3``), and where it is no layer.
    The first level has the stride ``first``, each further one twice that of its predecessor. ``scaling``
    is what the ImageNet weights were trained on. ``padding`` is (before, after), in pixels of the level,
    for the levels that unpadded convolutions leave too small.
    """

    build: Callable[..., keras.Model]
    levels: tuple[str, ...]
    first: int
    scaling: Scaling
    padding: tuple[tuple[int, int], ...] = ()

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of the levels relative to the input."""
        return tuple(self.first * 2**level for level in range(len(self.levels)))


END = ""
VGG16 = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3")
VGG19 = ("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4")
XCEPTION = ("block2_sepconv2_bn", "block3_sepconv2_bn", "block4_sepconv2_bn", "block13_sepconv2_bn", END)
RESNET50 = ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", END)
EFFICIENTNET = (*(f"block{stage}a_expand_activation" for stage in (2, 3, 4, 6)), END)
EFFICIENTNET_V2 = (
    "block2a_expand_conv:input",
    "block3a_expand_conv:input",
    "block4a_expand_activation",
    "block6a_expand_activation",
    END,
)
MOBILENET_V3_SMALL = (
    "expanded_conv_depthwise_pad:input",
    *(f"expanded_conv_{block}_depthwise_pad:input" for block in (1, 3, 8)),
    END,
)
MOBILENET_V3_LARGE = (*(f"expanded_conv_{block}_depthwise_pad:input" for block in (1, 3, 6, 12)), END)
DENSENET121 = ("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", END)
CONVNEXT_TINY = (*(f"convnext_tiny_downsampling_block_{stage}:input" for stage in range(3)), END)

# VGG: Simonyan and Zisserman 2015, arXiv:1409.1556. Xception: Chollet 2017, arXiv:1610.02357; for every input
# that its stride divides its first levels lack 3 and 1 pixels, and the padding puts their centres back to
# within half a pixel of the level. ResNet: He et al. 2016, arXiv:1512.03385. EfficientNet: Tan and Le 2019,
# arXiv:1905.11946; V2: 2021, arXiv:2104.00298. MobileNetV3: Howard et al. 2019, arXiv:1905.02244. DenseNet:
# Huang et al. 2017, arXiv:1608.06993. ConvNeXt: Liu et al. 2022, arXiv:2201.03545.
ENCODERS: dict[str, Encoder] = {
    "vgg16": Encoder(applications.VGG16, VGG16, 1, CAFFE),
    "vgg19": Encoder(applications.VGG19, VGG19, 1, CAFFE),
    "xception": Encoder(applications.Xception, XCEPTION, 2, SYMMETRIC, padding=((1, 2), (0, 1))),
    "resnet50": Encoder(applications.ResNet50, RESNET50, 2, CAFFE),
    "efficientnet_b0": Encoder(applications.EfficientNetB0, EFFICIENTNET, 2, TORCH),
    "efficientnet_b1": Encoder(applications.EfficientNetB1, EFFICIENTNET, 2, TORCH),
    "efficientnet_b2": Encoder(applications.EfficientNetB2, EFFICIENTNET, 2, TORCH),
    "efficientnet_b3": Encoder(applications.EfficientNetB3, EFFICIENTNET, 2, TORCH),
    "efficientnet_b4": Encoder(applications.EfficientNetB4, EFFICIENTNET, 2, TORCH),
    "efficientnet_b5": Encoder(applications.EfficientNetB5, EFFICIENTNET, 2, TORCH),
    "efficientnet_b6": Encoder(applications.EfficientNetB6, EFFICIENTNET, 2, TORCH),
    "efficientnet_b7": Encoder(applications.EfficientNetB7, EFFICIENTNET, 2, TORCH),
    "efficientnet_v2_b0": Encoder(applications.EfficientNetV2B0, EFFICIENTNET_V2, 2, TORCH),
    "efficientnet_v2_b1": Encoder(applications.EfficientNetV2B1, EFFICIENTNET_V2, 2, TORCH),
    "efficientnet_v2_b2": Encoder(applications.EfficientNetV2B2, EFFICIENTNET_V2, 2, TORCH),
    "efficientnet_v2_b3": Encoder(applications.EfficientNetV2B3, EFFICIENTNET_V2, 2, TORCH),
    "efficientnet_v2_s": Encoder(applications.EfficientNetV2S, EFFICIENTNET_V2, 2, BY_128),
    "efficientnet_v2_m": Encoder(applications.EfficientNetV2M, EFFICIENTNET_V2, 2, BY_128),
    "efficientnet_v2_l": Encoder(applications.EfficientNetV2L, EFFICIENTNET_V2, 2, BY_128),
    "mobilenet_v3_small": Encoder(applications.MobileNetV3Small, MOBILENET_V3_SMALL, 2, SYMMETRIC),
    "mobilenet_v3_large": Encoder(applications.MobileNetV3Large, MOBILENET_V3_LARGE, 2, SYMMETRIC),
    "densenet121": Encoder(applications.DenseNet121, DENSENET121, 2, TORCH),
    "convnext_tiny": Encoder(applications.ConvNeXtTiny, CONVNEXT_TINY, 4, TORCH),
}


def _known_encoder(value: str) -> str:
    if value not in ENCODERS:
        raise ValueError(did_you_mean(value, ENCODERS))
    return value


def _known_weights(value: str) -> str:
    """Refuse a weights file that is not there, or hostile, before anything is trained."""
    if value in ("none", "imagenet"):
        return value
    path = Path(value)
    if not path.is_absolute() or not path.is_file():
        raise ValueError("allowed: none, imagenet, or the absolute path of a local weights file")
    state = path.stat()
    problem = _problem(path, state.st_mtime_ns, state.st_size)
    if problem:
        raise ValueError(f"no file of weights as Keras writes it ({problem}); save the weights anew")
    return value


@functools.lru_cache(maxsize=64)  # a space asks for each of its branches
def _problem(path: Path, _changed: int, _size: int) -> str:
    """Say why a file is not loaded; nothing where it may be."""
    try:
        check_file(path)
    except UNREADABLE as error:
        return one_line(error)
    return ""


EncoderName = Annotated[str, AfterValidator(_known_encoder)]
Weights = Annotated[str, AfterValidator(_known_weights)]


def level_strides(name: str, depth: int | None) -> tuple[int, ...]:
    """Return the strides of an encoder's first ``depth`` levels, or of all, without building it.

    Raises
    ------
    MicrosegError
        If the encoder has fewer levels.
    """
    strides = ENCODERS[name].strides
    if depth is not None and depth > len(strides):
        raise MicrosegError(
            f"encoder '{name}' has {len(strides)} levels, depth is {depth}; give at most {len(strides)}"
        )
    return strides[:depth]


def _kernel(scaling: Scaling, channels: int) -> Any:
    """Return the 1 x 1 kernel (1, 1, channels, 3) that makes the encoder's three channels of the image's."""
    if channels == 3:
        mixing = np.eye(3, dtype="float32")[:, list(scaling.order)]
    else:
        mixing = np.full((channels, 3), 1.0 / channels, "float32")
    return (mixing * np.asarray(scaling.scale, "float32"))[None, None]


def adapt(x: Tensor, scaling: Scaling) -> Tensor:
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
        kernel_initializer=keras.initializers.Constant(_kernel(scaling, channels)),
        bias_initializer=keras.initializers.Constant(np.asarray(scaling.offset, "float32")),
        trainable=channels not in (1, 3),
        dtype="float32",
        name="adapter",
    )
    return adapter(x)


def input_scaling(name: str, weights: str, wanted: InputScaling) -> Scaling:
    """Return an encoder's input scaling; ``auto`` is that of the ImageNet weights where any are loaded."""
    imagenet = wanted == "imagenet" or (wanted == "auto" and weights != "none")
    return ENCODERS[name].scaling if imagenet else PLAIN


def _network(name: str, weights: str) -> keras.Model:
    """Build the classification network without its classifier, and load the weights."""
    try:
        with warnings.catch_warnings():
            # MobileNetV3 says so for every input that is not 224 pixels wide, also where it does not matter.
            warnings.filterwarnings("ignore", "`input_shape` is undefined", UserWarning)
            return ENCODERS[name].build(include_top=False, weights=None if weights == "none" else weights)
    except Exception as error:  # Keras reports a failed download as a bare Exception
        raise MicrosegError(
            f"encoder '{name}': weights '{weights}' could not be loaded ({one_line(error)}); "
            "use weights: none, or the absolute path of a weights file without the classifier"
        ) from error


def _entrance(network: keras.Model) -> Tensor:
    """Return what enters the first layer behind the input preprocessing that some networks bring along.

    `adapt` does it for all: EfficientNet's own differs between ``imagenet`` and the same weights in a file.
    """
    preprocessing = (layers.InputLayer, layers.Rescaling, layers.Normalization)
    return next(layer.input for layer in network.layers if not isinstance(layer, preprocessing))


def _level(network: keras.Model, tensor: str) -> Tensor:
    layer, _, side = tensor.partition(":")
    return getattr(network.get_layer(layer) if layer else network, side or "output")


def load_encoder(name: str, depth: int | None, weights: str) -> keras.Model:
    """Build an encoder as a model from three channels to its first levels, with its weights.

    It is built on an input of its own: weights files are matched by the order of the layers, which a
    layer in front would shift. Every level has exactly the input's size divided by its stride. The
    averages of its normalisations follow as fast as those of all other blocks.

    Raises
    ------
    MicrosegError
        If the encoder has fewer levels, the ImageNet weights cannot be downloaded, or the local file does
        not fit the encoder.
    """
    count = len(level_strides(name, depth))
    network = _network(name, weights)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):  # 0.99 and 0.999 are meant for ImageNet
            layer.momentum = min(layer.momentum, BATCH_MOMENTUM)
    levels = [_level(network, tensor) for tensor in ENCODERS[name].levels[:count]]
    for index, margin in enumerate(ENCODERS[name].padding[:count]):
        levels[index] = layers.ZeroPadding2D((margin, margin))(levels[index])
    return keras.Model(_entrance(network), levels, name=name)
