"""The challenger meets the champion on images that no search has seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from microseg import registry, report
from microseg.components import bind
from microseg.data.arrays import image_array, target_array
from microseg.data.manifest import Item
from microseg.data.preprocess import PREPROCESSING
from microseg.errors import MicrosegError
from microseg.folds import evenly
from microseg.metrics.counts import METRICS, confusion
from microseg.registry import Decision, ImageScore, Meeting, Overlay
from microseg.search.importance import importances
from microseg.serving.batch import load_segmenter
from microseg.serving.segmenter import Segmenter
from microseg.storage import cache, home
from microseg.study.hold_out import FORCE, HoldOut, hold_out, origin, refuse_trained
from microseg.study.provenance import Provenance
from microseg.tracking.figures import outlines

# From an image (height, width, channels), as in the file, to the class index of each pixel.
Predict = Callable[[NDArray[Any]], NDArray[np.uint8]]
Progress = Callable[[int, int], None]

_FITTED = 20  # training images from which Otsu's threshold learns what is bright: more would say the same


class _Rivals(NamedTuple):
    champion: Predict
    challenger: Predict


def promote(
    client: MlflowClient, name: str, version: int, least: float, data: str | Path | None, progress: Progress
) -> Decision:
    """Make a version champion if it is better than the present one, or than Otsu's threshold before any.

    Both predict the images that the version's study kept back, by the code that serves them. The use of the
    hold-out is counted before anybody sees what came out; a decision that is recorded already is not made
    again. Whatever interrupts this leaves a use, a recorded decision, or both, and repeating it goes on.

    Parameters
    ----------
    client : MlflowClient
        The tracking store, which is the registry too.
    name, version
        The challenger; it is not champion yet.
    least : float
        The gain in score that is worth a change.
    data : str or Path, optional
        Path or ``s3://`` URI of the images of its study now, if they moved.
    progress : callable
        Called with the number of predicted images, and of all.

    Raises
    ------
    MicrosegError
        If there is no hold-out, one of the two was trained on it, or they do not segment the same classes.
    """
    champion = registry.champion(name)
    versions = [client.get_model_version(name, str(one)) for one in (version, champion) if one]
    origins = [origin(client, one) for one in versions]
    found = _known(origins[0], versions[0])
    held = hold_out(found, data)
    notes = [_refuse_or_note(one, known, held) for one, known in zip(versions, origins, strict=True)]
    registry.check_rights(client, name, held.run_id)
    meeting = Meeting(
        name=name,
        version=version,
        champion=champion,
        hold_out=registry.hold_out_digest(held.held),
        metric=_metric(found),
        least=least,
        notes=tuple(filter(None, notes)),
        about=tuple(f"Version {one.version}: {one.description}" for one in versions if one.description),
    )
    decision = registry.recorded(client, meeting) or _meet(client, meeting, held, progress)
    if decision.outcome == "promoted":
        registry.succeed(name, version, champion)
    return decision


def renew_report(client: MlflowClient, run_id: str) -> str:
    """Write the report of a study again, now that the hold-out has said something of its model.

    The decision stands whatever becomes of that.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    run_id : str
        The study's run.

    Returns
    -------
    str
        What went wrong and what to do about it, in a line; empty where the report is written.
    """
    run = client.get_run(run_id)
    try:
        view = report.view(client, run)
        report.log_page(client, view, importances(*view.observations))
    except (OSError, MicrosegError, MlflowException) as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        return (
            f"the report of study {run.info.run_name} does not tell of this yet ({problem}); to write it "
            f"again: microseg report {run.info.run_name} --output report.html"
        )
    return ""


def _known(found: Provenance | None, version: ModelVersion) -> Provenance:
    if found is None:
        raise MicrosegError(
            f"{version.name} version {version.version} comes from no study with images, so there is no "
            f"hold-out to judge it by; import it with --data, or {FORCE}"
        )
    return found


def _metric(found: Provenance) -> str:
    """Return what is compared: the study's metric where it is one of pixels and per image, else Dice."""
    name = found.request.config.metric.removeprefix("val/")
    return name if name in METRICS else "dice"


