"""Recipes that change values and leave every pixel, and the mask, where it is.

A network may see images of 0 to 1, of 0 to 255, or z-scored ones, so every amount is relative to the
tile's own range: from its smallest to its largest value. What is cut, is cut to that range. A constant
tile has no range and stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from microseg.augment.geometry import Share
from microseg.augment.transforms import Image, Recolour

Transforms = list[Any]
Amount = Annotated[float, Field(ge=0.0, le=1.0)]
Generator = np.random.Generator
Array = NDArray[Any]


def brightness_contrast(
    *, brightness: Amount = 0.2, contrast: Amount = 0.2, share: Share = 0.5
) -> Transforms:
    """Add a constant, and stretch about the mean, each drawn uniformly within plus and minus its limit.

    Parameters
    ----------
    brightness : float
        Largest constant, as a fraction of the tile's range.
    contrast : float
        0.2 stretches by 0.8 to 1.2.
    share : float
        Share of the images that are changed.
    """
    return [Recolour(partial(_brightness_contrast, brightness=brightness, contrast=contrast), share)]


def _brightness_contrast(image: Image, rng: Generator, *, brightness: float, contrast: float) -> Array:
    added, stretch = rng.uniform(-brightness, brightness), 1.0 + rng.uniform(-contrast, contrast)
    mean = image.mean()
    changed: Array = (image - mean) * np.float32(stretch) + (mean + np.float32(added) * np.ptp(image))
    return changed


def gamma(*, limit: Annotated[float, Field(ge=0.0, le=4.0)] = 0.2, share: Share = 0.5) -> Transforms:
    """Raise the values, scaled to 0..1 by the tile's range, to a random power.

    Parameters
    ----------
    limit : float
        The exponent lies between ``1 / (1 + limit)`` and ``1 + limit``, as often below 1 as above.
    share : float
        Share of the images that are changed.
    """
    return [Recolour(partial(_gamma, limit=limit), share)]


def _gamma(image: Image, rng: Generator, *, limit: float) -> Array:
    exponent = np.float32((1.0 + limit) ** rng.uniform(-1.0, 1.0))
    return _in_own_range(image, lambda unit: unit**exponent)


def noise(*, deviation: Amount = 0.05, share: Share = 0.5) -> Transforms:
    """Add Gaussian noise, independent in every pixel and channel.

    Parameters
    ----------
    deviation : float
        Largest standard deviation, as a fraction of the tile's range; the variance is drawn uniformly.
    share : float
        Share of the images that are changed.
    """
    return [Recolour(partial(_noise, deviation=deviation), share)]


def _noise(image: Image, rng: Generator, *, deviation: float) -> Array:
    scale = np.float32(deviation * np.sqrt(rng.uniform())) * np.ptp(image)
    noisy: Array = image + scale * rng.standard_normal(image.shape, np.float32)
    return noisy


def blur(*, sigma: Annotated[float, Field(ge=0.0, le=20.0)] = 1.5, share: Share = 0.5) -> Transforms:
    """Smooth by a Gaussian, as an image out of focus.

    Parameters
    ----------
    sigma : float
        Largest standard deviation, in pixels; drawn uniformly from 0.
    share : float
        Share of the images that are changed.
    """
    return [Recolour(partial(_blur, sigma=sigma), share)]


def _blur(image: Image, rng: Generator, *, sigma: float) -> Array:
    return _smoothed(image, rng.uniform(0.0, sigma))


def sharpen(*, amount: Annotated[float, Field(ge=0.0, le=5.0)] = 0.5, share: Share = 0.5) -> Transforms:
    """Add to the image its difference from a smoothed one (unsharp masking, Gaussian of 1 pixel).

    Parameters
    ----------
    amount : float
        Largest weight of the difference; drawn uniformly from 0.
    share : float
        Share of the images that are changed.
    """
    return [Recolour(partial(_sharpen, amount=amount), share)]


def _sharpen(image: Image, rng: Generator, *, amount: float) -> Array:
    return image + np.float32(rng.uniform(0.0, amount)) * (image - _smoothed(image, 1.0))


def hsv(
    *,
    hue: Annotated[float, Field(ge=0.0, le=180.0)] = 40.0,
    saturation: Amount = 0.12,
    value: Amount = 0.08,
    share: Share = 0.5,
) -> Transforms:
    """Shift hue, saturation and value of colour images; others, with 1, 2 or 5 channels, stay as they are.

    Parameters
    ----------
    hue : float
        Largest shift, in degrees of the colour circle.
    saturation, value : float
        Largest shifts, as fractions of their ranges.
    share : float
        Share of the images that are changed.
    """
    return [Recolour(partial(_hsv, limits=(hue, saturation, value)), share)]


def _hsv(image: Image, rng: Generator, *, limits: tuple[float, float, float]) -> Array:
    shift = rng.uniform(-1.0, 1.0, 3) * limits
    if image.shape[-1] != 3:
        return image

    def shifted(unit: Array) -> Array:
        hue, saturation, value = np.moveaxis(cv2.cvtColor(unit, cv2.COLOR_RGB2HSV), -1, 0)
        # Grey has no hue and stays grey, or added saturation would turn it red.
        saturation = np.where(saturation > 0, np.clip(saturation + shift[1], 0, 1), 0)
        moved = np.stack([(hue + shift[0]) % 360, saturation, np.clip(value + shift[2], 0, 1)], axis=-1)
        return cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_HSV2RGB)

    return _in_own_range(image, shifted)


def clahe(*, limit: Annotated[float, Field(ge=1.0, le=100.0)] = 4.0, share: Share = 0.5) -> Transforms:
    """Equalise the histogram of each channel locally, at 256 levels, in 8 x 8 parts of the tile.

    A network trained on equalised images must be given equalised images: to equalise every image, use
    ``clahe`` of the preprocessing instead, which is part of the saved model.

    Parameters
    ----------
    limit : float
        Largest limit of contrast, in multiples of the mean count of the histogram's bins; drawn
        uniformly from 1.
    share : float
        Share of the images that are changed.

    References
    ----------
    Zuiderveld 1994, Contrast limited adaptive histogram equalization, Graphics Gems IV.
    """
    return [Recolour(partial(_clahe, limit=limit), share)]


def _clahe(image: Image, rng: Generator, *, limit: float) -> Array:
    equalise = cv2.createCLAHE(rng.uniform(1.0, limit), (8, 8)).apply

    def equalised(unit: Array) -> Array:
        # Not 16 bits: over OpenCV's 65,536 bins every limit is less than one pixel, and would do nothing.
        levels = np.round(unit * 255).astype(np.uint8)
        planes = [equalise(np.ascontiguousarray(plane)) for plane in np.moveaxis(levels, -1, 0)]
        return np.stack(planes, axis=-1).astype(np.float32) / np.float32(255)

    return _in_own_range(image, equalised)


def _in_own_range(image: Image, change: Callable[[Array], Array]) -> Array:
    """Apply a function of values in 0..1 to an image of any range."""
    low, span = image.min(), np.ptp(image)
    if span == 0:
        return image
    changed: Array = low + span * change(np.clip((image - low) / span, 0.0, 1.0))
    return changed


def _smoothed(image: Image, sigma: float) -> Array:
    if sigma < 0.1:  # the kernel is a single pixel; OpenCV would read 0 as "choose one"
        return image
    smooth = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return smooth.reshape(image.shape)
