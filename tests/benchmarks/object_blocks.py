"""Objects of large images in blocks: peak memory, speed, and their table, by the size of the image.

Nuclei of a repeated pattern, some of which touch, are divided by the watershed. The probabilities are made
window by window and the labels go to a file, so that no process ever holds an image; each size has a
process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import terminal, write_json
from numpy.typing import NDArray
from rich.table import Table
from scipy import ndimage

from microseg.config import Component
from microseg.instances import BLOCK, HALO, label_blocks, measure_blocks, method_of

PATTERN = 1000  # pixels, not a divisor of a block: every block is cut elsewhere
NUCLEI = 670
METHOD = Component(name="watershed", params={"min_distance": 8, "smoothing": 1.0, "min_size": 20})


class LabelFile:
    """An array in a file that is mapped only while it is read or written, so that its pages do not count."""

    def __init__(self, path: Path, side: int) -> None:
        self.path, self.shape, self.dtype = path, (side, side), np.dtype(np.int32)
        np.lib.format.open_memmap(path, "w+", self.dtype, self.shape).flush()

    def __getitem__(self, window: Any) -> NDArray[np.int32]:
        return np.array(np.load(self.path, mmap_mode="r")[window])

    def __setitem__(self, window: Any, values: NDArray[np.int32]) -> None:
        np.load(self.path, mmap_mode="r+")[window] = values


class Nuclei:
    """Probabilities of round nuclei, made for each window."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:PATTERN, :PATTERN]
        pattern = np.zeros((PATTERN, PATTERN), np.float32)
        for row, column, radius in rng.integers((0, 0, 6), (PATTERN, PATTERN, 14), (NUCLEI, 3)):
            near = (((y - row + 500) % PATTERN - 500) ** 2, ((x - column + 500) % PATTERN - 500) ** 2)
            pattern[near[0] + near[1] <= radius**2] = 1.0
        self.pattern = ndimage.gaussian_filter(pattern, 1.0, mode="wrap")[..., None]

    def __call__(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        y, x = (np.arange(side.start, side.stop) % PATTERN for side in (rows, columns))
        return self.pattern[y[:, None], x[None, :]]


def one_size(side: int, block: int, halo: int) -> dict[str, float]:
    """Label and measure one image, and return its figures."""
    nuclei = Nuclei()
    with tempfile.TemporaryDirectory() as folder:
        labels = LabelFile(Path(folder) / "labels.npy", side)
        before, started = _peak(), time.perf_counter()
        stitched = label_blocks(nuclei, labels, method_of(METHOD), block=block, halo=halo)
        labelled = time.perf_counter()
        rows = sum(len(table["label"]) for table in measure_blocks(labels, nuclei, block=block))
        measured = time.perf_counter()
    return {
        "side": side,
        "objects": stitched.objects,
        "larger": len(stitched.larger),
        "rows": rows,
        "megapixels_per_second": side**2 / 1e6 / (labelled - started),
        "table_megapixels_per_second": side**2 / 1e6 / (measured - labelled),
        "before_mib": before,
        "peak_mib": _peak(),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 16384], help="sides of square images")
    parser.add_argument("--block", type=int, default=BLOCK)
    parser.add_argument("--halo", type=int, default=HALO)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    given = parser.parse_args()
    table = Table("side", "objects", "larger", "labels MP/s", "table MP/s", "before MiB", "peak MiB")
    figures = []
    for side in given.sides:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            figures.append(fresh.apply(one_size, (side, given.block, given.halo)))
        counts = [str(figures[-1][name]) for name in ("side", "objects", "larger")]
        table.add_row(*counts, *[f"{value:.1f}" for value in list(figures[-1].values())[4:]])
    terminal().print(table)
    write_json(given.json, figures)


if __name__ == "__main__":
    main()
