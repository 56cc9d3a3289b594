"""Masks, or numbered objects, for a folder of images, through the registered model."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing

from microseg import storage
from microseg.errors import MicrosegError, of_the_system
from microseg.serving.batch.files import alone, check_targets, images_of, workplace
from microseg.serving.batch.finished import Finished
from microseg.serving.batch.image import Watch, explained, predict_image
from microseg.serving.batch.loading import load_segmenter
from microseg.serving.batch.options import PLAIN, PredictOptions, Request
from microseg.serving.batch.summary import Outcome, PredictSummary, Written
from microseg.serving.batch.table import OBJECTS, ObjectTable
from microseg.serving.segmenter import Segmenter

FINISHED = ".microseg-predict.jsonl"

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
    them. An interrupted run goes on where it stopped, also within a large image.

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
        if the masks' folder holds the images or is written by another run, or if the model cannot be loaded.
    """
    target = storage.normalise(target)
    images, skipped = images_of(storage.normalise(source))
    check_targets(images, target)
    segmenter = load_segmenter(model_uri)
    started = time.perf_counter()
    request = Request(model_uri, tuple(images), target, options)
    with explained(target), alone(workplace(target)):
        outcomes = _outcomes(request, segmenter, progress, _once(note))
    written = {image: one for image, one in outcomes.items() if isinstance(one, Written)}
    failed = {image: str(one) for image, one in outcomes.items() if isinstance(one, MicrosegError)}
    return PredictSummary(
        masks=tuple(one.mask for one in written.values()),
        objects=sum(one.objects for one in written.values()) if options.instances else None,
        larger={image: one.larger for image, one in written.items() if one.larger},
        unlike={image: one.unlike for image, one in written.items() if one.unlike},
        failed={image: reason.removeprefix(f"{image}: ") for image, reason in failed.items()},
        skipped=skipped,
        resumed={image: one.resumed for image, one in written.items() if one.resumed},
        megapixels=sum(one.pixels * (1 - one.resumed) for one in written.values()) / 1e6,
        seconds=time.perf_counter() - started,
        seams=segmenter.card.seams,
    )


def _outcomes(
    request: Request, segmenter: Segmenter, progress: Progress, note: Callable[[str], None]
) -> dict[str, Outcome]:
    """Predict what an interrupted run has left, and return what became of every image."""
    images, target, place = request.images, request.target, workplace(request.target)
    unfinished = place / f".{OBJECTS}.part"
    finished = Finished(place / FINISHED, request, segmenter.digest, unfinished)
    table = ObjectTable(unfinished, finished.table) if request.options.instances else None
    outcomes: dict[str, Outcome] = dict(finished.images)
    left = tuple(image for image in images if image not in outcomes)

    def watch(number: int) -> Watch:
        before = len(images) - len(left) + number
        return Watch(lambda share: progress(before + share, len(images)), note)

    predict, kept = _on_cluster if request.options.ray else _here, finished.table
    with closing(predict(request._replace(images=left), segmenter, table, watch)) as predicted:
        for number, (image, outcome) in enumerate(zip(left, predicted, strict=True)):
            outcomes[image] = outcome
            if isinstance(outcome, Written):
                finished.add(image, outcome, table.size if table else 0)
                kept = table.size if table else 0
            elif table is not None:
                table.shorten(kept)
            watch(number).share(1)
    if table is not None:
        table.store(storage.join(target, OBJECTS))
    if not any(isinstance(one, MicrosegError) and of_the_system(one) for one in outcomes.values()):
        finished.clear()
        unfinished.unlink(missing_ok=True)
    return {image: outcomes[image] for image in images}


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """Return what tells each sentence once: images of one size take the same memory."""
    told: set[str] = set()

    def tell(sentence: str) -> None:
        if sentence not in told:
            told.add(sentence)
            note(sentence)

    return tell


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
