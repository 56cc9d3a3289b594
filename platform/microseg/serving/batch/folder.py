"""Masks, or numbered objects, for a folder of images, through the registered model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from microseg import storage
from microseg.errors import MicrosegError
from microseg.serving.batch.files import check_targets, images_of
from microseg.serving.batch.image import Watch, predict_image
from microseg.serving.batch.loading import load_segmenter
from microseg.serving.batch.options import PLAIN, PredictOptions
from microseg.serving.batch.summary import PredictSummary, Written
from microseg.serving.batch.table import OBJECTS, ObjectTable

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
    segmenter = load_segmenter(model_uri)
    written: dict[str, Written] = {}
    failed: dict[str, str] = {}
    started = time.perf_counter()
    with ExitStack() as stack:
        table = stack.enter_context(ObjectTable()) if options.instances else None
        for number, image in enumerate(images):
            watch = Watch(_share(progress, number, len(images)), note)
            try:
                written[image] = predict_image(segmenter, image, target, options, table, watch)
            except MicrosegError as error:
                failed[image] = str(error).removeprefix(f"{image}: ")
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


def _share(progress: Progress, finished: int, images: int) -> Callable[[float], None]:
    """Return what tells the progress of one image as that of all."""
    return lambda share: progress(finished + share, images)
