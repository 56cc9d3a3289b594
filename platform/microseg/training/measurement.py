"""What is measured once, on the network that a fold keeps: ranking, calibration, outlines, objects, speed."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from microseg import metrics
from microseg.config import Component, TrialConfig
from microseg.data.arrays import instance_array
from microseg.data.manifest import Manifest
from microseg.data.pairs import Pair
from microseg.instances import Labels, label_objects
from microseg.metrics import Calibration, Counts
from microseg.metrics.calibration import Histogram, calibration, probability_histogram
from microseg.training.results import TrainingData
from microseg.training.validation import predict_image

OBJECTS = Component(name="watershed")  # as it is, so that networks are compared and not its parameters
RANKED = (
    2**23
)  # pixels whose order the AUC looks at: sorting more takes longer, and more memory, than it tells


class _Seen(NamedTuple):
    """What is kept of one image's prediction; the probabilities of all would fill the memory.

    ``classes`` is the class index, (height, width) uint8; ``ranked`` the probabilities of every n-th pixel,
    (pixels, 1, maps) float32; ``histogram`` counts all of them; ``objects`` is the label map, None where
    there are no true ones; ``seconds`` what a megapixel of it took.
    """

    classes: NDArray[np.uint8]
    ranked: NDArray[np.float32]
    histogram: Histogram
    objects: Labels | None
    seconds: float


class Measured(NamedTuple):
    """Metrics named ``val/...``, and the calibration of all images together."""

    metrics: dict[str, float]
    calibration: Calibration | None


UNMEASURED = Measured({}, None)


def measure(network: keras.Model, pairs: Sequence[Pair], config: TrialConfig, data: TrainingData) -> Measured:
    """Measure a trained network on whole validation images.

    Parameters
    ----------
    network : keras.Model
        Gives the prediction alone.
    pairs : sequence of Pair
        The validation images of the fold.
    config : TrialConfig
        How it was trained: tile, overlap, threshold.
    data : TrainingData
        Names of the classes, size of a pixel, and the true objects.

    Returns
    -------
    Measured
        ``val/auc`` from probabilities; ``val/pooled_<metric>`` from the counts of all images together and
        ``val/iou/<class>``; ``val/boundary_f1`` (2 pixels of tolerance), ``val/hausdorff95`` in pixels and,
        where the size of a pixel is known, ``val/hausdorff95_um``, means over images and classes; for
        instance masks ``val/ap50``, ``val/ap75``, ``val/ap``, ``val/pq``, ``val/sq`` and ``val/rq`` of
        objects that the watershed with its default parameters tells apart; ``val/inference_seconds``, the
        median over images of the wall time in which a megapixel is predicted, here and now.
    """
    predict_image(network, pairs[0].image, config)  # compiles, where no validation did
    step = -(-sum(pair.mask.size for pair in pairs) // RANKED)
    instances = data.manifest.mask_kind == "instance"
    seen = [_see(network, pair, config, step, instances) for pair in pairs]
    truths = [pair.mask.reshape(-1, 1)[::step] for pair in pairs]
    further = {"auc": metrics.roc_auc(truths, [one.ranked for one in seen])}
    further |= _pooled(pairs, seen, data.manifest)
    further |= _outlines(pairs, seen, data.manifest)
    if instances:
        further |= _objects(pairs, seen, data)
    further["inference_seconds"] = statistics.median(one.seconds for one in seen)
    threshold = config.threshold if len(data.manifest.classes) == 1 else None
    return Measured(
        {f"val/{name}": value for name, value in further.items()},
        calibration([one.histogram for one in seen], threshold),
    )


def _see(network: keras.Model, pair: Pair, config: TrialConfig, step: int, instances: bool) -> _Seen:
    image = pair.whole
    start = time.perf_counter()
    probability = predict_image(network, image, config)
    seconds = time.perf_counter() - start
    return _Seen(
        metrics.classify(probability, config.threshold),
        probability.reshape(-1, 1, probability.shape[-1])[::step].copy(),  # a view would hold all of it
        probability_histogram(pair.mask, probability),
        label_objects(probability, OBJECTS) if instances else None,
        seconds * 1e6 / pair.mask.size,
    )


def _foreground(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the classes 1, 2, ...: a single class is named without its background."""
    return manifest.classes if len(manifest.classes) == 1 else manifest.classes[1:]


def _pooled(pairs: Sequence[Pair], seen: Sequence[_Seen], manifest: Manifest) -> dict[str, float]:
    # MLflow takes no brackets and the like in the name of a metric.
    classes = [re.sub(r"[^\w .-]", "_", name) for name in _foreground(manifest)]
    counts = [
        metrics.confusion(pair.mask, one.classes, len(classes)) for pair, one in zip(pairs, seen, strict=True)
    ]
    table = Counts(*(np.stack(member) for member in zip(*counts, strict=True)))
    named = {f"pooled_{name}": value for name, value in metrics.pooled(table).items()}
    return named | (metrics.per_class(table, classes) if len(classes) > 1 else {})


def _outlines(pairs: Sequence[Pair], seen: Sequence[_Seen], manifest: Manifest) -> dict[str, float]:
    compared = [
        (pair.mask, one.classes, label)
        for pair, one in zip(pairs, seen, strict=True)
        for label in range(1, len(_foreground(manifest)) + 1)
    ]
    distance = np.mean([metrics.hausdorff95(truth, found, label=label) for truth, found, label in compared])
    agreement = np.mean([metrics.boundary_f1(truth, found, label=label) for truth, found, label in compared])
    size = manifest.pixel_size_um
    in_micrometres = {"hausdorff95_um": float(distance * size)} if size else {}
    return {"boundary_f1": float(agreement), "hausdorff95": float(distance)} | in_micrometres


def _objects(pairs: Sequence[Pair], seen: Sequence[_Seen], data: TrainingData) -> dict[str, float]:
    items = {item.name: item for item in data.manifest.items}
    truths = [np.asarray(instance_array(items[pair.name], data.manifest, data.cache)) for pair in pairs]
    found = [one.objects for one in seen if one.objects is not None]
    return metrics.average_precision(truths, found) | metrics.panoptic_quality(truths, found)
