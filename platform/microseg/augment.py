"""Augmentation recipes, by name: pairs of image and mask warped alike, by albumentations.

This is the only module that imports albumentations.
"""

from __future__ import annotations

import math
import os
import random
import threading
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

# At import, albumentations asks the network for its newest version.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
import cv2

from microseg.components import Builder, bind
from microseg.config import Component

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]
Augmenter = Callable[[Image, Mask, int], tuple[Image, Mask]]
Transforms = list[Any]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def none() -> Transforms:
    """Leave every pair as it is."""
    return []


def flips() -> Transforms:
    """Mirror along each axis with probability 0.5 and rotate by a random multiple of 90 degrees."""
    return [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=1.0)]


def elastic(
    *,
    displacement: Annotated[float, Field(gt=0.0, le=100.0)] = 4.0,
    sigma: Annotated[float, Field(ge=1.0, le=200.0)] = 10.0,
    share: Share = 0.8,
) -> Transforms:
    """Warp by a smooth random displacement field, after `flips`.

    Parameters
    ----------
    displacement : float
        Root mean square length of the displacement, in pixels.
    sigma : float
        Standard deviation of the Gaussian that smooths the field, in pixels. A displacement
        above about half of it folds the image.
    share : float
        Share of the pairs that are warped.

    References
    ----------
    Simard, Steinkraus and Platt 2003, DOI 10.1109/ICDAR.2003.1227801.
    """
    # Uniform noise in [-1, 1] has variance 1/3 (the Gaussian option is divided by its random maximum);
    # smoothing scales it by 1 / (4 pi sigma^2); two components add up: rms = alpha / (sigma sqrt(6 pi)).
    alpha = displacement * sigma * math.sqrt(6.0 * math.pi)
    warp = A.ElasticTransform(
        alpha=alpha,
        sigma=sigma,
        noise_distribution="uniform",
        interpolation=cv2.INTER_LINEAR,
        mask_interpolation=cv2.INTER_NEAREST,
        border_mode=cv2.BORDER_REFLECT_101,  # image and mask alike, so that labels stay true
        p=share,
    )
    return [*flips(), warp]


AUGMENTATIONS: dict[str, Builder] = {"none": none, "flips": flips, "elastic": elastic}


def _transforms(build: Callable[[], Transforms]) -> Transforms:
    with warnings.catch_warnings():
        # albumentations only warns of an argument that it does not know, and then ignores it.
        warnings.filterwarnings("error", message=r".*not valid for transform")
        return build()


def augmenter(component: Component) -> Augmenter:
    """Return the recipe as a pure function of image, mask and seed, which may run in many threads.

    Parameters
    ----------
    component : Component
        An entry of ``AUGMENTATIONS`` and its parameters.

    Returns
    -------
    callable
        ``f(image, mask, seed) -> (image, mask)`` with float32 ``(height, width, channels)`` and uint8
        ``(height, width)``; equal seeds give equal draws. Masks are warped by nearest neighbour, so that
        no new label appears; geometric transforms draw the same for both.

    Raises
    ------
    MicrosegError
        If the component is not in the table or its parameters do not fit.
    """
    build = bind(component, AUGMENTATIONS, "augment")
    if not _transforms(build):
        return lambda image, mask, seed: (image, mask)
    local = threading.local()  # a Compose keeps its random state, so that threads cannot share one

    def augment(image: Image, mask: Mask, seed: int) -> tuple[Image, Mask]:
        if not hasattr(local, "compose"):
            local.compose = A.Compose(_transforms(build))
        # set_random_seed would seed every transform alike: both flips would always fall together.
        local.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        pair = local.compose(image=image, mask=mask)
        return pair["image"], pair["mask"]

    return augment
