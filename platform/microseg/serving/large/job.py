"""One large image: what its prediction needs to know, and parts of it that can be predicted anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from microseg.data.preprocess import Transform, fit
from microseg.data.streams import CHUNK, ImageStream, MaskStore, Plane, all_planes
from microseg.instances import foreground_of
from microseg.serving.card import ModelCard
from microseg.serving.large.memory import Plan
from microseg.serving.large.planes import CheckedPlane, Prepared
from microseg.serving.masks import Probability, to_mask
from microseg.serving.segmenter import Segmenter
from microseg.tiling import Region


@dataclass(frozen=True)
class Job:
    """A large image that is being predicted.

    Attributes
    ----------
    target : Path
        Of the `MaskStore` that takes the mask or the foreground's probability.
    foreground : bool
        Whether it is the latter, from which objects are to be told apart.
    transforms : dict
        The preprocessing of every plane that is not done yet.
    batch_size, tta, flat
        See `Segmenter.rows`.
    """

    target: Path
    foreground: bool
    transforms: dict[Plane, Transform]
    batch_size: int
    tta: bool
    flat: float

    def encoded(self, probability: Probability, threshold: float) -> NDArray[Any]:
        """Return what is stored of a probability map, (height, width)."""
        return foreground_of(probability) if self.foreground else to_mask(probability, threshold)


class Part(NamedTuple):
    """A part of a plane, in whole blocks of the store."""

    plane: Plane
    region: Region

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        rows, columns = self.region
        return int((rows.stop - rows.start) * (columns.stop - columns.start))


def transforms(card: ModelCard, image: ImageStream, planes: list[Plane]) -> dict[Plane, Transform]:
    """Measure what the preprocessing of each plane needs to know, in passes over the whole of it."""
    component = card.config.preprocess
    return {plane: fit(component, CheckedPlane(card, image, plane).bands) for plane in planes}


def open_planes(store: MaskStore) -> list[Plane]:
    """Return the planes of which something is not done yet."""
    rows, columns = store.shape
    whole = slice(0, rows), slice(0, columns)
    planes = all_planes(store.planes)
    return [plane for plane in planes if not store.done(*whole, plane)]


def parts(store: MaskStore, plan: Plan, height: int | None = None) -> Iterator[Part]:
    """Yield what is not done yet: strips from top to bottom, or pieces of them.

    Parameters
    ----------
    store : MaskStore
        Knows what is done.
    plan : Plan
        Has the strips' width.
    height : int, optional
        Rows of a part at most, a multiple of `CHUNK`. Every part predicts the tiles at its borders anew.
    """
    rows, columns = store.shape
    for plane in open_planes(store):
        for left in range(0, columns, plan.strip):
            strip = slice(left, min(left + plan.strip, columns))
            open_rows = [
                slice(top, min(top + CHUNK, rows))
                for top in range(0, rows, CHUNK)
                if not store.done(slice(top, min(top + CHUNK, rows)), strip, plane)
            ]
            for run in _runs(open_rows, height or rows):
                yield Part(plane, (run, strip))


def _runs(rows: list[slice], longest: int) -> Iterator[slice]:
    """Join neighbours, up to so many rows."""
    run: slice | None = None
    for one in rows:
        if run and run.stop == one.start and one.stop - run.start <= longest:
            run = slice(run.start, one.stop)
            continue
        if run:
            yield run
        run = one
    if run:
        yield run


def predict_part(
    segmenter: Segmenter,
    image: ImageStream,
    job: Job,
    part: Part,
    advance: Callable[[int], None] = lambda pixels: None,
) -> None:
    """Predict a part of an image and write it, a row of blocks as soon as it is whole.

    Parameters
    ----------
    segmenter : Segmenter
        The model.
    image : ImageStream
        The image.
    job : Job
        What else is to be known.
    part : Part
        What to predict.
    advance : callable
        Is given the pixels of every row of blocks that was written.

    Raises
    ------
    MicrosegError
        If the image cannot be read or used there.
    """
    store = MaskStore(job.target, resumed=True)
    checked = CheckedPlane(segmenter.card, image, part.plane)
    image.keep(part.region[1].stop - part.region[1].start + 2 * segmenter.grid.tile)
    prepared = Prepared(segmenter.card, checked, job.transforms[part.plane])
    slabs = segmenter.rows(prepared, part.region, batch_size=job.batch_size, tta=job.tta, flat=job.flat)
    encoded = (job.encoded(slab, segmenter.card.config.threshold) for slab in slabs)
    for rows, values in _in_blocks(encoded, part.region[0]):
        store.write(values, rows, part.region[1], part.plane)
        advance(values.size)


def _in_blocks(slabs: Iterator[NDArray[Any]], rows: slice) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Gather slabs of any heights to rows of blocks."""
    pending: list[NDArray[Any]] = []
    start = rows.start
    for slab in slabs:
        while len(slab):
            room = min(start + CHUNK, rows.stop) - start - sum(map(len, pending))
            pending.append(slab[:room])
            if len(slab) >= room:
                block = np.concatenate(pending)
                yield slice(start, start + len(block)), block
                pending, start = [], start + len(block)
            slab = slab[room:]
