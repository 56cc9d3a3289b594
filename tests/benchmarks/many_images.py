"""How soon a trial trains on 10,000 images, and what memory it holds: the first trial, and one after it.

Images and masks are written as PNG, each unlike all others. Each trial is a process of its own, which takes the
steps of `train_fold` up to its first training steps. The first trial decodes every file into the cache, the
second maps what it finds there. "Own memory" is what the process holds for itself; pages of mapped files count
beside it: the system takes them back where memory is short.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measure import spread, terminal, timed, write_json
from rich.table import Table

from microseg import runtime

STEPS = 8  # that are trained: patches of some images, as everywhere in a training
FIRST_STEP = "to the end of the first step"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True, help="for some 40 GB with the defaults")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=1024, help="of an image, pixels")
    parser.add_argument("--later", type=int, default=3, help="trials after the first")
    parser.add_argument(
        "--trial", type=Path, help=argparse.SUPPRESS
    )  # in a process of its own: where to write
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


def write_set(given: argparse.Namespace) -> None:
    """Write the images, the masks, and a manifest of them."""
    from microseg.bench.networks import picture
    from microseg.data.files import file_hash
    from microseg.data.manifest import Item, Manifest

    drawn = [picture(given.side, number) for number in range(16)]
    drawn = [(cv2.convertScaleAbs(image, alpha=255 / image.max()), mask) for image, mask in drawn]

    def write(number: int) -> Item:
        name, (image, mask) = f"{number:05d}", drawn[number % 16]
        image = image.copy()
        image[0, :4] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
        paths = given.workdir / f"{name}.png", given.workdir / f"{name}-mask.png"
        for path, plane in zip(paths, (image, mask), strict=True):
            path.write_bytes(cv2.imencode(".png", plane, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1])
        hashes = tuple(file_hash(path.read_bytes()) for path in paths)
        size = {"height": given.side, "width": given.side}
        return Item(name=name, images=paths[:1], mask=paths[1], group=name, hashes=hashes, **size)

    with ThreadPoolExecutor(2) as pool:
        items = tuple(pool.map(write, range(given.images)))
    manifest = Manifest(name="many", source="-", channels=1, mask_kind="binary", items=items)
    (given.workdir / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")


def trial(given: argparse.Namespace) -> None:
    """Do what `train_fold` does up to its first steps, and write when each phase ended."""
    marks, begun = {}, time.perf_counter()

    def mark(name: str) -> None:
        marks[name] = time.perf_counter() - begun

    runtime.load_tensorflow()
    from microseg.bench.networks import timed_config
    from microseg.bench.training import StepTimes
    from microseg.data.manifest import Manifest
    from microseg.data.pairs import load_pairs
    from microseg.folds import Fold
    from microseg.training.fold import build_loss, build_networks, draw_batches
    from microseg.training.results import TrainingData, fingerprint

    runtime.threads(2)
    mark("TensorFlow and the platform loaded")
    manifest = Manifest.model_validate_json((given.workdir / "manifest.json").read_bytes())
    names = tuple(item.name for item in manifest.items)
    cut, cache = len(names) // 5, given.workdir / "cache"
    fold = Fold(index=0, train=names[cut:], valid=names[:cut])
    config = timed_config(batch_size=4, depth=2, filters=4).model_copy(update={"steps_per_epoch": STEPS})
    mark("data set described")
    train, _ = (load_pairs(part, manifest, cache, config.preprocess) for part in (fold.train, fold.valid))
    mark("images found, or decoded")
    with runtime.fresh_session(config.precision, 0):
        fingerprint(config, TrainingData(manifest, cache), fold)
        network = build_networks(config, 1, 1, build_loss(config, train, 1)).training
        batches, steps = draw_batches(config, train, 1, 0, 0)
        times = StepTimes()
        mark("network built")
        network.fit(batches, steps_per_epoch=steps, callbacks=[times], verbose=0, shuffle=False)
    marks[FIRST_STEP] = times.ends[0] - begun
    memory = {
        f"{part} memory, MiB": held(field) for part, field in (("own", "RssAnon"), ("mapped", "RssFile"))
    }
    given.trial.write_text(json.dumps({"marks": marks, "memory": memory}), encoding="utf-8")


def held(field: str) -> float:
    """Return a line of this process's status, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def run(given: argparse.Namespace, number: int) -> dict[str, Any]:
    output = given.workdir / f"trial-{number}.json"
    timed([__file__, f"--workdir={given.workdir}", f"--trial={output}"], given.workdir)
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


def main() -> None:
    given, console = arguments(), terminal()
    given.workdir = given.workdir.resolve()
    given.workdir.mkdir(parents=True, exist_ok=True)
    if given.trial:
        trial(given)
        return
    if not (given.workdir / "manifest.json").exists():
        write_set(given)
    first, *later = (run(given, number) for number in range(1 + given.later))
    table = Table("since its process began", title=f"{given.images} images of {given.side} x {given.side}")
    for column in ("first trial", "later trials, median (range)"):
        table.add_column(column, justify="right")
    for part, unit in (("marks", " s"), ("memory", "")):
        for name, value in first[part].items():
            table.add_row(name, f"{value:.1f}{unit}", spread([one[part][name] for one in later]) + unit)
    console.print(table)
    write_json(given.json, {"first": first, "later": later})


if __name__ == "__main__":
    main()
