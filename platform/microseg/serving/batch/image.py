"""One image: in one piece where it is small, else in strips."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from microseg import storage
from microseg.data.images import READABLE
from microseg.data.streams import ImageStream, MaskStore, all_planes, frugal
from microseg.errors import MicrosegError
from microseg.instances import measurements
from microseg.serving.batch.large import Begun, begin, finish
from microseg.serving.batch.opening import MOST_PIXELS, Source, open_source
from microseg.serving.batch.options import PredictOptions
from microseg.serving.batch.publish import put
from microseg.serving.batch.summary import Written
from microseg.serving.batch.table import TakesObjects
from microseg.serving.card import ModelCard
from microseg.serving.channels import checked
from microseg.serving.large import parts, predict_part
from microseg.serving.masks import to_mask
from microseg.serving.segmenter import Segmenter
from microseg.serving.unlike import look

SMALL = 2**22  # pixels up to which an image is predicted in one piece


class Watch(NamedTuple):
    """Who is told how far an image is, as a share from 0 to 1, and what there is to know beforehand."""

    share: Callable[[float], None] = lambda share: None
    note: Callable[[str], None] = lambda sentence: None


def predict_image(
    segmenter: Segmenter,
    image: str,
    target: str,
    options: PredictOptions,
    table: TakesObjects | None = None,
    watch: Watch | None = None,
) -> Written:
    """Write the mask of one image, or its numbered objects.

    Parameters
    ----------
    segmenter : Segmenter
        The model.
    image : str
        Its address, a path or ``s3://`` URI.
    target : str
        The folder of the masks.
    options : PredictOptions
        What was asked for.
    table : TakesObjects, optional
        Takes the objects; given where the options ask for them.
    watch : Watch, optional
        Who is told how far it is.

    Raises
    ------
    MicrosegError
        If the image cannot be used. What is done of a large one is kept for the next attempt.
    """
    watch = watch or Watch()
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder, explained(image, folder), frugal():
        source = Source(image, _local(image, Path(folder)), options.axes or segmenter.card.axes)
        with open_source(source) as stream:
            if not in_strips(segmenter.card, stream, options):
                return predict_whole(segmenter, source, stream, target, options, table)
            begun = begin(segmenter, source, stream, target, options)
            watch.note(str(begun.plan))
            _predict_parts(segmenter, stream, begun, watch)
            return finish(segmenter, stream, begun, table)


@contextmanager
def explained(image: str, folder: str = "") -> Iterator[None]:
    """Let errors be one line each, which names an image that is downloaded to a folder by its address."""
    try:
        yield
    except MicrosegError as error:
        if not folder:
            raise
        raise MicrosegError(str(error).replace(_copy(image, folder), image)) from error
    except OSError as error:
        reason = f"{error.filename or image}: {error.strerror or error}"
        reason = reason.replace(_copy(image, folder), image) if folder else reason
        raise MicrosegError(f"{reason}; what is done is kept: run it again") from error


def _copy(image: str, folder: str) -> str:
    """Return where an image is downloaded to."""
    return str(Path(folder) / PurePosixPath(image).name)


def in_strips(card: ModelCard, stream: ImageStream, options: PredictOptions) -> bool:
    """Say whether an image is predicted in strips: it is large, a stack, or bounds are asked for.

    Where the preprocessing needs all of an image at once, that is a PNG's limit.
    """
    height, width, _ = stream.shape
    if stream.planes or options.max_memory or options.skip_flat:
        return True
    undivided = card.config.preprocess.params.get("clahe") is not None
    return height * width > (MOST_PIXELS if undivided else SMALL)


def predict_whole(
    segmenter: Segmenter,
    source: Source,
    stream: ImageStream,
    target: str,
    options: PredictOptions,
    table: TakesObjects | None,
) -> Written:
    """Write the mask of an image that is read and predicted in one piece.

    Parameters
    ----------
    segmenter, target, options, table
        See `predict_image`.
    source, stream
        The image.
    """
    height, width, _ = stream.shape
    array = stream.read(slice(0, height), slice(0, width))
    card = segmenter.card
    probability = segmenter.probability(array, options.tta)
    objects = 0
    if table is None:
        mask = put(to_mask(probability, card.config.threshold), source, stream, target, options)
    else:
        labels = segmenter.label(probability)
        objects = int(labels.max(initial=0))
        mask = put(labels, source, stream, target, options)
        measured = measurements(labels, checked(array, card), stream.pixel_size_um or card.pixel_size_um)
        table.add(PurePosixPath(source.name).name, [measured])
    unlike = card.unlike(lambda: look(array), stream.pixel_size_um)
    return Written(mask, height * width, unlike, objects)


def _predict_parts(segmenter: Segmenter, stream: ImageStream, begun: Begun, watch: Watch) -> None:
    height, width, _ = stream.shape
    total = height * width * len(all_planes(stream.planes))
    done = begun.resumed * total

    def advance(pixels: int) -> None:
        nonlocal done
        done += pixels
        watch.share(done / total)

    store = MaskStore(begun.job.target, resumed=True)
    try:
        for part in parts(store, begun.plan):
            predict_part(segmenter, stream, begun.job, part, advance)
    except MicrosegError:
        if not store.fraction:  # nothing of it is worth keeping
            store.discard()
        raise


def _local(image: str, folder: Path) -> Path:
    """Return an image's path; a remote one is downloaded."""
    if not storage.is_remote(image):
        return Path(image)
    is_file = PurePosixPath(image).suffix.lower() in READABLE
    return storage.fetch(image, folder) if is_file else storage.fetch_folder(image, folder)
