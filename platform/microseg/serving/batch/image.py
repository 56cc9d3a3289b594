"""One image: in one piece where it is small, else in strips."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from numpy.typing import NDArray

from microseg import storage
from microseg.data.images import READABLE, write_image
from microseg.data.streams import ImageStream, MaskStore
from microseg.errors import MicrosegError
from microseg.instances import measurements
from microseg.serving.batch.files import SUFFIXES, mask_of
from microseg.serving.batch.large import Begun, begin, finish, indices
from microseg.serving.batch.opening import Source, open_source
from microseg.serving.batch.options import PredictOptions
from microseg.serving.batch.publish import format_of
from microseg.serving.batch.summary import Written
from microseg.serving.batch.table import TakesObjects
from microseg.serving.channels import checked
from microseg.serving.large import parts, predict_part
from microseg.serving.objects import as_uint16
from microseg.serving.segmenter import Segmenter
from microseg.serving.unlike import differences, look, scale_difference

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
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder, _named(image, folder):
        source = Source(image, _local(image, Path(folder)), options.axes or segmenter.card.axes)
        with open_source(source) as stream:
            if is_small(stream, options):
                return predict_whole(
                    segmenter, source, stream, mask_of(image, target, SUFFIXES["png"]), options.tta, table
                )
            begun = begin(segmenter, source, stream, target, options)
            watch.note(str(begun.plan))
            _predict_parts(segmenter, stream, begun, watch)
            return finish(segmenter, stream, begun, table)


@contextmanager
def _named(image: str, folder: str) -> Iterator[None]:
    """Let errors name a downloaded image by its address."""
    try:
        yield
    except MicrosegError as error:
        name = PurePosixPath(image).name
        raise MicrosegError(str(error).replace(str(Path(folder) / name), image)) from error


def is_small(stream: ImageStream, options: PredictOptions) -> bool:
    """Say whether an image is predicted in one piece: nothing of what strips are for is wanted."""
    height, width, _ = stream.shape
    streamed = options.max_memory or options.skip_flat or format_of(stream, options.format) != "png"
    return not streamed and height * width <= SMALL


def predict_whole(
    segmenter: Segmenter,
    source: Source,
    stream: ImageStream,
    mask: str,
    tta: bool,
    table: TakesObjects | None,
) -> Written:
    """Write the mask of a small image as PNG.

    Parameters
    ----------
    segmenter, source, stream, table
        See `predict_image`.
    mask : str
        Its address.
    tta : bool
        See `Segmenter.probability`.
    """
    height, width, _ = stream.shape
    array = stream.read(slice(0, height), slice(0, width))
    objects = 0
    if table is None:
        _store(segmenter.segment(array, tta), mask)
    else:
        labels = segmenter.objects(array, tta)
        _store(as_uint16(labels), mask)
        size = stream.pixel_size_um or segmenter.card.pixel_size_um
        table.add(
            PurePosixPath(source.name).name, [measurements(labels, checked(array, segmenter.card), size)]
        )
        objects = int(labels.max(initial=0))
    seen = segmenter.card.appearance
    unlike = differences(seen, look(array)) if seen else []
    other_scale = scale_difference(segmenter.card.pixel_size_um, stream.pixel_size_um)
    return Written(mask, height * width, (*unlike, *other_scale), objects)


def _store(mask: NDArray[Any], target: str) -> None:
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        local = Path(folder) / "mask.png"
        write_image(local, mask)
        storage.store(local, target)


def _predict_parts(segmenter: Segmenter, stream: ImageStream, begun: Begun, watch: Watch) -> None:
    height, width, _ = stream.shape
    total = height * width * len(indices(stream))
    done = begun.resumed * total

    def advance(pixels: int) -> None:
        nonlocal done
        done += pixels
        watch.share(done / total)

    for part in parts(MaskStore(begun.job.target, resumed=True), begun.plan):
        predict_part(segmenter, stream, begun.job, part, advance)


def _local(image: str, folder: Path) -> Path:
    """Return an image's path; a remote one is downloaded."""
    if not storage.is_remote(image):
        return Path(image)
    is_file = PurePosixPath(image).suffix.lower() in READABLE
    return storage.fetch(image, folder) if is_file else storage.fetch_folder(image, folder)
