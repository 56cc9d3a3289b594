"""A decision as one HTML page: numbers, differences by group, and the images that tell most."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from microseg import pages
from microseg.pages import BLUE, GREY, ORANGE
from microseg.registry.decision import Decision, ImageScore, by_group
from microseg.registry.sentences import sentences

_ROWS = 60  # groups in the figure: more cannot be read, and the table has all


class Overlay(NamedTuple):
    """A picture of one image, (height, width, 3) uint8, and why it is shown."""

    score: ImageScore
    caption: str
    picture: NDArray[np.uint8]


def page(decision: Decision, scores: Sequence[ImageScore], overlays: Sequence[Overlay]) -> str:
    """Render a decision as one HTML page that opens without a network."""
    environment = pages.environment()
    environment.filters["png"] = _png
    return environment.get_template("decision.html").render(
        decision=decision,
        sentences=sentences(decision),
        groups=by_group(scores),
        figure=differences(decision, scores),
        overlays=overlays,
    )


def differences(decision: Decision, scores: Sequence[ImageScore]) -> str:
    """Draw each image's difference by group as SVG, the groups' means as bars, and the interval below."""
    groups = by_group(scores)[:_ROWS]
    figure = Figure(figsize=(8, 1.3 + 0.3 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for height, group in enumerate(reversed(groups), 1):
        points = [one.difference for one in scores if one.group == group.group]
        axes.plot(points, [height] * len(points), "o", color=GREY, markersize=5, alpha=0.8)
        axes.plot([group.challenger - group.champion], [height], "|", color=BLUE, markersize=14, mew=2.5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(decision.least, color=ORANGE, linewidth=1, linestyle="--")
    axes.plot([decision.estimate], [0], "D", color=BLUE, markersize=7)
    if decision.low is not None:
        axes.plot([decision.low, decision.estimate], [0, 0], "|-", color=BLUE, linewidth=2.5, markersize=14)
    names = [f"mean of {decision.groups} groups", *(group.group for group in reversed(groups))]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel(f"{decision.metric}, challenger less {decision.rival} (dashed: the gain asked for)")
    axes.grid(axis="x", alpha=0.3)
    return pages.svg(figure)


def _png(picture: NDArray[np.uint8]) -> str:
    """Return a picture as the address of an image that holds itself."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return pages.data_address("png", buffer.getvalue())
