"""Megapixels per second of tiled prediction, beside the bare network and the ways of others, in one run.

A U-Net with random weights, or those of ``--weights``, predicts one image. "Bare" is ``predict_on_batch`` on
tiles that are ready and do not overlap; the others are compared with it after the overlap's extra pixels are
counted. "Predict" is `microseg predict` from a tiled TIFF to a PNG, in strips as for images of any size. "One by
one" is ``predict()`` for each tile, and MONAI's ``SlidingWindowInferer`` (where it is installed) runs the same
network, with the same weights, in PyTorch; both predict as many tiles as we do, or about as many where the grid
differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from measure import terminal, write_json
from numpy.typing import NDArray
from rich.table import Table

from microseg import runtime
from microseg.bench.turns import take_turns, timed
from microseg.config import Component, TrialConfig
from microseg.data.images import decode_image, read_labels

Way = Callable[[], Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=1536, help="of the image, pixels")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=float, default=0.25, help="shared fraction: twice the halo")
    parser.add_argument("--batch", type=int, default=8, help="tiles at once")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--filters", type=int, default=32)
    parser.add_argument("--weights", type=Path, help="a .keras file of such a network")
    parser.add_argument("--image", type=Path, help="a grey image to predict, cut to --side; else noise")
    parser.add_argument("--truth", type=Path, help="its mask: the Dice of both precisions is compared")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    return parser.parse_args()


class Measured(NamedTuple):
    """Median seconds of a way and the tiles that it predicts."""

    seconds: float
    tiles: int

    @property
    def per_tile(self) -> float:
        return self.seconds / self.tiles


def picture(side: int, path: Path | None) -> NDArray[np.generic]:
    """Return the top left of an image, or blurred noise: structures of all sizes, deterministic."""
    if path:
        return decode_image(path.read_bytes(), str(path), None)[:side, :side]
    from scipy import ndimage

    noise = np.random.default_rng(0).normal(size=(side, side))
    scales = [ndimage.gaussian_filter(noise, sigma) * sigma for sigma in (1, 3, 9)]
    return (128 + 200 * np.sum(scales, axis=0)).clip(0, 255).astype(np.uint8)[..., None]


def segmenter(given: argparse.Namespace, precision: str, folder: Path) -> Any:
    """Save and load a network of a precision; the weights are the same in each."""
    import keras

    from microseg.bench.inference import saved
    from microseg.serving.segmenter import Segmenter

    model = Component(name="unet", params={"depth": given.depth, "filters": given.filters})
    form = {"tile": given.tile, "overlap": given.overlap, "batch_size": given.batch}
    found = saved(TrialConfig(model=model, precision=precision, **form), folder)
    if not given.weights:
        return found
    file = folder / "fold-0.keras"
    network = keras.saving.load_model(file, compile=False)
    network.set_weights(keras.saving.load_model(given.weights, compile=False).get_weights())
    network.save(file)
    return Segmenter(folder)


def rivals(given: argparse.Namespace, network: Any, prepared: NDArray[np.float32]) -> dict[str, Way]:
    """Return MONAI's sliding window with the same network, overlap and weights, if it is installed."""
    if importlib.util.find_spec("monai") is None:
        return {}
    import torch
    from monai.inferers import SlidingWindowInferer
    from torch_unet import copied

    torch.set_num_threads(given.threads)
    copy = copied(network, given.depth, given.filters)
    image = torch.from_numpy(prepared.transpose(2, 0, 1)[None].copy())
    inferer = SlidingWindowInferer(given.tile, given.batch, given.overlap, mode="gaussian")
    tile = prepared[None, : given.tile, : given.tile]
    with torch.inference_mode():
        there = copy(torch.from_numpy(tile.transpose(0, 3, 1, 2).copy())).numpy()[0, 0]
    if np.abs(there - np.asarray(network(tile))[0, ..., 0]).max() > 1e-3:
        raise SystemExit("the copy in PyTorch answers differently: the ways cannot be compared")

    def slide(precision: str) -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return inferer(image, copy)

    return {f"MONAI {name}": lambda name=name: slide(name) for name in ("float32", "bfloat16")}


def one_by_one(network: Any, prepared: NDArray[np.float32], tile: int, tiles: int) -> None:
    """Predict as the Tiled project does: one ``predict()`` per tile, those at the border resized."""
    from skimage.transform import resize

    places = [(y, x) for y in range(0, len(prepared), tile) for x in range(0, prepared.shape[1], tile)]
    for number in range(tiles):
        y, x = places[number % len(places)]
        part = prepared[y : y + tile, x : x + tile]
        answer = network.predict(resize(part, (tile, tile, 1))[None], verbose=0)[0]
        resize(answer, part.shape)


