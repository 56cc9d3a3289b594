"""Masks, or numbered objects, for a folder of images, through the registered model."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing

from microseg import storage
from microseg.errors import MicrosegError
from microseg.serving.batch.files import check_targets, images_of
from microseg.serving.batch.image import Watch, predict_image
from microseg.serving.batch.loading import load_segmenter
from microseg.serving.batch.options import PLAIN, PredictOptions, Request
from microseg.serving.batch.summary import Outcome, PredictSummary, Written
from microseg.serving.batch.table import OBJECTS, ObjectTable
from microseg.serving.segmenter import Segmenter

Progress = Callable[[float, int], None]


def predict_folder(
    model_uri: str,
    source: str,
    target: str,
    options: PredictOptions = PLAIN,
    progress: Progress = lambda done, images: None,
    note: Callable[[str], None] = lambda sentence: None,
) -> PredictSummary:
    """Write a mask under the same stem for every image of a folder.

    An image that cannot be used does not stop the others; it is in the summary's ``failed``. Images of more
    than `microseg.serving.batch.image.SMALL` pixels are predicted in strips: memory does not grow with
    them, and interrupted ones go on where they stopped.

    Parameters
    ----------
    model_uri : str
        See `load_segmenter`.
    source : str
        A folder or one image: local path or ``s3://`` URI. Folders inside it are not entered, but for
        those that are OME-Zarr images.
    target : str
        The folder for the masks, a path or URI, not the source's. A mask appears only as a whole. With
        ``instances`` these are numbered objects (0 background), and ``objects.csv`` has the measurements of
        every object of every image, see `microseg.instances.measurements`.
    options : PredictOptions
        What is wanted.
    progress : callable
        Called with the number of finished images, with the share of one that is begun, and of all images.
    note : callable
        Called with what there is to know before a large image is predicted: the memory that it takes.

    Raises
    ------
    MicrosegError
        Before anything is predicted: if there is no image, if two images would have the same mask,
        if masks would replace images, or if the model cannot be loaded.
    """
    target = storage.normalise(target)
    images, skipped = images_of(storage.normalise(source))
    check_targets(images, target)
    request = Request(model_uri, tuple(images), target, options)
    segmenter = load_segmenter(model_uri)
    written: dict[str, Written] = {}
    failed: dict[str, str] = {}
    started = time.perf_counter()
    with ExitStack() as stack:
        table = stack.enter_context(ObjectTable()) if options.instances else None
        predict = _on_cluster if options.ray else _here
        outcomes = predict(
            request, segmenter, table, lambda number: _watch(progress, note, number, len(images))
        )
        stack.enter_context(closing(outcomes))
        for number, (image, outcome) in enumerate(zip(images, outcomes, strict=True)):
            if isinstance(outcome, MicrosegError):
                failed[image] = str(outcome).removeprefix(f"{image}: ")
            else:
                written[image] = outcome
            progress(number + 1, len(images))
        if table is not None:
            table.store(storage.join(target, OBJECTS))
    return PredictSummary(
        masks=tuple(one.mask for one in written.values()),
        objects=sum(one.objects for one in written.values()) if options.instances else None,
        larger={image: one.larger for image, one in written.items() if one.larger},
        unlike={image: one.unlike for image, one in written.items() if one.unlike},
        failed=failed,
        skipped=skipped,
        resumed={image: one.resumed for image, one in written.items() if one.resumed},
        megapixels=sum(one.pixels for one in written.values()) / 1e6,
        seconds=time.perf_counter() - started,
        seams=segmenter.card.seams,
    )


def _watch(progress: Progress, note: Callable[[str], None], finished: int, images: int) -> Watch:
    """Return who is told of one image, when so many are finished."""
    return Watch(lambda share: progress(finished + share, images), note)


def _here(
    request: Request, segmenter: Segmenter, table: ObjectTable | None, watch: Callable[[int], Watch]
) -> Generator[Outcome]:
    """Predict one image after the other in this process."""
    for number, image in enumerate(request.images):
        try:
            outcome: Outcome = predict_image(
                segmenter, image, request.target, request.options, table, watch(number)
            )
        except MicrosegError as error:
            outcome = error
        yield outcome


def _on_cluster(
    request: Request, segmenter: Segmenter, table: ObjectTable | None, watch: Callable[[int], Watch]
) -> Generator[Outcome]:
    """Predict by workers of Ray, whose import takes seconds."""
    from microseg.serving.batch.cluster import predict_on_cluster

    return predict_on_cluster(request, segmenter, table, watch)
