"""Which channels of an image are used, and in which colour space."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from microseg.data.preprocess.bands import Array, Bands, Transform
from microseg.errors import MicrosegError

Colour = Literal["as_is", "grey", "hsv", "lab"]
Index = Annotated[int, Field(ge=0)]
Channels = Annotated[tuple[Index, ...], Field(min_length=1)]


def select(bands: Bands, *, channels: Channels | None = None, colour: Colour = "as_is") -> Transform:
    """Select channels, in the given order, and change red, green and blue to another colour space.

    Parameters
    ----------
    bands : Bands
        A whole image of any number type; uint8, uint16 or float in 0..1 where the colour space is
        changed. Nothing is measured on it.
    channels : sequence of int, optional
        Channels to use, counted from 0; all by default.
    colour : {"as_is", "grey", "hsv", "lab"}
        ``grey`` is the luminance of Rec. 709, one channel; ``hsv`` has hue, saturation and value,
        ``lab`` L*, a* and b* (CIE 1976, D65), each filling the range of the number type: hue 0 to 360
        degrees, L* 0 to 100, a* and b* -128 to 127. The number type stays; integers are rounded.

    Raises
    ------
    MicrosegError
        When applied, if the image lacks a channel, has no three for a change of colour, or another
        number type.
    """
    return functools.partial(_selected, channels=channels, colour=colour)


def _selected(image: Array, *, channels: tuple[int, ...] | None, colour: Colour) -> Array:
    chosen = selected(image.shape[-1], channels, colour)
    image = image if channels is None else image[..., list(chosen)]
    if colour == "as_is":
        return image
    top = full_scale(image, f"colour '{colour}'", "leave colour as_is")
    # A matrix product (BLAS) of many pixels rounds by where in it a pixel lies: each is an image of its own.
    pixels = (image / top).reshape(-1, 1, 3)
    converted = np.clip(_convert()[colour](pixels), 0.0, 1.0) * top  # rounding may exceed white
    converted = converted.reshape(*image.shape[:2], -1)
    return (np.round(converted) if image.dtype.kind == "u" else converted).astype(image.dtype)


def selected(given: int, channels: tuple[int, ...] | None, colour: str) -> tuple[int, ...]:
    """Return the channels to use of ``given`` ones.

    Raises
    ------
    MicrosegError
        If one of them does not exist, or if a change of colour does not get three.
    """
    chosen = tuple(range(given)) if channels is None else channels
    if max(chosen) >= given:
        raise MicrosegError(
            f"preprocess: channel {max(chosen)} does not exist; the image has {given}, counted from 0:"
            f" give channels from 0 to {given - 1}"
        )
    if colour != "as_is" and len(chosen) != 3:
        raise MicrosegError(
            f"preprocess: colour '{colour}' needs red, green and blue, not {len(chosen)} channel(s):"
            " select three by channels, or leave colour as_is"
        )
    return chosen


def full_scale(image: Array, purpose: str, instead: str) -> float:
    """Return the value that white has in an image's number type: 255, 65535, or 1 for floats.

    Raises
    ------
    MicrosegError
        If a float image has values outside 0..1, or the number type is another.
    """
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    if image.dtype.kind != "f":
        raise MicrosegError(
            f"preprocess: {purpose} takes 8-bit, 16-bit or float images, got {image.dtype}; {instead}"
        )
    if image.min() < 0.0 or image.max() > 1.0:
        raise MicrosegError(
            f"preprocess: {purpose} takes float images in 0..1, got {image.min():g} to {image.max():g};"
            f" {instead}"
        )
    return 1.0


def _convert() -> dict[str, Transform]:
    from skimage import color  # not before it is needed: what only reads a configuration starts faster

    return {
        "grey": lambda rgb: color.rgb2gray(rgb)[..., None],
        "hsv": color.rgb2hsv,
        "lab": lambda rgb: (color.rgb2lab(rgb) + np.array([0, 128, 128])) / np.array([100, 255, 255]),
    }
