"""The table of recipes, and a recipe as a function of image, mask and seed."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import albumentations as A
import numpy as np
from pydantic import AfterValidator, Field

from microseg.augment import geometry, intensity, published
from microseg.augment.transforms import Image, Mask
from microseg.components import Builder, bind, check
from microseg.config import Component

Augmenter = Callable[[Image, Mask, int], tuple[Image, Mask]]
Transforms = list[Any]
SLOT = "augment"


def _in_table(steps: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, params in steps.items():
        check(Component(name=name, params=params), AUGMENTATIONS, SLOT)
    return steps


Steps = Annotated[dict[str, dict[str, Any]], Field(min_length=1), AfterValidator(_in_table)]


def compose(*, steps: Steps) -> Transforms:
    """Apply several recipes to each pair, such as ``{flips: {}, elastic: {displacement: 4}, gamma: {}}``.

    Parameters
    ----------
    steps : dict
        From the name of a recipe to its parameters. They are applied in the order of ``AUGMENTATIONS``,
        warps before changes of intensity, however the mapping is ordered: noise is never smoothed by
        a warp, and a file that was sorted means the same.

    Raises
    ------
    MicrosegError
        If a step is not in the table or its parameters do not fit.
    """
    return [
        transform
        for name in AUGMENTATIONS
        if name in steps
        for transform in bind(Component(name=name, params=steps[name]), AUGMENTATIONS, SLOT)()
    ]


AUGMENTATIONS: dict[str, Builder] = {
    "none": geometry.none,
    "afm": published.afm,
    "hela": published.hela,
    "mito": published.mito,
    "nuclei": published.nuclei,
    "tiled": published.tiled,
    "compose": compose,
    "flips": geometry.flips,
    "crop": geometry.crop,
    "rotate": geometry.rotate,
    "affine": geometry.affine,
    "elastic": geometry.elastic,
    "grid_distortion": geometry.grid_distortion,
    "optical_distortion": geometry.optical_distortion,
    "barrel": geometry.barrel,
    "pincushion": geometry.pincushion,
    "hsv": intensity.hsv,
    "clahe": intensity.clahe,
    "brightness_contrast": intensity.brightness_contrast,
    "gamma": intensity.gamma,
    "blur": intensity.blur,
    "sharpen": intensity.sharpen,
    "noise": intensity.noise,
}


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
        ``f(image, mask, seed) -> (image, mask)`` with an image ``(height, width, channels)`` of any
        range, returned as float32, and a uint8 mask ``(height, width)`` or ``(height, width, planes)``.
        Equal seeds give equal draws; geometric transforms draw the same for both. Masks are warped by
        nearest neighbour, so that the only new label is ``IGNORE``, beyond a constant border.

    Raises
    ------
    MicrosegError
        If the component is not in the table or its parameters do not fit.
    """
    build = bind(component, AUGMENTATIONS, SLOT)
    if not _transforms(build):
        return lambda image, mask, seed: (image, mask)
    local = threading.local()  # a Compose keeps its random state, so that threads cannot share one

    def augment(image: Image, mask: Mask, seed: int) -> tuple[Image, Mask]:
        if not hasattr(local, "compose"):
            local.compose = A.Compose(_transforms(build))
        # set_random_seed would seed every transform alike: both flips would always fall together.
        local.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        # Several transforms fail on uint16 or change its type.
        pair = local.compose(image=np.asarray(image, np.float32), mask=mask)
        return pair["image"], pair["mask"]

    return augment
