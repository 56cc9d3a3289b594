"""Flat tiles are background; the others are asked for in few sizes of batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from microseg.serving.background import skipping_flat


@settings(max_examples=60, deadline=None)
@given(busy=st.lists(st.booleans(), min_size=1, max_size=16), maps=st.sampled_from([1, 3]))
def test_tiles_that_are_not_flat_get_their_answers_and_others_the_background(busy, maps):
    batch = np.full((len(busy), 4, 4, 2), 0.5, np.float32)
    batch[:, 0, 0, 1] += np.where(busy, 0.25 + np.arange(len(busy)), 0.05)
    sizes = []

    def predict(tiles):
        sizes.append(len(tiles))
        return np.repeat(tiles[..., 1:], maps, axis=-1)

    answer = skipping_flat(predict, 0.1, maps)(batch)
    background = np.eye(maps, dtype=np.float32)[0] * (maps > 1)
    for tile, is_busy, found in zip(batch, busy, answer, strict=True):
        expected = (
            np.repeat(tile[..., 1:], maps, axis=-1) if is_busy else np.broadcast_to(background, found.shape)
        )
        assert_array_equal(found, expected)
    assert len(sizes) == any(busy)
    assert all(
        sum(busy) <= size <= len(busy) and (size == len(busy) or size & (size - 1) == 0) for size in sizes
    )


@pytest.mark.parametrize(("apart", "asked"), [(0.0999, 0), (0.1001, 1)])
def test_a_tile_is_flat_below_the_distance_of_its_smallest_and_largest_value(apart, asked):
    batch = np.zeros((1, 3, 3, 1), np.float32)
    batch[0, 1, 1] = apart
    calls = []
    skipping_flat(lambda tiles: calls.append(tiles) or tiles, 0.1, 1)(batch)
    assert len(calls) == asked
