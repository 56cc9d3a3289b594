"""Memory and speed of `microseg predict` by the size of the image: OME-Zarr in, mask or numbered objects out.

Each size has a process of its own. Beside its peak stands the bound that was printed beforehand.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from measure import terminal, write_json
from object_blocks import METHOD, PATTERN, Nuclei
from rich.table import Table

from microseg.config import Component, TrialConfig
from microseg.runtime import load_tensorflow, peak_memory_mib, threads


def image_of(folder: Path, side: int) -> Path:
    """Return where the image of that side lies."""
    return folder / f"{side}.ome.zarr"


def write_image(folder: Path, side: int) -> None:
    """Write an OME-Zarr image of round nuclei in a repeated pattern, block by block."""
    pattern, rng = Nuclei().pattern[..., 0], np.random.default_rng(0)
    noisy = (40 + 150 * pattern + rng.normal(0, 12, pattern.shape)).clip(0, 255).astype(np.uint8)
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.5]}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    facts = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    group = zarr.create_group(image_of(folder, side), attributes={"ome": facts})
    array = group.create_array("0", shape=(side, side), chunks=(1024, 1024), dtype="uint8")
    for top in range(0, side, 1024):
        rows = np.arange(top, min(top + 1024, side)) % PATTERN
        array[top : top + 1024] = noisy[rows[:, None], np.arange(side) % PATTERN]


def write_model(folder: Path, depth: int = 3, filters: int = 8) -> None:
    """Write a model of one small U-Net, which takes an image's brightness for the foreground's probability."""
    load_tensorflow()
    import keras

    from microseg.models import build_model
    from microseg.serving.card import ModelCard

    model = Component(name="unet", params={"depth": depth, "filters": filters})
    config = TrialConfig(model=model, tile=256, overlap=0.25, batch_size=8)
    card = ModelCard(
        name="nuclei", study="benchmark", trial="trial-000", config=config, channels=1, classes=("nucleus",),
        data_digest="0" * 64,
        instances=METHOD,
    )  # fmt: skip
    inputs = keras.Input((None, None, 1))
    network = build_model(model, 1, 1)
    # Untrained, its answer means nothing: a thousandth of it is added, so that all of it is computed.
    logits = 12 * (inputs - 0.6) + 1e-3 * network(inputs)
    folder.mkdir()
    keras.Model(inputs, keras.layers.Activation("sigmoid")(logits)).save(folder / "fold-0.keras")
    card.write(folder)


def one_size(folder: Path, side: int, options: dict[str, Any]) -> dict[str, Any]:
    """Predict an image of `write_image`, and return its figures.

    Another process has written it: what that held would count as held with the libraries.
    """
    from microseg.serving.batch.image import Watch, predict_image
    from microseg.serving.batch.options import PredictOptions
    from microseg.serving.batch.table import ObjectTable
    from microseg.serving.segmenter import Segmenter

    load_tensorflow()
    threads(2)
    image, target, notes = image_of(folder, side), folder / "masks", []
    given = PredictOptions.model_validate(options)
    segmenter = Segmenter(folder / "model")
    table = ObjectTable(folder / "objects.csv") if given.instances else None
    started = time.perf_counter()
    done = predict_image(segmenter, str(image), str(target), given, table, Watch(note=notes.append))
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    bound = re.search(r"at most ([\d.]+) GiB", notes[0])
    assert bound
    return {
        "side": side,
        "objects": done.objects,
        "megapixels_per_second": side**2 / 1e6 / seconds,
        "bound_mib": float(bound[1]) * 1024,
        "peak_mib": peak_memory_mib(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 16384], help="sides of square images")
    parser.add_argument("--instances", action="store_true", help="number and measure the objects too")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--filters", type=int, default=8)
    parser.add_argument("--max-memory", help="such as 2GiB")
    parser.add_argument("--workdir", type=Path, help="where images and masks go (40960 pixels: 10 GiB)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    given = parser.parse_args()
    options = {"instances": given.instances, "max_memory": given.max_memory}
    table = Table("side", "objects", "MP/s", "bound MiB", "peak MiB")
    figures = []
    with tempfile.TemporaryDirectory(dir=given.workdir) as name:
        fresh = multiprocessing.get_context("spawn")
        with fresh.Pool(1) as process:
            process.apply(write_model, (Path(name) / "model", given.depth, given.filters))
        for side in given.sides:
            with fresh.Pool(1) as process:
                process.apply(write_image, (Path(name), side))
            with fresh.Pool(1) as process:
                figures.append(process.apply(one_size, (Path(name), side, options)))
            table.add_row(
                *(
                    f"{value:.1f}" if isinstance(value, float) else str(value)
                    for value in figures[-1].values()
                )
            )
    terminal().print(table)
    write_json(given.json, figures)


if __name__ == "__main__":
    main()
