"""Images a second of training steps: ours, a bare loop without a pipeline, and the ways of the published projects.

All train the same U-Net with the same loss on patches of the same cells. "Bare" is ``train_on_batch`` on batches
that are ready in memory; "microseg" draws and augments patches as `train_fold` does, in the precision that the
machine computes fastest and in float32. The published projects draw in the main thread, in float32: one by Keras'
``ImageDataGenerator`` (as AFM and HeLa do), one by a ``PyDataset`` and albumentations (as the nuclei project).
All three augment alike: turned by up to 45 degrees, shifted, sheared and zoomed by 5 %, mirrored.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import terminal, write_json
from rich.table import Table

from microseg import runtime
from microseg.bench.turns import Way, ratio, spread, take_turns
from microseg.config import Component

SEED = 42


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turn", type=float, default=20.0, help="seconds of a turn of the bare loop, about")
    parser.add_argument("--minutes", type=float, default=12.0, help="how long turns are taken")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def patches(pairs: Sequence[Any], given: argparse.Namespace) -> tuple[Any, Any]:
    """Return patches side by side, (patches, tile, tile, 1), and their masks of 0 and 1."""
    import numpy as np

    cut = [
        (
            pair.image[y : y + given.tile, x : x + given.tile],
            pair.mask[y : y + given.tile, x : x + given.tile],
        )
        for pair in pairs
        for y, x in itertools.product(range(0, 2 * given.tile, given.tile), repeat=2)
    ]
    images, masks = zip(*cut, strict=True)
    return np.stack(images), np.stack(masks)[..., None].astype(np.float32)


def image_data_generator(images: Any, masks: Any, batch: int) -> Iterator[tuple[Any, Any]]:
    """Draw as AFM does: two generators of one seed, one of images and one of masks."""
    import tensorflow as tf

    drawn = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=45,
        width_shift_range=0.05,
        height_shift_range=0.05,
        shear_range=0.05,
        zoom_range=0.05,
        horizontal_flip=True,
        vertical_flip=True,
        fill_mode="wrap",
    )
    flows = (drawn.flow(arrays, batch_size=batch, seed=SEED) for arrays in (images, masks))
    for one, other in zip(*flows, strict=True):
        yield one, (other > 0.5).astype("float32")


def with_albumentations(images: Any, masks: Any, batch: int) -> Any:
    """Draw as the nuclei project does: batch by batch, image by image, in the main thread."""
    import albumentations as A
    import cv2
    import keras
    import numpy as np

    small = {"x": (-0.05, 0.05), "y": (-0.05, 0.05)}
    drawn = A.Compose(
        [
            A.Affine(
                rotate=(-45, 45),
                translate_percent=small,
                shear=(-3, 3),
                scale=(0.95, 1.05),
                border_mode=cv2.BORDER_WRAP,
                p=1.0,
            ),
            A.HorizontalFlip(p=0.5),
            A.VerticalFlip(p=0.5),
        ],
        seed=SEED,
    )

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            chosen = np.random.default_rng(number).integers(0, len(images), batch)
            pairs = [drawn(image=images[one], mask=masks[one]) for one in chosen]
            return np.stack([pair["image"] for pair in pairs]), np.stack([pair["mask"] for pair in pairs])

    return Batches()


def ways(given: argparse.Namespace) -> tuple[dict[str, Way], int]:
    """Return each way, and the images of a turn: all train by as many steps."""
    from microseg.bench.networks import cells, timed_config
    from microseg.bench.training import Trainer, fit_seconds

    pairs, found = cells(2 * given.tile), {}
    fastest = runtime.precision_policy("auto").removeprefix("mixed_")
    steps = images = 0
    for precision in dict.fromkeys([fastest, "float32"]):
        config = timed_config(precision, given.batch, given.tile, given.depth, given.filters)
        config = config.model_copy(update={"augment": Component(name="afm")})
        with runtime.fresh_session(precision, 0):
            trainer = Trainer(config, pairs, given.turn)
        steps, images = steps or trainer.steps, images or trainer.images
        trainer.draw(steps)  # all train by as many steps
        found |= {f"bare, {precision}": trainer.bare, f"microseg, {precision}": trainer.fitted}
    arrays = patches(pairs, given)
    for name, draw in (("ImageDataGenerator", image_data_generator), ("albumentations", with_albumentations)):
        batches = draw(*arrays, given.batch)
        found[f"published, {name}, float32"] = lambda batches=batches, network=trainer.network: fit_seconds(
            network, batches, steps
        )
    return found, images


def ratios(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return what is promised, more is better: ours to the bare loop, and to the published ways."""
    ours = [name for name in seconds if name.startswith("microseg")]
    found = {
        f"{name} / bare": ratio(seconds[name.replace("microseg", "bare")], seconds[name]) for name in ours
    }
    published = [name for name in seconds if name.startswith("published")]
    return found | {
        f"{one} / {name}": ratio(seconds[name], seconds[one]) for one in ours for name in published
    }


def main() -> None:
    given, console = arguments(), terminal()
    runtime.load_tensorflow()
    runtime.threads(os.cpu_count() or 1)
    found, images = ways(given)
    seconds = take_turns(found, 60 * given.minutes)
    table = Table("way", title=f"{images} images a turn, {len(next(iter(seconds.values())))} turns")
    table.add_column("images/s, median (range)", justify="right")
    for name, values in seconds.items():
        table.add_row(name, str(spread([images / one for one in values])))
    console.print(table)
    promised = ratios(seconds)
    for name, value in promised.items():
        console.print(f"{name:<75} {value}", highlight=False, soft_wrap=True)
    record = {name: value.model_dump() for name, value in promised.items()}
    write_json(given.json, {"images": images, "seconds": seconds, "ratios": record})


if __name__ == "__main__":
    main()
