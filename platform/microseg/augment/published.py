"""What five published projects drew at random, as one recipe each.

Every recipe takes a ``strength``: 1 is what was published, 0 leaves every pair as it is, and what lies
between or beyond scales angles, distances and amounts; what has no magnitude, such as a mirror image,
becomes as much rarer, never more frequent than published. Where the projects drew different fields for
image and mask, resampled masks linearly or augmented validation images, these recipes do not.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any

import albumentations as A
import numpy as np
from pydantic import Field

from microseg.augment import fields, intensity
from microseg.augment.transforms import Border, Warp

Transforms = list[Any]
Strength = Annotated[float, Field(ge=0.0, le=2.0)]


def _mirrored(strength: float, across: float = 0.5, down: float = 0.5) -> Transforms:
    rarer = min(strength, 1.0)
    return [A.HorizontalFlip(p=across * rarer), A.VerticalFlip(p=down * rarer)]


def _warped(limits: dict[str, float], border: Border, strength: float) -> Transforms:
    """Warp within limits, and mirror, as the `ImageDataGenerator` of Keras does."""
    scaled: dict[str, Any] = {name: limit * strength for name, limit in limits.items()}
    return [Warp(partial(fields.affine, isotropic=False, **scaled), border), *_mirrored(strength)]


def afm(*, strength: Strength = 1.0) -> Transforms:
    """Warp and mirror as the AFM astrocyte project: rotation 45 degrees, shifts and zoom 5 %, wrapped.

    Its shear of 0.05 is, by the rules of Keras, 0.05 degrees: next to nothing.

    References
    ----------
    Tiryaki et al. 2022, Cytometry A, DOI 10.1002/cyto.a.24533.
    """
    return _warped({"angle": 45.0, "shift": 0.05, "shear": 0.05, "zoom": 0.05}, "wrap", strength)


def hela(*, strength: Strength = 1.0) -> Transforms:
    """Warp and mirror as the HeLa project: rotation 90 degrees, shifts and zoom 30 %, borders reflected.

    Its shear of 0.5 is, by the rules of Keras, 0.5 degrees.
    """
    return _warped({"angle": 90.0, "shift": 0.3, "shear": 0.5, "zoom": 0.3}, "reflect", strength)


def mito(*, strength: Strength = 1.0) -> Transforms:
    """Mirror along both axes, as the project on mitochondria in electron micrographs does in effect."""
    return _mirrored(strength)


def nuclei(*, strength: Strength = 1.0) -> Transforms:
    """Rotate, mirror, add noise and recolour as the nuclei U-Net++ project, after its CLAHE.

    The project equalised every image, in training and validation, and lost accuracy where it forgot to
    in its report. What every image needs is preprocessing: set ``clahe: 4.0`` there; here is what is random.
    """
    mirrors = [A.HorizontalFlip(p=1.0), A.VerticalFlip(p=1.0)]
    tones = [
        *intensity.brightness_contrast(brightness=0.2 * strength, contrast=0.2 * strength),
        *intensity.gamma(limit=0.2 * strength),
    ]
    return [
        Warp(partial(fields.affine, angle=360.0 * strength), "wrap"),
        A.OneOf([*mirrors, A.Sequential(mirrors, p=1.0)], p=min(strength, 1.0)),
        *intensity.noise(deviation=0.028 * strength, share=0.9),
        *_mirrored(strength, across=0.6, down=0.7),
        A.OneOf(tones, p=0.2),
        *intensity.hsv(
            hue=40.0 * strength, saturation=30 / 255 * strength, value=20 / 255 * strength, share=0.5
        ),
    ]


def tiled(*, strength: Strength = 1.0, border: Border = "constant") -> Transforms:
    """Draw one of the 19 variants of the tiled bare-nuclei project, each as often as published.

    The tile as it is; mirrored along either axis; turned by 90, 180, 210 or 270 degrees; shrunk to 0.8;
    sheared by 0.1, in four mirror images; an elastic warp; a smooth distortion of up to 2 % of the
    width; and a barrel, five times. The elastic warp has the effect that was measured, a standard
    deviation of 2.3 pixels along each axis at sigma 8, not the published alpha, which other libraries
    take for ten times as much. One barrel at a random place stands for the project's up to five in a row.

    Parameters
    ----------
    strength : float
        0 to 2.
    border : {"reflect", "wrap", "constant", "nearest"}
        What lies beyond the tile; published was a constant colour, here it is 0 and the mask ignored.
    """
    rarer = min(strength, 1.0)
    across, down = A.HorizontalFlip(p=rarer), A.VerticalFlip(p=rarer)
    slant = _linear(fields.sheared(math.degrees(math.atan(0.1 * strength))), border)
    variants: list[Transforms] = [
        [],
        [across],
        [down],
        *([_linear(fields.turned(angle), border, rarer)] for angle in (90, 180, 210, 270)),
        [_linear(np.eye(2) / (1.0 - 0.2 * strength), border)],
        *([slant, *mirrors] for mirrors in ([], [across], [down], [across, down])),
        [Warp(partial(fields.elastic, displacement=2.3 * math.sqrt(2.0) * strength, sigma=8.0), border)],
        [Warp(partial(fields.bounded_elastic, largest=0.02 * strength, sigma=40.0), border)],
        *([Warp(partial(fields.bulge, amount=0.3 * strength, radius=0.3), border)] for _ in range(5)),
    ]
    # What stands directly in a OneOf is applied for certain, whatever its own probability.
    return [A.OneOf([A.Sequential(steps, p=1.0) for steps in variants], p=1.0)]


def _linear(matrix: fields.Matrix, border: Border, share: float = 1.0) -> Any:
    return Warp(partial(fields.linear, matrix=matrix), border, share)
