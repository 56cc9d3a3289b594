"""From a probability map to labelled objects: which pixels belong to the same cell, nucleus or particle.

A label map numbers the objects from 1 to n without a gap; 0 is background. All lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage
from skimage import segmentation

from microseg.components import Builder, create
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.metrics import average_precision

Probability = NDArray[np.float32]
Labels = NDArray[np.int32]

Threshold = Annotated[float, Field(gt=0.0, lt=1.0)]
Pixels = Annotated[int, Field(ge=0)]

_EIGHT = np.ones((3, 3), bool)  # pixels that touch at a corner belong together


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
    markers, count = _seeds(relief, foreground, min_distance)
    labels = segmentation.watershed(-relief, markers, _EIGHT, mask=foreground)
    # A thin piece beside a thick one lies within the reach of the other's peak and has no seed of its own.
    unseeded, _ = ndimage.label(foreground & (labels == 0), _EIGHT)
    return _numbered(np.where(unseeded, unseeded + count, labels), min_size)


INSTANCES: dict[str, Builder] = {"components": components, "watershed": watershed}


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
    relief = np.round(relief, 3)  # the sums of a Gaussian differ in the last digit along a ridge
    peaks = foreground & (relief == ndimage.maximum_filter(relief, 2 * min_distance + 1))
    grouped, count = ndimage.label(ndimage.maximum_filter(peaks, 2 * ((min_distance - 1) // 2) + 1), _EIGHT)
    return np.where(peaks, grouped, 0).astype(np.int32), count


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


def candidates(truths: Sequence[Labels]) -> list[Component]:
    """Return the parameters that a search tries, the simplest first, scaled to the objects' size.

    Thresholds 0.3, 0.5 and 0.7; watershed seeds a sixth, a third and half of the median diameter apart,
    on reliefs smoothed by none and a twentieth of it; objects below a twentieth of the median area dropped.

    Parameters
    ----------
    truths : sequence of ndarray of int, shape (height, width)
        The true objects.
    """
    areas = np.concatenate([np.bincount(truth.ravel())[1:] for truth in truths])
    area = float(np.median(areas[areas > 0])) if areas.any() else 1.0
    diameter = 2.0 * (area / np.pi) ** 0.5
    plain = [{"threshold": threshold} for threshold in (0.5, 0.3, 0.7)]
    sized = [values | {"min_size": round(area / 20)} for values in plain]
    distances = sorted({max(1, round(diameter * share)) for share in (1 / 6, 1 / 3, 1 / 2)}, reverse=True)
    split = [
        values | {"seeds": seeds, "min_distance": distance, "smoothing": smoothing}
        for seeds in ("distance", "probability")
        for distance in distances
        for smoothing in (round(diameter / 20, 1), 0.0)
        for values in sized
    ]
    return [Component(name="components", params=params) for params in plain + sized] + [
        Component(name="watershed", params=params) for params in split
    ]


def search_instances(
    probabilities: Sequence[Probability], truths: Sequence[Labels], tried: Sequence[Component]
) -> tuple[Component, float]:
    """Choose how objects are told apart by average precision at IoU 0.5, pooled over all images.

    Parameters
    ----------
    probabilities : sequence of ndarray of float32, shape (height, width, maps)
        Predictions of networks that did not see these images.
    truths : sequence of ndarray of int, shape (height, width)
        The true objects of the same images.
    tried : sequence of Component
        Entries of ``INSTANCES``; of equal ones the first is chosen. See `candidates`.

    Returns
    -------
    Component, float
        The best one and its AP at 0.5, in [0, 1].

    Raises
    ------
    MicrosegError
        If nothing is given to choose from, or a component does not fit its table.
    """
    if not tried or not probabilities:
        raise MicrosegError(
            f"{len(tried)} ways to tell objects apart, {len(probabilities)} images; give at least one of each"
        )
    scores = [
        average_precision(truths, [label_objects(map_, way) for map_ in probabilities], (0.5,))["ap50"]
        for way in tried
    ]
    best = int(np.argmax(scores))
    return tried[best], scores[best]
