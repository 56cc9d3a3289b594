"""Score the masks of an outside tool against the truth, keep that in MLflow, and compare two such scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from mlflow import MlflowClient
from pydantic import Field

from microseg import folds
from microseg.config import Strict, did_you_mean
from microseg.data.arrays import instance_array, target_array
from microseg.data.files import file_hash, read_bytes
from microseg.data.images import Array
from microseg.data.manifest import Item, Manifest
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.importing.hold_out_scores import MODELS, of_version
from microseg.importing.masks import Meaning, match, meaning, open_truth, read_mask
from microseg.metrics import better
from microseg.scoring import Difference, ImageScores, difference, score_objects, score_pixels
from microseg.storage import cache, home
from microseg.storage.mirror import local
from microseg.tracking import store
from microseg.tracking.scores import FileHashes, Scored, record, recorded

PART = "microseg.part"


class ScoreRequest(Strict):
    """What is to be scored, and as what it is kept.

    ``truth`` and ``prediction`` are local paths or ``s3://`` URIs. ``part`` of a data set counts: all images,
    or those that its searches have set aside; ``suffix`` ends the names of the files that count;
    ``threshold`` is where foreground begins in the predicted masks.
    """

    truth: str | Path
    prediction: str | Path
    name: str = Field(min_length=1)
    options: DataOptions = DataOptions()
    part: Literal["all", "holdout"] = "all"
    suffix: str = ""
    threshold: float | None = Field(default=None, gt=0.0)
    missing_as_empty: bool = False


def score(request: ScoreRequest) -> Scored:
    """Score every predicted mask, and keep the scores as a run of their own in MLflow.

    Parameters
    ----------
    request : ScoreRequest
        The truth, the predicted masks, and how to read them.

    Raises
    ------
    MicrosegError
        If masks are missing, do not fit the truth, or the name belongs to other scores.
    """
    truth = open_truth(request.truth, request.options, cache())
    items = _part(truth, request.part)
    found, extra = match(local(request.prediction, cache()), items, request.suffix)
    missing = [item.name for item in items if item.name not in found]
    if missing and not request.missing_as_empty:
        raise MicrosegError(
            f"{request.prediction}: no mask of '{missing[0]}' ({len(missing)} of {len(items)} are missing); "
            "add them, or count them as empty by --missing-as-empty"
        )
    read = meaning(list(found.values()), truth, request.threshold)
    table = tuple(_score_item(item, truth, found.get(item.name), read) for item in items)
    hashes = tuple(
        FileHashes(_hash(item.mask), _hash(found[item.name]) if item.name in found else "") for item in items
    )
    tags = {PART: request.part, "microseg.data": truth.name}
    scored = Scored(request.name, truth.digest, table, hashes, _notes(truth, read, missing, extra))
    return record(store.connect(), scored, tags)


def _part(truth: Manifest, part: str) -> Sequence[Item]:
    """Return the images that count; the hold-out is the one there is, none is drawn for a comparison."""
    if part == "all":
        return truth.items
    file = folds.splits_file(truth, home())
    known = file.is_file() or any(item.split == "test" for item in truth.items)
    held = folds.split_holdout(truth, 1.0, 0, file)[1].items if known else ()
    if not held:
        raise MicrosegError(
            f"{truth.source}: no hold-out is known (not in {file}): a search sets one aside, or a column "
            "'split' says test; or score all images by --part all"
        )
    return held


def _score_item(item: Item, truth: Manifest, file: Path | None, read: Meaning) -> ImageScores:
    """Score one image; a mask that is missing is an empty one."""
    target = np.asarray(target_array(item, truth, cache()))
    mask: Array = np.zeros(target.shape, np.uint8) if file is None else read_mask(file)
    if mask.shape != target.shape:
        raise MicrosegError(
            f"{file}: {mask.shape[1]} x {mask.shape[0]} pixels, but the truth of '{item.name}' has "
            f"{target.shape[1]} x {target.shape[0]}; give masks of the same size"
        )
    predicted = (mask if read.classes else mask >= read.threshold).astype(np.uint8)
    scores = score_pixels(target, predicted, max(len(truth.classes) - 1, 1), truth.pixel_size_um)
    if read.objects:
        scores |= score_objects(np.asarray(instance_array(item, truth, cache())), mask)
    return ImageScores(item.name, item.group, scores)


def _hash(file: Path) -> str:
    return file_hash(read_bytes(file))


def _notes(truth: Manifest, read: Meaning, missing: Sequence[str], extra: Sequence[Path]) -> tuple[str, ...]:
    notes = []
    if missing:
        notes.append(f"{len(missing)} images have no predicted mask and count as empty ('{missing[0]}')")
    if extra:
        notes.append(f"{len(extra)} predicted masks have no truth here and do not count ({extra[0].name})")
    if truth.mask_kind == "instance" and not read.objects:
        notes.append("the predicted masks tell no objects apart: foreground is scored, objects are not")
    return tuple(notes)


def rival(client: MlflowClient, name: str) -> Scored:
    """Return the scores to compare with: those kept under a name, or a registered version's on its hold-out.

    Raises
    ------
    MicrosegError
        If there are none.
    """
    return of_version(client, name) if name.startswith(MODELS) else recorded(client, name)


def compare(own: Scored, other: Scored, metric: str = "dice") -> Difference:
    """Compare two sets of scores on the images that both have; see `microseg.scoring.difference`.

    Raises
    ------
    MicrosegError
        If one of them lacks the metric, or they were not scored against the same truth.
    """
    names = own.table[0].scores.keys() & other.table[0].scores.keys()
    if metric not in names:
        raise MicrosegError(f"--metric '{metric}' is not in both scores; {did_you_mean(metric, names)}")
    if not other.files and other.data != own.data:
        raise MicrosegError(
            f"'{own.name}' and '{other.name}' have other images or masks as their truth; give by --truth the "
            "data set of the model's study"
        )
    truths = {one.image: hashes.truth for one, hashes in zip(other.table, other.files, strict=False)}
    for one, hashes in zip(own.table, own.files, strict=True):
        if truths.get(one.image, hashes.truth) != hashes.truth:
            raise MicrosegError(
                f"'{one.image}' has one truth in '{own.name}' and another in '{other.name}'; score both "
                "against the same"
            )
    return difference(own.table, other.table, metric)


def sentence(own: Scored, other: Scored, metric: str = "dice") -> str:
    """Say what a comparison of two sets of scores shows, claiming no more than its groups allow."""
    found = compare(own, other, metric)
    over = f"{found.images} images, each taken for a group of its own"
    if own.grouped:
        over = f"{found.groups} groups, {found.images} images"
    start = f"{own.name} less {other.name}: {metric} {found.estimate:+.4f}"
    if found.low is None or found.high is None:
        return f"{start} over {over}: cannot be decided with {found.groups} groups, 6 are needed"
    sign = -1 if better(metric) == "min" else 1
    low, high = sorted((sign * found.low, sign * found.high))
    verdict = "the two cannot be told apart"
    if low > 0 or high < 0:
        verdict = f"{own.name if low > 0 else other.name} is better"
    return f"{start} (95 % interval {found.low:+.4f} to {found.high:+.4f}, {over}): {verdict}"
