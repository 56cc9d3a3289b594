"""Parts of an image, predicted a few rows at a time: the same numbers as those of the whole image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import ndimage

from microseg.errors import MicrosegError
from microseg.tiling import WINDOWS, Grid, predict_region, predict_tiled

WEIGHTS = np.random.default_rng(0).normal(size=(1, 5, 5, 1))


def filtered(batch):
    """Each pixel's answer depends on its neighbours and on where the tile ends."""
    return ndimage.correlate(np.asarray(batch, np.float32), WEIGHTS, mode="constant")


class Recorder:
    """An image that tells how much of it was read at once."""

    def __init__(self, image):
        self.image, self.shape, self.windows = image, image.shape, []

    def __getitem__(self, window):
        self.windows.append(window)
        return self.image[window]


def noise(*shape):
    return np.random.default_rng(shape[0]).random(shape, np.float32)


@st.composite
def cases(draw):
    sides = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    tile = draw(st.integers(1, 24))
    halo = draw(st.integers(0, (tile - 1) // 2))
    grid = Grid(tile, halo, draw(st.integers(1, tile)), draw(st.sampled_from(sorted(WINDOWS))))
    starts = [draw(st.integers(0, side - 1)) for side in sides]
    region = tuple(
        slice(start, draw(st.integers(start + 1, side))) for start, side in zip(starts, sides, strict=True)
    )
    return sides, grid, region, draw(st.integers(1, 5))


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_a_region_is_bit_by_bit_that_part_of_the_whole(case):
    sides, grid, region, batch_size = case
    image = noise(*sides, 1)
    whole = predict_tiled(image, filtered, grid=grid, batch_size=batch_size, fixed=True)
    slabs = list(predict_region(image, filtered, grid=grid, region=region, batch_size=batch_size, fixed=True))
    assert_array_equal(np.concatenate(slabs), whole[region])
    assert all(0 < len(slab) <= grid.tile for slab in slabs)


def test_nothing_is_read_but_the_tiles_of_the_region_a_row_of_them_at_a_time():
    image = Recorder(noise(500, 300, 2))
    region = slice(200, 300), slice(100, 164)
    list(predict_region(image, np.copy, grid=Grid(32, 4), region=region, batch_size=4))
    rows, columns = ([window[axis] for window in image.windows] for axis in (0, 1))
    assert all(row.stop - row.start == 32 for row in rows)
    assert len(rows) == len({row.start for row in rows})
    assert all(row.start > 160 and row.stop < 340 for row in rows)
    assert all(column.start > 60 and column.stop < 204 for column in columns)


def test_with_the_flat_window_a_tile_that_counts_nowhere_in_the_region_is_not_predicted():
    tiles = []

    def count(batch):
        tiles.append(len(batch))
        return batch

    image, grid = noise(400, 16, 1), Grid(16, 4)  # steps of 8 rows
    list(predict_region(image, count, grid=grid, region=(slice(80, 88), slice(0, 16)), batch_size=1))
    assert len(tiles) == 1


def test_a_fixed_batch_is_filled_up_even_for_one_tile():
    shapes = []

    def record(batch):
        shapes.append(batch.shape)
        return batch

    predict_tiled(noise(16, 9, 1), record, grid=Grid(16, 2), batch_size=8, fixed=True)
    assert shapes == [(8, 16, 16, 1)]


@pytest.mark.parametrize("region", [(slice(0, 9), slice(0, 8)), (slice(3, 3), slice(0, 8))])
def test_a_region_outside_the_image_is_refused(region):
    with pytest.raises(MicrosegError, match=r"of an image of \(8, 8\) pixels; give rows and columns of it"):
        next(predict_region(noise(8, 8, 1), np.copy, grid=Grid(8, 0), region=region, batch_size=1))
