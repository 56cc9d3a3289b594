"""Masks, or numbered objects, for a folder of images, through the registered model."""

from __future__ import annotations

import csv
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from pydantic import Field

from microseg import storage
from microseg.config import Strict
from microseg.data.files import read_bytes
from microseg.data.images import check_suffix, decode_image, write_image
from microseg.errors import MicrosegError
from microseg.serving.objects import Table, as_uint16, measurements
from microseg.serving.segmenter import Segmenter
from microseg.serving.unlike import differences

OBJECTS = "objects.csv"


class _Written(NamedTuple):
    """One finished image: its pixels, its objects' measurements by column, how it is unlike others."""

    pixels: int
    table: Table
    unlike: tuple[str, ...]


class PredictSummary(Strict):
    """What a batch prediction did.

    ``masks`` are the written files; ``objects`` is the number of objects, where they were asked for;
    ``unlike`` maps an image that does not look like those of the training to sentences that say how, and
    ``failed`` one that could not be segmented to the reason; ``skipped`` are files that are no images.
    ``seconds`` counts reading, predicting and writing, not the loading of the model. ``seams`` says what
    tiles change of the model's predictions, where its card does.
    """

    masks: tuple[str, ...]
    objects: int | None = None
    failed: dict[str, str]
    skipped: tuple[str, ...]
    megapixels: float
    seconds: float
    seams: str = ""
    unlike: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def megapixels_per_second(self) -> float:
        """Speed over the images that were segmented."""
        return self.megapixels / self.seconds if self.seconds > 0 else 0.0


def load_segmenter(model_uri: str) -> Segmenter:
    """Load a model from MLflow.

    Parameters
    ----------
    model_uri : str
        Such as ``models:/NAME@champion``, ``models:/NAME/3`` or the path of a saved model.

    Raises
    ------
    MicrosegError
        If there is no such model or it was not made by microseg.
    """
    try:
        model = mlflow.pyfunc.load_model(model_uri).unwrap_python_model()
    except (MlflowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise MicrosegError(
            f"{model_uri}: cannot be loaded ({reason}); check the name and the alias"
        ) from error
    segmenter = getattr(model, "segmenter", None)
    if segmenter is None:
        raise MicrosegError(f"{model_uri}: not a microseg model; give one that 'microseg search' registered")
    return segmenter  # type: ignore[no-any-return]


def predict_folder(
    model_uri: str,
    source: str,
    target: str,
    *,
    instances: bool = False,
    tta: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> PredictSummary:
    """Write a mask, PNG, beside the same stem, for every image of a folder.

    An image that cannot be used does not stop the others; it is in the summary's ``failed``.

    Parameters
    ----------
    model_uri : str
        See `load_segmenter`.
    source : str
        A folder or one image: local path or ``s3://`` URI. Folders inside it are not entered.
    target : str
        The folder for the masks, a path or URI, not the source's. A mask appears only as a whole.
    instances : bool
        Write 16-bit label images (0 background, objects from 1) as the masks, and ``objects.csv`` with the
        measurements of every object of every image, see `microseg.serving.objects.measurements`.
    tta : bool
        Average over the 8 symmetries of a square, see `Segmenter.probability`.
    progress : callable, optional
        Called with the number of finished images and of all images.

    Raises
    ------
    MicrosegError
        Before anything is predicted: if there is no image, if two images would have the same mask,
        if masks would replace images, or if the model cannot be loaded.
    """
    target = storage.normalise(target)
    images, skipped = _images(storage.normalise(source))
    _check_targets(images, target)
    segmenter = load_segmenter(model_uri)
    written: dict[str, _Written] = {}
    failed: dict[str, str] = {}
    started = time.perf_counter()
    for number, image in enumerate(images, start=1):
        try:
            written[image] = _predict_one(segmenter, image, _mask_of(image, target), instances, tta)
        except MicrosegError as error:
            failed[image] = str(error).removeprefix(f"{image}: ")
        if progress is not None:
            progress(number, len(images))
    if instances and written:
        _write_table(written, storage.join(target, OBJECTS))
    return PredictSummary(
        masks=tuple(_mask_of(image, target) for image in written),
        objects=sum(len(one.table["label"]) for one in written.values()) if instances else None,
        unlike={image: one.unlike for image, one in written.items() if one.unlike},
        failed=failed,
        skipped=skipped,
        megapixels=sum(one.pixels for one in written.values()) / 1e6,
        seconds=time.perf_counter() - started,
        seams=segmenter.card.seams,
    )


def _images(source: str) -> tuple[list[str], tuple[str, ...]]:
    files = storage.listing(source)
    images = [file for file in files if check_suffix(Path(PurePosixPath(file).name))]
    if not images:
        raise MicrosegError(f"{source}: no image among {len(files)} file(s); give PNG, TIFF or JPEG files")
    return images, tuple(file for file in files if file not in set(images))


def _mask_of(image: str, target: str) -> str:
    return storage.join(target, f"{PurePosixPath(image).stem}.png")


def _check_targets(images: list[str], target: str) -> None:
    masks = Counter(_mask_of(image, target) for image in images)
    mask, count = masks.most_common(1)[0]
    if count > 1:
        raise MicrosegError(f"{mask}: {count} images differ only in their suffix; rename one of them")
    overwritten = set(masks) & set(images)
    if overwritten:
        raise MicrosegError(
            f"{min(overwritten)}: the mask would replace the image; give another output folder"
        )
    if not storage.is_remote(target):
        try:
            Path(target).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MicrosegError(
                f"{target}: cannot be made ({error.strerror}); give a writable folder"
            ) from error


def _predict_one(segmenter: Segmenter, image: str, mask: str, instances: bool, tta: bool) -> _Written:
    """Segment one file into another."""
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        data = read_bytes(storage.fetch(image, Path(folder) / "in"))
        array = decode_image(data, image, segmenter.card.axes)
        local = Path(folder) / "mask.png"
        table: Table = {}
        if instances:
            labels = segmenter.objects(array, tta)
            write_image(local, as_uint16(labels))
            table = measurements(labels, segmenter.checked(array), segmenter.card.pixel_size_um)
        else:
            write_image(local, segmenter.segment(array, tta))
        storage.store(local, mask)
    seen = segmenter.card.appearance
    unlike = tuple(differences(seen, array)) if seen else ()
    return _Written(int(array.shape[0] * array.shape[1]), table, unlike)


def _write_table(written: Mapping[str, _Written], target: str) -> None:
    """Write the objects of all images as one CSV; its header is there also without any object."""
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        local = Path(folder) / OBJECTS
        with local.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *next(iter(written.values())).table])
            for image, one in written.items():
                name = PurePosixPath(image).name
                writer.writerows((name, *row) for row in zip(*one.table.values(), strict=True))
        storage.store(local, target)
