"""Choose how objects are told apart, by the true objects of images that the networks did not see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.instances.methods import Labels, Probability, label_objects
from microseg.metrics import average_precision


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
