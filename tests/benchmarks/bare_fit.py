"""The reference of `overhead.py`: Keras and numpy alone train one fold with ``model.fit``.

The patches are cut once and held in memory, the validation images are cut into tiles side by side, and
nothing but the loss is computed. The network, the loss and the optimizer come from the same tables.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from measure import Measured, Recipe

from microseg import runtime
from microseg.augment import augmenter
from microseg.components import bind, create
from microseg.config import TrialConfig
from microseg.data.masks import IGNORE
from microseg.data.pairs import Pair, encode_targets, load_pairs
from microseg.data.pipeline import Sampling, epoch_steps, sampler
from microseg.losses import LOSSES
from microseg.models import build_model
from microseg.optimizers import OPTIMIZERS

Arrays = tuple[np.ndarray, np.ndarray]


def patches(pairs: Sequence[Pair], config: TrialConfig, maps: int) -> Arrays:
    """Cut as many patches as the platform draws in an epoch, the same ones as in its first."""
    steps = config.steps_per_epoch or epoch_steps(pairs, config.tile, config.batch_size)
    sampling = Sampling(config.tile, config.batch_size, steps, config.seed)
    draw = sampler(pairs, sampling, augmenter(config.augment), maps)
    images, targets = zip(*map(draw, range(steps * config.batch_size)), strict=True)
    return np.stack(images), np.stack(targets)


def tiles(pair: Pair, side: int, maps: int) -> Iterator[Arrays]:
    """Cut an image into tiles side by side; what is added at its edges is mirrored, and ignored."""
    widths = [(0, -length % side) for length in pair.mask.shape]
    image = np.pad(pair.image, [*widths, (0, 0)], mode="reflect")
    target = encode_targets(np.pad(pair.mask, widths, constant_values=IGNORE), maps)
    for y in range(0, image.shape[0], side):
        for x in range(0, image.shape[1], side):
            yield image[y : y + side, x : x + side], target[y : y + side, x : x + side]


def fit(recipe: Recipe, output: Path) -> dict[str, Any]:
    """Train, and return when each epoch ended."""
    config, maps = recipe.config, len(recipe.manifest.classes)
    train, valid = (
        load_pairs(names, recipe.manifest, recipe.cache, config.preprocess)
        for names in (recipe.fold.train, recipe.fold.valid)
    )
    images, targets = patches(train, config, maps)
    cut = zip(*(tile for pair in valid for tile in tiles(pair, config.tile, maps)), strict=True)
    model = build_model(config.model, recipe.manifest.channels, maps)
    model.compile(
        create(config.optimizer, OPTIMIZERS, "optimizer"),
        bind(config.loss, LOSSES, "loss"),
        jit_compile=False,
    )
    ends: list[float] = []
    model.fit(
        images,
        targets,
        batch_size=config.batch_size,
        epochs=config.epochs,
        validation_data=tuple(np.stack(arrays) for arrays in cut),
        validation_batch_size=config.batch_size,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.time()))],
        verbose=0,
    )
    keras.Model(model.inputs, model.outputs).save(output.with_suffix(".keras"))
    return {"epochs": ends, "saved": time.time()}


def main() -> None:
    recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_bytes())
    output = Path(sys.argv[2])
    runtime.threads(recipe.threads)
    with runtime.fresh_session(recipe.config.precision, recipe.config.seed):
        training = time.time()
        times = fit(recipe, output)
    measured = Measured(  # the caller knows when this process started and ended
        start=training,
        training=training,
        end=times["saved"],
        peak_memory_mib=runtime.peak_memory_mib(),
        **times,
    )
    output.write_text(measured.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
