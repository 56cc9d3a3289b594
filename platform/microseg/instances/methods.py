"""From a probability map to labelled objects: which pixels belong to the same cell, nucleus or particle.

A label map numbers the objects from 1 to n without a gap; 0 is background. All lengths are in pixels.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from math import ceil
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from skimage import measure, segmentation

from microseg.components import Builder, bind, create
from microseg.config import Component

Probability = NDArray[np.float32]
Labels = NDArray[np.int32]

Threshold = Annotated[float, Field(gt=0.0, lt=1.0)]
Pixels = Annotated[int, Field(ge=0)]

_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner belong together
_DIGITS = 3  # of a relief's height; less is noise


def components(probability: Probability, *, threshold: Threshold = 0.5, min_size: Pixels = 0) -> Labels:
    """Label the connected components of the thresholded map; objects that touch stay one.

    Parameters
    ----------
    probability : ndarray of float32, shape (height, width)
        Foreground probability in [0, 1].
    threshold : float
        At or above it a pixel is foreground.
    min_size : int
        Objects of fewer pixels are background.

    Returns
    -------
    ndarray of int32, shape (height, width)
        0 is background, objects are 1 to n.
    """
    labels, _ = ndimage.label(probability >= threshold, _EIGHT)
    return _numbered(labels, min_size)


def watershed(
    probability: Probability,
    *,
    threshold: Threshold = 0.5,
    min_distance: Annotated[int, Field(ge=1)] = 5,
    smoothing: Annotated[float, Field(ge=0.0)] = 1.0,
    min_size: Pixels = 0,
    seeds: Literal["distance", "probability"] = "distance",
) -> Labels:
    """Split touching objects by a watershed (Vincent and Soille 1991) flooded from seeds (Meyer 1994).

    The relief is the distance to the background, whose peaks are the middles of round objects, or the
    probability itself, which dips where a network has learnt the borders between objects.

    Parameters
    ----------
    probability : ndarray of float32, shape (height, width)
        Foreground probability in [0, 1].
    threshold : float
        At or above it a pixel is foreground.
    min_distance : int
        Least distance of two seeds, in pixels: about the radius of a small object.
    smoothing : float
        Standard deviation, in pixels, of the Gaussian that smooths the relief; 0 for none.
    min_size : int
        Objects of fewer pixels are background.
    seeds : {"distance", "probability"}
        What the relief is.

    Returns
    -------
    ndarray of int32, shape (height, width)
        0 is background, objects are 1 to n.

    References
    ----------
    Vincent, L. and Soille, P. (1991), DOI 10.1109/34.87344. Meyer, F. (1994), Topographic distance and
    watershed lines, DOI 10.1016/0165-1684(94)90060-4.
    """
    foreground = probability >= threshold
    relief = _distance(foreground) if seeds == "distance" else probability
    relief = np.where(foreground, ndimage.gaussian_filter(relief, smoothing), 0.0)
    # The sums of a Gaussian differ in the last digit along a ridge: equal heights shall be equal.
    relief = relief.round(_DIGITS)
    markers, count = _seeds(relief, foreground, min_distance)
    labels = _flooded(relief, markers, foreground)
    # A thin piece beside a thick one lies within the reach of the other's peak and has no seed of its own.
    unseeded, _ = ndimage.label(foreground & (labels == 0), _EIGHT)
    labels = np.where(unseeded, unseeded + count, labels)
    # A seed of several peaks may flood two places that another basin parts: an object is one piece.
    return _numbered(measure.label(labels, connectivity=2), min_size)


INSTANCES: dict[str, Builder] = {"components": components, "watershed": watershed}


class Method(NamedTuple):
    """How the objects of an image, or of a part of it, are told apart.

    Attributes
    ----------
    label : callable
        From probabilities (height, width, maps) to labels (height, width), 0 the background; no object is
        dropped for its size, and each is one connected piece.
    reach : int
        How far, in pixels, beyond a connected piece of foreground anything changes its division; 0 where
        pieces are not divided at all.
    min_size : int
        Objects of fewer pixels are background.
    """

    label: Callable[[Probability], Labels]
    reach: int = 0
    min_size: int = 0


def method_of(component: Component) -> Method:
    """Return a component as a method for parts of an image.

    Parameters
    ----------
    component : Component
        An entry of ``INSTANCES``.

    Raises
    ------
    MicrosegError
        If the component is not in the table or its parameters do not fit.
    """
    tell = bind(component, INSTANCES, "instances")
    given = inspect.signature(tell).parameters.values()  # of a partial: what is bound, else the defaults
    values = {one.name: one.default for one in given if one.kind is one.KEYWORD_ONLY}
    reach = _REACH[component.name](**values)
    every = functools.partial(tell, min_size=0)
    return Method(lambda probability: every(foreground_of(probability)), reach, values["min_size"])


def _watershed_reach(*, min_distance: int, smoothing: float, seeds: str, **_: object) -> int:
    """Return how far around a piece of foreground other pixels change its seeds or its relief.

    A peak groups with others half the distance away, is one by what lies within the distance, and its height
    is smoothed over four standard deviations. The distance to the background at the far end of that is no
    longer than the way back to the piece, whose surroundings are background.
    """
    local = (min_distance - 1) // 2 + min_distance + int(4.0 * smoothing + 0.5)
    return local + ceil(2**0.5 * local) + 1 if seeds == "distance" else local


_REACH: dict[str, Callable[..., int]] = {"components": lambda **_: 0, "watershed": _watershed_reach}


def _distance(foreground: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance to the background, which also surrounds the image: it may be all foreground."""
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(np.pad(foreground, 1))
    return distance[1:-1, 1:-1]


