"""The network architectures, by name.

A new family is one file with a builder and its stride, and one line in each table.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras

from microseg.components import Builder, check, create
from microseg.config import Component, TrialConfig
from microseg.errors import MicrosegError
from microseg.models.deeplab_v3_plus import deeplab_v3_plus, deeplab_v3_plus_stride
from microseg.models.encoder_unet import encoder_unet, encoder_unet_stride
from microseg.models.folded import folded
from microseg.models.multires_unet import multires_unet, multires_unet_stride
from microseg.models.saved import UNREADABLE, load_saved
from microseg.models.swin_unet import swin_unet, swin_unet_stride
from microseg.models.u2net import u2net, u2net_stride
from microseg.models.unet import unet, unet_stride
from microseg.models.unet3_plus import unet3_plus, unet3_plus_stride
from microseg.models.unet_plus_plus import unet_plus_plus, unet_plus_plus_stride
from microseg.tiling import Grid, halo_of

__all__ = [
    "ARCHITECTURES",
    "STRIDES",
    "UNREADABLE",
    "build_model",
    "check_tile",
    "folded",
    "grid_of",
    "load_saved",
    "stride",
]

ARCHITECTURES: dict[str, Builder] = {
    "unet": unet,
    "unet_plus_plus": unet_plus_plus,
    "encoder_unet": encoder_unet,
    "deeplab_v3_plus": deeplab_v3_plus,
    "multires_unet": multires_unet,
    "unet3_plus": unet3_plus,
    "u2net": u2net,
    "swin_unet": swin_unet,
}
STRIDES: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "unet": unet_stride,
    "unet_plus_plus": unet_plus_plus_stride,
    "encoder_unet": encoder_unet_stride,
    "deeplab_v3_plus": deeplab_v3_plus_stride,
    "multires_unet": multires_unet_stride,
    "unet3_plus": unet3_plus_stride,
    "u2net": u2net_stride,
    "swin_unet": swin_unet_stride,
}


def build_model(component: Component, channels: int, classes: int) -> keras.Model:
    """Build a network for images of any size that `stride` divides.

    Parameters
    ----------
    component : Component
        An entry of ``ARCHITECTURES`` and its parameters.
    channels : int
        Channels of the image.
    classes : int
        Number of output maps: 1 (foreground probability, sigmoid) or at least 2 (softmax).

    Returns
    -------
    keras.Model
        From ``(batch, height, width, channels)`` to float32 ``(batch, height, width, classes)`` in [0, 1].
        ``outputs[0]`` is the prediction; ``outputs[1:]``, where there are any, are the supervised heads
        of a network with deep supervision, of the same shape.

    Raises
    ------
    MicrosegError
        If the component is not in the table or its parameters do not fit.
    """
    model: keras.Model = create(component, ARCHITECTURES, "model", channels, classes)
    return model


def stride(component: Component) -> int:
    """Return what height and width of an input must be a multiple of (pixels), without building the network.

    Raises
    ------
    MicrosegError
        If the component is not in the table or its parameters do not fit.
    """
    given = check(component, ARCHITECTURES, "model")
    signature = inspect.signature(ARCHITECTURES[component.name])
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
    return STRIDES[component.name](defaults | given)


def grid_of(config: TrialConfig, halo: int | None = None) -> Grid:
    """Return how tiles lie on an image; without a halo, neighbours share the overlap of the configuration.

    Of an imported network nobody knows the stride; it divides the tile, and hardly one is above 32.
    """
    known = config.model.name in ARCHITECTURES
    return Grid(
        tile=config.tile,
        halo=halo_of(config.tile, config.overlap) if halo is None else halo,
        stride=stride(config.model) if known else math.gcd(config.tile, 32),
    )


def check_tile(component: Component, tile: int, source: str = "training") -> None:
    """Refuse a training tile that the network does not halve evenly; inference pads and crops instead.

    Parameters
    ----------
    component : Component
        An entry of ``ARCHITECTURES`` and its parameters.
    tile : int
        Side of the training patches in pixels.
    source : str
        What the message names first.

    Raises
    ------
    MicrosegError
        If `stride` does not divide the tile.
    """
    step = stride(component)
    if tile % step:
        params = ", ".join(f"{name} {value}" for name, value in component.params.items())
        down, up = tile // step * step, (tile // step + 1) * step
        near = f"{down} or {up}" if down else str(up)
        raise MicrosegError(
            f"{source}: tile {tile} is not a multiple of {step}, which model '{component.name}' "
            f"({params or 'defaults'}) needs; use {near}, or fewer levels"
        )
