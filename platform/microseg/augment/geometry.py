"""Recipes that move pixels: image and mask alike, the mask by nearest neighbour."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import albumentations as A
from pydantic import Field

from microseg.augment import fields
from microseg.augment.transforms import Border, Warp

Transforms = list[Any]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Degrees = Annotated[float, Field(ge=0.0, le=360.0)]
Pixels = Annotated[float, Field(ge=0.0, le=100.0)]
Fraction = Annotated[float, Field(ge=0.0, le=0.9)]


def none() -> Transforms:
    """Leave every pair as it is."""
    return []


def flips() -> Transforms:
    """Mirror along each axis with probability 0.5 and rotate by a random multiple of 90 degrees."""
    return [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.RandomRotate90(p=1.0)]


def rotate(*, angle: Degrees = 180.0, border: Border = "reflect", share: Share = 1.0) -> Transforms:
    """Rotate about the centre by up to ``angle`` degrees either way; by multiples of 90, see `flips`.

    Parameters
    ----------
    angle : float
        Largest angle, in degrees.
    border : {"reflect", "wrap", "constant", "nearest"}
        What fills the corners; with ``constant`` the mask is ignored there.
    share : float
        Share of the pairs that are rotated.
    """
    return [Warp(partial(fields.affine, angle=angle), border, share)]


def affine(
    *,
    shift: Fraction = 0.1,
    zoom: Fraction = 0.1,
    shear: Annotated[float, Field(ge=0.0, le=60.0)] = 5.0,
    angle: Degrees = 0.0,
    border: Border = "reflect",
    share: Share = 1.0,
) -> Transforms:
    """Shift, magnify, slant and rotate, each drawn uniformly within plus and minus its limit.

    Parameters
    ----------
    shift : float
        Fraction of the height and of the width.
    zoom : float
        0.1 magnifies by 0.9 to 1.1, both axes alike.
    shear, angle : float
        Degrees.
    border, share
        As for `rotate`.
    """
    field = partial(fields.affine, shift=shift, zoom=zoom, shear=shear, angle=angle)
    return [Warp(field, border, share)]


def crop(*, smallest: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7, share: Share = 1.0) -> Transforms:
    """Magnify a random part to the size of the tile; its sides are at least ``smallest`` of the tile's."""
    return [Warp(partial(fields.window, smallest=smallest), p=share)]


def elastic(
    *,
    displacement: Pixels = 4.0,
    sigma: Annotated[float, Field(ge=1.0, le=200.0)] = 10.0,
    border: Border = "reflect",
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
    border, share
        As for `rotate`.

    References
    ----------
    Simard, Steinkraus and Platt 2003, DOI 10.1109/ICDAR.2003.1227801.
    """
    field = partial(fields.elastic, displacement=displacement, sigma=sigma)
    return [*flips(), Warp(field, border, share)]


def grid_distortion(
    *,
    displacement: Pixels = 4.0,
    cells: Annotated[int, Field(ge=1, le=32)] = 5,
    border: Border = "reflect",
    share: Share = 0.8,
) -> Transforms:
    """Displace the nodes of a regular grid at random, and linearly what lies between.

    Parameters
    ----------
    displacement : float
        Root mean square length of the displacement over the tile, in pixels.
    cells : int
        Cells along each side.
    border, share
        As for `rotate`.
    """
    field = partial(fields.nodes, displacement=displacement, cells=cells)
    return [Warp(field, border, share)]


def optical_distortion(
    *, displacement: Fraction = 0.1, border: Border = "reflect", share: Share = 0.8
) -> Transforms:
    """Distort like a lens, from barrel to pincushion, about the centre of the tile.

    Parameters
    ----------
    displacement : float
        Largest displacement of the corners, as a fraction of their distance from the centre.
    border, share
        As for `rotate`.
    """
    return [Warp(partial(fields.lens, displacement=displacement), border, share)]


def barrel(
    *, amount: Fraction = 0.3, radius: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3, share: Share = 0.8
) -> Transforms:
    """Magnify a disc about a random place, as if seen through a drop.

    Parameters
    ----------
    amount : float
        The distance r from the place becomes ``r sin(pi r / 2R) ** amount``.
    radius : float
        R, as a fraction of the width of the tile.
    share : float
        Share of the pairs that are warped.
    """
    return [Warp(partial(fields.bulge, amount=amount, radius=radius), p=share)]


def pincushion(
    *, amount: Fraction = 0.3, radius: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3, share: Share = 0.8
) -> Transforms:
    """Shrink the inside of a disc about a random place: `barrel` with the amount negative."""
    return [Warp(partial(fields.bulge, amount=-amount, radius=radius), p=share)]
