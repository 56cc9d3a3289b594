"""Validation on whole images: tiled prediction, metrics per image, and samples to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from microseg import metrics
from microseg.config import TrialConfig
from microseg.data.pairs import Pair, encode_targets
from microseg.folds import evenly
from microseg.metrics import Counts
from microseg.models import grid_of
from microseg.tiling import Sliced, predict_tiled, predict_whole
from microseg.training.network import Loss
from microseg.training.results import Sample

SAMPLES = 3
WHOLE = 2**19  # pixels that are predicted in one piece for a sample: more may not fit the memory


class Evaluation(NamedTuple):
    """Metrics named ``val/...``, the Dice of every image, and whether only one class was predicted."""

    metrics: dict[str, float]
    per_image: dict[str, float]
    collapsed: bool


def predict_image(model: keras.Model, image: Sliced, config: TrialConfig) -> NDArray[np.float32]:
    """Predict a preprocessed image of any size, shape (height, width, maps).

    At most as many tiles go through the network at once as in training. Keras relaxes the compiled
    function's batch axis once, whatever sizes follow.
    """
    return predict_tiled(
        image,
        model.predict_on_batch,
        grid=grid_of(config),
        batch_size=config.batch_size // config.accumulation,
    )


def evaluate_images(model: keras.Model, pairs: Sequence[Pair], config: TrialConfig, loss: Loss) -> Evaluation:
    """Predict whole images and average over them: every metric is computed per image, then averaged.

    An image that is empty in truth and prediction has Dice and IoU 1 and is counted.
    """
    losses, counts = [], []
    for pair in pairs:
        probability = predict_image(model, pair.image, config)
        maps = probability.shape[-1]
        losses.append(float(loss(encode_targets(pair.labels, maps)[None], probability[None])))
        predicted = metrics.classify(probability, config.threshold)
        counts.append(metrics.confusion(pair.mask, predicted, max(maps - 1, 1)))
    table = Counts(*(np.stack(member) for member in zip(*counts, strict=True)))
    dice = keras.ops.convert_to_numpy(metrics.dice(table)).mean(axis=1)
    values = {"val/loss": float(np.mean(losses))}
    values |= {f"val/{name}": value for name, value in metrics.evaluate(table).items()}
    return Evaluation(
        values, {pair.name: float(x) for pair, x in zip(pairs, dice, strict=True)}, is_collapsed(table)
    )


def is_collapsed(counts: Counts) -> bool:
    """Say whether one class was predicted everywhere although the truth has several.

    Parameters
    ----------
    counts : Counts
        Members of shape (images, foreground classes).
    """
    pixels = sum(counts)[:, 0].sum()  # type: ignore[index]

    def classes(foreground: NDArray[np.float64]) -> int:
        per_class = foreground.sum(axis=0)
        return int(np.count_nonzero([*per_class, pixels - per_class.sum()]))

    return classes(counts.tp + counts.fp) == 1 < classes(counts.tp + counts.fn)


def shown(pairs: Sequence[Pair]) -> list[Pair]:
    """Choose the few images that samples show: the same every epoch."""
    return evenly(pairs, SAMPLES)


def draw_samples(model: keras.Model, pairs: Sequence[Pair], config: TrialConfig) -> tuple[Sample, ...]:
    """Predict the images that samples show, in tiles and, where they are not too large, in one piece."""
    return tuple(
        Sample(
            pair.name,
            pair.whole,
            pair.mask,
            predict_image(model, pair.image, config),
            predict_in_one_piece(model, pair.whole, config) if pair.mask.size <= WHOLE else None,
        )
        for pair in pairs
    )


def predict_in_one_piece(
    model: keras.Model, image: NDArray[np.float32], config: TrialConfig
) -> NDArray[np.float32]:
    """Predict a preprocessed image without tiles, mirrored at its borders as `predict_image` mirrors it."""
    grid = grid_of(config)
    # Not `predict_on_batch`: for a second size of image it compiles one function for all sizes, in which
    # the bilinear `UpSampling2D` of Keras 3.15 fails on a height that is not known.
    return predict_whole(
        image,
        lambda batch: np.asarray(model(batch, training=False)),
        multiple=grid.stride,
        margins=[grid.margin(side) for side in image.shape[:2]],
    )
