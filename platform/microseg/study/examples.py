"""The images that the best trial gets worst, as usual and best, with both outlines, for the report."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from PIL import Image

from microseg.config import TrialConfig
from microseg.data.pairs import load_pairs
from microseg.models import load_saved
from microseg.report import EXAMPLES
from microseg.search.records import TrialRecord
from microseg.storage import cache
from microseg.study.request import Prepared, folder
from microseg.tracking.figures import overlay
from microseg.tracking.tree import StudyRun
from microseg.training import FoldResult, Sample, TrainingData, finished_fold, predict_image

EACH = 2  # images of a kind


class Example(NamedTuple):
    """An image, the fold that it validates, and its Dice by a network that was not trained on it."""

    kind: str
    fold: int
    image: str
    dice: float


def log_examples(client: MlflowClient, run: StudyRun, prepared: Prepared, best: TrialRecord) -> None:
    """Draw the worst, the median and the best validation images of a trial, among the study's artifacts.

    Each is predicted by the network of the fold that it validates, out of fold.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    run : StudyRun
        The study.
    prepared : Prepared
        Its data set and folds.
    best : TrialRecord
        The trial, whose folds lie in the study's folder.
    """
    data, workdir = TrainingData(prepared.development, cache()), folder(run.name) / best.name
    found = [finished_fold(best.config, data, fold, workdir) for fold in prepared.folds]
    draw_examples(client, run.run_id, [result for result in found if result is not None], best.config, data)


def draw_examples(
    client: MlflowClient, run_id: str, results: Sequence[FoldResult], config: TrialConfig, data: TrainingData
) -> None:
    """Draw the worst, the median and the best images of some folds, each predicted by its fold's network.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    run_id : str
        Run of the study that receives the pictures.
    results : sequence of FoldResult
        What the folds' networks reached by image, and their files.
    config : TrialConfig
        Preprocessing, tile and threshold.
    data : TrainingData
        The data set and its cache.
    """
    chosen = choose(results)
    with tempfile.TemporaryDirectory(prefix="microseg-") as scratch:
        listed = []
        for result in results:
            own = [example for example in chosen if example.fold == result.fold]
            for example, sample in zip(own, _samples(own, result, config, data), strict=True):
                name = f"{example.kind}-{chosen.index(example)}.jpg"
                picture = Image.fromarray(overlay(sample, config.threshold))
                # Six noisy colour images as PNG are 3 MB; with full colour resolution outlines stay sharp.
                picture.save(Path(scratch, name), quality=92, subsampling=0)
                listed.append(example._asdict() | {"file": name})
        listed.sort(key=lambda entry: entry["dice"])
        Path(scratch, "examples.json").write_text(
            json.dumps({"examples": listed}, indent=1), encoding="utf-8"
        )
        client.log_artifacts(run_id, scratch, EXAMPLES)


def choose(results: Sequence[FoldResult], each: int = EACH) -> list[Example]:
    """Choose the images with the lowest, the middle and the highest Dice, no image twice."""
    scored = [(dice, one.fold, image) for one in results for image, dice in one.per_image.items()]
    ordered, count = sorted(scored), len(scored)
    middle = max(0, (count - each) // 2)
    kinds = {"worst": range(each), "best": range(count - each, count), "median": range(middle, middle + each)}
    taken: dict[int, str] = {}
    for kind, places in kinds.items():
        for place in places:
            if 0 <= place < count:
                taken.setdefault(place, kind)
    return [Example(taken[place], *_named(ordered[place])) for place in sorted(taken)]


def _named(scored: tuple[float, int, str]) -> tuple[int, str, float]:
    dice, fold, image = scored
    return fold, image, dice


def _samples(
    examples: Sequence[Example], result: FoldResult, config: TrialConfig, data: TrainingData
) -> list[Sample]:
    """Predict images with the network of their fold; it is loaded only where there are any."""
    if not examples:
        return []
    network = load_saved(result.model)
    names = [example.image for example in examples]
    pairs = load_pairs(names, data.manifest, data.cache, config.preprocess)
    return [Sample(p.name, p.whole, p.mask, predict_image(network, p.image, config)) for p in pairs]
