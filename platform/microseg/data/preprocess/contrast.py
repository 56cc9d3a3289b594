"""Contrast of normalised images: local histogram equalisation and gamma."""

from __future__ import annotations

import functools
import itertools
from typing import Annotated

import numpy as np
from pydantic import Field

from microseg.data.preprocess.bands import Array, Bands, Transform
from microseg.data.preprocess.channels import Colour
from microseg.errors import MicrosegError

_BINS = 256
_LIGHTNESS = {"hsv": 2, "lab": 0}  # the channel that is no colour


def adjust(
    bands: Bands,
    *,
    colour: Colour = "as_is",
    clahe: Annotated[float, Field(ge=1.0, le=256.0)] | None = None,
    gamma: Annotated[float, Field(ge=0.1, le=10.0)] = 1.0,
) -> Transform:
    """Equalise the histogram locally, then raise to a power.

    Both work on values of 0..1. Where an image exceeds that, as z-scored ones do, its values from the
    smallest to the largest take the place of 0..1, and keep their range.

    Parameters
    ----------
    bands : Bands
        A normalised image, float32. Its smallest and largest value are measured.
    colour : {"as_is", "grey", "hsv", "lab"}
        Its colour space. Of ``hsv`` and ``lab`` only value and lightness change. Three channels as
        they are, are taken as red, green and blue: L* of CIE Lab is equalised.
    clahe : float, optional
        Limit of contrast, in multiples of the mean count of a histogram's 256 bins (as in OpenCV and
        albumentations, whose default is 4; of scikit-image's clip limit, 256 times), in parts of 1/8
        of the height and width. What is equalised is first stretched to 0..1, and fills it afterwards:
        a dim image becomes as bright as any (OpenCV leaves it dim). Not of windows: see `undivided`.
    gamma : float
        Exponent; below 1 brightens.

    References
    ----------
    Zuiderveld 1994, Contrast limited adaptive histogram equalization, Graphics Gems IV.
    """
    if clahe is None and gamma == 1.0:
        return _unchanged
    extremes = [(float(band.min()), float(band.max())) for band in bands()]
    low, high = min(0.0, *(low for low, _ in extremes)), max(1.0, *(high for _, high in extremes))
    return functools.partial(_adjusted, limits=(low, high), colour=colour, clahe=clahe, gamma=gamma)


def undivided(preprocess: Transform, bands: Bands) -> Transform:
    """Return a preprocessing with CLAHE as a function of the whole image alone, which is the only band.

    Raises
    ------
    MicrosegError
        If there is another band; when applied, if the image is of another size.
    """
    divided = MicrosegError(
        "preprocess: clahe equalises by parts of 1/8 of the whole image, so that it cannot be applied to"
        " windows of a large one; cut the image up, or train with 'percentile' and no clahe"
    )
    first, *others = itertools.islice(bands(), 2)
    if others:
        raise divided
    shape = first.shape

    def whole(image: Array) -> Array:
        if image.shape != shape:
            raise divided
        return preprocess(image)

    return whole


def _unchanged(image: Array) -> Array:
    return image


def _adjusted(
    image: Array, *, limits: tuple[float, float], colour: Colour, clahe: float | None, gamma: float
) -> Array:
    low, high = limits
    result = ((image - low) / (high - low)).astype(np.float64)
    if clahe is not None:
        result = _equalised(result, colour, clahe / _BINS)
    result = _of_lightness(result, colour, lambda plane: plane**gamma)
    return (low + (high - low) * result).astype(np.float32)


def _of_lightness(image: Array, colour: Colour, change: Transform) -> Array:
    """Apply a function to the channels that are no colour."""
    if colour not in _LIGHTNESS:
        return change(image)
    result, index = image.copy(), _LIGHTNESS[colour]
    result[..., index] = change(image[..., index])
    return result


def _equalised(image: Array, colour: Colour, limit: float) -> Array:
    if colour == "as_is" and image.shape[-1] == 3:
        return _equalised_rgb(image, limit)

    def each(planes: Array) -> Array:
        if planes.ndim == 2:
            return _equalised_plane(planes, limit)
        return np.stack([_equalised_plane(plane, limit) for plane in np.moveaxis(planes, -1, 0)], axis=-1)

    return _of_lightness(image, colour, each)


def _equalised_rgb(image: Array, limit: float) -> Array:
    from skimage import color

    lab = color.rgb2lab(image)
    lightness = 100 * _equalised_plane(lab[..., 0] / 100, limit)
    # Beyond this b*, the XYZ colour would have a negative Z: scikit-image sets it to 0, but warns.
    bluest = 200 / 116 * (lightness + 16) * (1 - 1e-6)
    return np.asarray(color.lab2rgb(np.dstack([lightness, lab[..., 1], np.minimum(lab[..., 2], bluest)])))


def _equalised_plane(plane: Array, limit: float) -> Array:
    from skimage.exposure import equalize_adapthist

    if plane.min() == plane.max():
        return plane
    return np.asarray(equalize_adapthist(np.clip(plane, 0, 1), clip_limit=limit, nbins=_BINS))
