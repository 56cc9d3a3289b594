"""Small data sets on disk."""

import numpy as np
import pytest

from microseg.data.images import write_image
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions


def draw_image(seed: int, shape=(12, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def draw_mask(seed: int, shape=(12, 16)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[2 + seed % 3 : 8, 3 : 9 + seed % 4] = 255
    return mask


@pytest.fixture
def write_pairs():
    """Return a function that writes paired folders; values of the mask dict replace drawn masks."""

    def write(folder, names=("a_1", "a_2", "b_1"), suffix=".png", masks=None):
        for seed, name in enumerate(names):
            write_image(folder / "images" / f"{name}{suffix}", draw_image(seed))
            mask = (masks or {}).get(name, draw_mask(seed))
            write_image(folder / "masks" / f"{name}.png", mask)
        return folder

    return write


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens a data set with a cache of its own."""

    def open_with(source, **options):
        return open_dataset(source, DataOptions(**options), tmp_path / "cache")

    return open_with
