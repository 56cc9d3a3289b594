"""Score masks against the truth image by image, and compare two such sets of scores by their groups.

Nothing here knows what made the masks: a network of ours, an outside tool or a colleague.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from microseg.errors import MicrosegError
from microseg.metrics import (
    average_precision,
    boundary_f1,
    confusion,
    dice,
    hausdorff95,
    iou,
    mcc,
    panoptic_quality,
)
from microseg.metrics.objects import Labels
from microseg.statistics import FEWEST_GROUPS, group_means, half_width

Classes = NDArray[np.uint8]

_PIXELS = {"dice": dice, "iou": iou, "mcc": mcc}


class ImageScores(NamedTuple):
    """The scores of one image by metric, and the group (specimen, session, slide) it belongs to."""

    image: str
    group: str
    scores: dict[str, float]


class Difference(NamedTuple):
    """How two sets of masks of the same images differ in a metric.

    ``estimate`` is the mean over groups of a group's mean difference, first less second; ``low`` and
    ``high`` its two-sided 95 % interval, None below 6 groups, which leave nothing to decide.
    """

    estimate: float
    low: float | None
    high: float | None
    groups: int
    images: int


def score_pixels(
    truth: Classes, predicted: Classes, classes: int, pixel_size_um: float | None = None
) -> dict[str, float]:
    """Score the pixels and outlines of one image, each metric averaged over the foreground classes.

    Parameters
    ----------
    truth, predicted : ndarray of uint8, shape (height, width)
        Class index per pixel; truth 255 is ignored.
    classes : int
        Number of foreground classes.
    pixel_size_um : float, optional
        Side of a pixel in micrometres; without it distances are in pixels.

    Returns
    -------
    dict
        ``dice``, ``iou``, ``mcc``, ``boundary_f1`` (2 pixels of tolerance), and ``hausdorff95`` in pixels
        or ``hausdorff95_um``; see `microseg.metrics` for what is empty.
    """
    counts = confusion(truth, predicted, classes)
    scores = {name: float(np.mean(metric(counts))) for name, metric in _PIXELS.items()}
    labels = range(1, classes + 1)
    distance = "hausdorff95_um" if pixel_size_um else "hausdorff95"
    outlines = [boundary_f1(truth, predicted, label=label) for label in labels]
    distances = [hausdorff95(truth, predicted, pixel_size_um=pixel_size_um, label=label) for label in labels]
    return scores | {"boundary_f1": float(np.mean(outlines)), distance: float(np.mean(distances))}


def score_objects(truth: Labels, predicted: Labels) -> dict[str, float]:
    """Score the objects of one image: ``ap`` (mean over IoU 0.50 to 0.95), ``ap50``, ``ap75`` and ``pq``.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (height, width)
        0 is background, every object has a number of its own.
    """
    return average_precision(truth, predicted) | {"pq": panoptic_quality(truth, predicted)["pq"]}


def means(table: Sequence[ImageScores]) -> dict[str, float]:
    """Return the mean of each metric over all images."""
    return {name: float(np.mean([one.scores[name] for one in table])) for name in table[0].scores}


def means_over_groups(table: Sequence[ImageScores]) -> dict[str, float]:
    """Return the mean of each metric over the groups' means, so that a large group weighs as a small one."""
    groups = [one.group for one in table]
    return {
        name: float(group_means([one.scores[name] for one in table], groups).mean())
        for name in table[0].scores
    }


def difference(own: Sequence[ImageScores], other: Sequence[ImageScores], metric: str) -> Difference:
    """Compare two sets of masks on the images that both have, groups as the first set names them.

    The interval is that of a t-test on the group means with groups - 1 degrees of freedom, as at the gate of
    the registry (`microseg.statistics.gate`), but two-sided: nobody is challenger here.

    Parameters
    ----------
    own, other
        Scores of images; a positive difference means that ``own`` scores higher.
    metric : str
        What is compared.

    Raises
    ------
    MicrosegError
        If they have no image in common.
    """
    known = {one.image: one.scores[metric] for one in other}
    pairs = [(one.scores[metric] - known[one.image], one.group) for one in own if one.image in known]
    if not pairs:
        raise MicrosegError("the two have no image in common; score both against the same truth")
    values, groups = zip(*pairs, strict=True)
    group = group_means(values, groups)
    estimate, count = float(group.mean()), len(group)
    if count < FEWEST_GROUPS:
        return Difference(estimate, None, None, count, len(pairs))
    reach = half_width(group, 0.025)
    return Difference(estimate, estimate - reach, estimate + reach, count, len(pairs))