def _refuse_or_note(version: ModelVersion, found: Provenance | None, held: HoldOut) -> str:
    """Refuse a version that was trained on the hold-out; say so of one where nobody knows."""
    if found is None or version.tags.get("microseg.candidate") == "imported":
        return f"What version {version.version} was trained on is not known: perhaps these very images"
    refuse_trained(version, found, held.held)
    return ""


def _meet(client: MlflowClient, meeting: Meeting, held: HoldOut, progress: Progress) -> Decision:
    """Let both predict the hold-out; then count its use, decide, and record."""
    rivals = _rivals(meeting, held)
    scores = []
    for number, item in enumerate(held.held, 1):
        scores.append(_score(rivals, item, held, meeting.metric))
        progress(number, len(held.held))
    pictures = [_overlay(rivals, held, meeting, *chosen) for chosen in _telling(scores)]
    purpose = f"{meeting.name}: version {meeting.version} against {meeting.rival}"
    use = registry.count_use(client, meeting.hold_out, purpose, home() / "splits")
    decision = registry.decide(meeting, scores, use)
    registry.record(client, held.run_id, decision, scores, registry.page(decision, scores, pictures))
    return decision


def _rivals(meeting: Meeting, held: HoldOut) -> _Rivals:
    challenger = load_segmenter(f"models:/{meeting.name}/{meeting.version}")
    if meeting.champion is None:
        return _Rivals(_otsu(challenger, held), _classes(challenger))
    champion = load_segmenter(f"models:/{meeting.name}/{meeting.champion}")
    if champion.card.classes != challenger.card.classes:
        raise MicrosegError(
            f"{meeting.name} version {meeting.version} tells {', '.join(challenger.card.classes)} apart, "
            f"{meeting.rival} {', '.join(champion.card.classes)}; register it as another model, or {FORCE}"
        )
    return _Rivals(_classes(champion), _classes(challenger))


def _otsu(challenger: Segmenter, held: HoldOut) -> Predict:
    card = challenger.card
    preprocess = bind(card.config.preprocess, PREPROCESSING, "preprocess")
    images, truths = zip(*(_arrays(item, held) for item in evenly(held.seen, _FITTED)), strict=True)
    return registry.fit_otsu(preprocess, images, truths, _foreground(held))


def _classes(segmenter: Segmenter) -> Predict:
    """Return class indices as metrics count them; a served mask of one class is 0 and 255."""
    one = len(segmenter.card.classes) == 1
    return lambda image: np.minimum(segmenter.segment(image), 1) if one else segmenter.segment(image)


def _arrays(item: Item, held: HoldOut) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    folder = cache()
    return image_array(item, held.manifest, folder), target_array(item, held.manifest, folder)


def _foreground(held: HoldOut) -> int:
    return max(len(held.manifest.classes) - 1, 1)


def _score(rivals: _Rivals, item: Item, held: HoldOut, metric: str) -> ImageScore:
    image, truth = _arrays(item, held)
    champion, challenger = (
        float(np.mean(METRICS[metric](confusion(truth, predict(image), _foreground(held)))))
        for predict in rivals
    )
    return ImageScore(image=item.name, group=item.group, champion=champion, challenger=challenger)


def _telling(scores: Sequence[ImageScore]) -> list[tuple[str, ImageScore]]:
    """Choose the images to look at: worst, median and best for the challenger."""
    ordered = sorted(scores, key=lambda one: one.difference)
    middle = (len(ordered) - 1) // 2
    named = {0: "Worst for the challenger", middle: "Median", len(ordered) - 1: "Best for the challenger"}
    return [(caption, ordered[index]) for index, caption in sorted(named.items())]


def _overlay(rivals: _Rivals, held: HoldOut, meeting: Meeting, caption: str, score: ImageScore) -> Overlay:
    item = next(item for item in held.held if item.name == score.image)
    image, truth = _arrays(item, held)
    masks = {meeting.rival: rivals.champion(image), f"version {meeting.version}": rivals.challenger(image)}
    return Overlay(score, caption, outlines(image, truth, masks))