def ways(given: argparse.Namespace, folder: Path) -> tuple[dict[str, tuple[Way, int]], dict[str, Any]]:
    """Return each way with the number of its tiles, and the segmenters by precision."""
    from microseg.models import grid_of, load_saved
    from microseg.tiling import halo_of

    image = picture(given.side, given.image)
    ours = {name: segmenter(given, name, folder / name) for name in ("float32", "bfloat16")}
    card = ours["float32"].card
    grid = grid_of(card.config, card.halo)
    tiles = len(grid.starts(given.side + 2 * grid.margin(given.side))) ** 2
    inner = max(1, given.side // given.tile) ** 2
    cut = np.random.default_rng(1).random((inner, given.tile, given.tile, 1), np.float32)
    found: dict[str, tuple[Way, int]] = {}
    for name, one in ours.items():
        network = one.networks[0]
        found[f"bare {name}"] = (lambda network=network: bare(network, cut, given.batch), inner)
        found[f"microseg {name}"] = (lambda one=one: one.probability(image), tiles)
        found[f"predict {name}"] = (lambda one=one: predict(one, image, folder), tiles)
    # Others have the network as it was trained: what loads it here folds its normalisation away.
    network = load_saved(folder / "float32" / "fold-0.keras")
    prepared = ours["float32"]._preprocess(image)
    found["one by one float32"] = (lambda: one_by_one(network, prepared, given.tile, tiles), tiles)
    stride = given.tile - 2 * halo_of(given.tile, given.overlap)
    theirs = (1 - (given.tile - given.side) // stride) ** 2
    found |= {name: (way, theirs) for name, way in rivals(given, network, prepared).items()}
    return found, {name: one.probability(image) for name, one in ours.items()}


def predict(segmenter: Any, image: NDArray[np.generic], folder: Path) -> None:
    """Predict from file to file, in strips."""
    from microseg.serving.batch.image import predict_image
    from microseg.serving.batch.options import PredictOptions

    path = folder / "image.tif"
    if not path.exists():
        tifffile.imwrite(path, image[..., 0], tile=(512, 512))
    predict_image(segmenter, str(path), str(folder), PredictOptions(max_memory="64GiB"))


def bare(network: Any, tiles: NDArray[np.float32], batch: int) -> None:
    for first in range(0, len(tiles), batch):
        network.predict_on_batch(tiles[first : first + batch])


def measure(found: dict[str, tuple[Way, int]], repeats: int) -> dict[str, Measured]:
    """Take turns, so that a busy machine is busy for all."""
    seconds = take_turns({name: timed(way) for name, (way, _) in found.items()}, budget=0.0, least=repeats)
    return {name: Measured(statistics.median(seconds[name]), tiles) for name, (_, tiles) in found.items()}


def scores(maps: dict[str, NDArray[np.float32]], truth: Path, side: int) -> dict[str, float]:
    """Return the Dice of each precision's mask with the true one, at the threshold 0.5."""
    true = read_labels(truth)[:side, :side] > 0
    masks = {name: probability[..., 0] >= 0.5 for name, probability in maps.items()}
    return {
        f"Dice, {name}": float(2 * (mask & true).sum() / (mask.sum() + true.sum()))
        for name, mask in masks.items()
    }


def figures(measured: dict[str, Measured], megapixels: float) -> dict[str, float]:
    """Return the ratios that the project promises, more is better."""
    ours = {name: measured[f"microseg {name}"] for name in ("float32", "bfloat16")}
    ratios = {
        f"{way} of the bare network, {name}, per tile": measured[f"bare {name}"].per_tile
        / measured[f"{way} {name}"].per_tile
        for name in ours
        for way in ("microseg", "predict")
    }
    ratios["bfloat16 times float32"] = ours["float32"].seconds / ours["bfloat16"].seconds
    for name, one in measured.items():
        if name.startswith(("one by one", "MONAI")):
            ratios |= {f"{mine} times {name}": one.seconds / ours[mine].seconds for mine in ours}
    return ratios | {f"megapixels/s, {name}": megapixels / one.seconds for name, one in ours.items()}


def main() -> None:
    given, console = arguments(), terminal()
    os.environ["MICROSEG_BATCH_SIZE"] = str(given.batch)
    runtime.load_tensorflow()
    runtime.threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        found, maps = ways(given, Path(scratch))
        measured = measure(found, given.repeats)
    table = Table("way", "seconds", "tiles", "ms per tile", title=f"{given.side} x {given.side} pixels")
    for name, one in measured.items():
        table.add_row(name, f"{one.seconds:.2f}", str(one.tiles), f"{1000 * one.per_tile:.1f}")
    console.print(table)
    ratios = figures(measured, given.side**2 / 1e6)
    if given.truth:
        ratios |= scores(maps, given.truth, given.side)
    for name, value in ratios.items():
        console.print(f"{name:<45} {value:.4g}", highlight=False)
    seconds = {name: one._asdict() for name, one in measured.items()}
    write_json(given.json, {"measured": seconds, "ratios": ratios})


if __name__ == "__main__":
    main()
