"""One image of any size, from its stream to its mask: begun, predicted in parts, finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import microseg
from microseg import storage
from microseg.data.streams import ImageStream, MaskStore, Plane, all_planes
from microseg.errors import MicrosegError
from microseg.serving.batch.files import SUFFIXES, mask_of, state_of, stem, workplace
from microseg.serving.batch.opening import Source
from microseg.serving.batch.options import PredictOptions
from microseg.serving.batch.publish import encoded_bytes, format_of, publish
from microseg.serving.batch.summary import Written
from microseg.serving.batch.table import TakesObjects
from microseg.serving.card import ModelCard
from microseg.serving.large import (
    CheckedPlane,
    Job,
    Plan,
    Wanted,
    label_and_measure,
    open_planes,
    plan,
    sampled,
    transforms,
)
from microseg.serving.segmenter import Segmenter
from microseg.serving.unlike import look_at


@dataclass(frozen=True)
class Begun:
    """A large image whose parts can be predicted now, here or elsewhere.

    Attributes
    ----------
    source : Source
        Where the image is.
    mask : str
        Where its mask goes, in the format ``kind``, a key of ``SUFFIXES``.
    origin : dict
        What makes results equal, see `MaskStore.open`.
    job, plan
        See `microseg.serving.large`.
    resumed : float
        Share of it that an earlier run had done.
    """

    source: Source
    mask: str
    kind: str
    origin: dict[str, Any]
    job: Job
    plan: Plan
    resumed: float


def begin(
    segmenter: Segmenter, source: Source, stream: ImageStream, target: str, options: PredictOptions
) -> Begun:
    """Choose strips and batches, measure what the preprocessing needs to know, and open the store.

    Parameters
    ----------
    segmenter : Segmenter
        The model.
    source : Source
        Where the image is.
    stream : ImageStream
        It, open.
    target : str
        The folder of the masks.
    options : PredictOptions
        What was asked for.

    Raises
    ------
    MicrosegError
        If the format cannot hold the mask, the bound of memory is too small or the image cannot be used.
    """
    kind = format_of(stream, options.format)
    method = segmenter.method if options.instances else None
    chosen = plan(segmenter, stream, Wanted(method, encoded_bytes(stream, kind)), options.max_memory)
    origin = _origin(segmenter, source, options)
    foreground = options.instances and segmenter.card.instances is not None
    store_at = (
        workplace(target) / f"{stem(source.name)}.{'predicted' if options.instances else 'mask'}.ome.zarr"
    )
    if kind == "ome-zarr" and not options.instances and not storage.is_remote(target):
        store_at = Path(mask_of(source.name, target, SUFFIXES[kind]))
    store = MaskStore.open(store_at, stream, "float32" if foreground else "uint8", origin)
    try:
        measured = transforms(segmenter.card, stream, open_planes(store))
    except MicrosegError:
        if not store.resumed:
            store.discard()
        raise
    job = Job(
        target=store_at,
        foreground=foreground,
        transforms=measured,
        batch_size=chosen.batch_size,
        tta=options.tta,
        flat=options.skip_flat,
    )
    return Begun(
        source, mask_of(source.name, target, SUFFIXES[kind]), kind, origin, job, chosen, store.fraction
    )


def finish(segmenter: Segmenter, stream: ImageStream, begun: Begun, table: TakesObjects | None) -> Written:
    """Put the mask at its place; where a table asks for objects, they are numbered and measured before.

    Parameters
    ----------
    segmenter : Segmenter
        The model.
    stream : ImageStream
        The image.
    begun : Begun
        All parts of it are predicted.
    table : TakesObjects, optional
        Takes the objects.
    """
    predicted = mask = MaskStore(begun.job.target, resumed=True)
    predicted.check()
    objects = larger = 0
    if table is not None:
        objects, larger, mask = _numbered(segmenter, stream, begun, predicted, table)
    publish(mask, begun.mask, begun.kind)
    if mask is not predicted:
        predicted.discard()
    height, width, _ = stream.shape
    planes = all_planes(stream.planes)
    return Written(
        mask=begun.mask,
        pixels=height * width * len(planes),
        unlike=_unlike(segmenter.card, stream, planes[0]),
        objects=objects,
        larger=larger,
        resumed=begun.resumed,
    )


def _numbered(
    segmenter: Segmenter, stream: ImageStream, begun: Begun, predicted: MaskStore, table: TakesObjects
) -> tuple[int, int, MaskStore]:
    """Tell the objects of all planes apart, in a store of their own."""
    name = begun.job.target.name.replace(".predicted.", ".objects.")
    labels = MaskStore.open(begun.job.target.with_name(name), stream, "uint32", begun.origin)
    objects = larger = 0
    for index in all_planes(stream.planes):
        plane = CheckedPlane(segmenter.card, stream, index)
        size = stream.pixel_size_um or segmenter.card.pixel_size_um
        found = label_and_measure(predicted, labels, segmenter.method, plane, index, size)
        table.add(_plane_name(begun.source.name, stream, index), found.tables)
        objects, larger = objects + found.objects, larger + found.larger
    return objects, larger, labels


def _plane_name(image: str, stream: ImageStream, index: Plane) -> str:
    """Return the file's name and, for a stack, the plane: ``name.tif[t=0,z=3]``."""
    name = image.rstrip("/").rpartition("/")[2]
    planes = ",".join(f"{axis}={number}" for axis, number in zip(stream.planes, index, strict=True))
    return f"{name}[{planes}]" if planes else name


def _unlike(card: ModelCard, stream: ImageStream, index: Plane) -> tuple[str, ...]:
    """Say how the image, or the first plane of a stack, differs from the training images."""
    return card.unlike(lambda: look_at(sampled(CheckedPlane(card, stream, index))), stream.pixel_size_um)


def _origin(segmenter: Segmenter, source: Source, options: PredictOptions) -> dict[str, Any]:
    """Return what makes results equal."""
    return {
        "model": segmenter.card.name,
        "model_digest": segmenter.digest,
        "microseg": microseg.__version__,
        "image": source.name,
        "image_state": state_of(source.name),
        "options": options.model_dump(mode="json", include={"instances", "tta", "skip_flat", "axes"}),
    }