def _seeds(
    relief: NDArray[np.floating], foreground: NDArray[np.bool_], min_distance: int
) -> tuple[NDArray[np.int32], int]:
    """Return the highest pixels within a distance, numbered; a ridge of equal height is one seed.

    `skimage.feature.peak_local_max` sets a seed on such a ridge, the middle of a straight rod, at every
    ``min_distance`` pixels, and none at all where the whole relief is equal.
    """
    peaks = foreground & (relief == ndimage.maximum_filter(relief, 2 * min_distance + 1))
    near = ndimage.maximum_filter(peaks, 2 * ((min_distance - 1) // 2) + 1)
    # Only through the foreground: two specks of equal height side by side are not one object.
    grouped, count = ndimage.label(near & foreground, _EIGHT)
    return np.where(peaks, grouped, 0).astype(np.int32), count


def _flooded(
    relief: NDArray[np.floating], markers: NDArray[np.int32], foreground: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Flood from the markers; of equally high ones, the first in reading order floods first.

    scikit-image takes equal ones in an order that depends on all other markers of the image, so that a part
    of an image would be divided otherwise than the whole.
    """
    height = relief.astype(np.float64)
    rows, columns = np.nonzero(markers)
    # Less than the last digit: nothing that differs in height changes its place.
    height[rows, columns] += np.linspace(0.5 * 10.0**-_DIGITS, 0.0, len(rows), endpoint=False)
    flooded: NDArray[np.int32] = segmentation.watershed(-height, markers, _EIGHT, mask=foreground)
    return flooded


def _numbered(labels: NDArray[np.integer], min_size: int) -> Labels:
    """Drop small objects and number the others from 1 without a gap."""
    sizes = np.bincount(labels.ravel())
    kept = sizes >= max(min_size, 1)
    kept[0] = False
    numbered: Labels = (np.cumsum(kept) * kept).astype(np.int32)[labels]
    return numbered


def label_objects(probability: Probability, component: Component) -> Labels:
    """Label the objects of a network's output.

    Parameters
    ----------
    probability : ndarray of float32, shape (height, width, maps)
        One map is the foreground's; of several, the first is the background's and all others are foreground.
    component : Component
        An entry of ``INSTANCES``.

    Returns
    -------
    ndarray of int32, shape (height, width)

    Raises
    ------
    MicrosegError
        If the component is not in the table or its parameters do not fit.
    """
    labels: Labels = create(component, INSTANCES, "instances", foreground_of(probability))
    return labels


def foreground_of(probability: Probability) -> Probability:
    """Return the foreground's probability, (height, width), of one map or of several."""
    return probability[..., 0] if probability.shape[-1] == 1 else np.float32(1) - probability[..., 0]
