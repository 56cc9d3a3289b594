"""Tiled prediction with the identity in the network's place: algebra gives every answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from microseg.errors import MicrosegError
from microseg.tiling import blend_window, predict_tiled, predict_whole, tile_starts

grids = st.fixed_dictionaries(
    {
        "tile": st.integers(1, 24),
        "overlap": st.floats(0.0, 0.9),
        "batch_size": st.integers(1, 5),
    }
)


def identity(batch):
    return batch


def noise(height, width, channels=1):
    return np.random.default_rng(height * 1000 + width).random((height, width, channels), np.float32)


@settings(max_examples=80, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), channels=st.integers(1, 3), grid=grids)
def test_the_identity_gives_the_image_back(height, width, channels, grid):
    image = noise(height, width, channels)
    result = predict_tiled(image, identity, **grid)
    assert result.dtype == np.float32
    assert_allclose(result, image, atol=1e-5)


@settings(max_examples=80, deadline=None)
@given(length=st.integers(1, 500), tile=st.integers(1, 64), overlap=st.floats(0.0, 0.95))
def test_tiles_cover_the_axis_with_at_least_the_overlap(length, tile, overlap):
    tile = min(tile, length)
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == length - tile
    gaps = np.diff(starts)
    assert np.all(gaps >= 1)
    assert np.all(gaps <= max(1, tile * (1 - overlap)))


def test_known_starts():
    assert tile_starts(256, 256, 0.25) == [0]
    assert tile_starts(257, 256, 0.0) == [0, 1]
    assert tile_starts(512, 256, 0.5) == [0, 128, 256]
    assert tile_starts(10, 4, 0.0) == [0, 3, 6]


@settings(max_examples=40, deadline=None)
@given(tile=st.integers(1, 300), overlap=st.floats(0.0, 0.99))
def test_the_window_is_positive_symmetric_and_at_most_one(tile, overlap):
    window = blend_window(tile, overlap)
    assert window.shape == (tile, tile)
    assert window.dtype == np.float32
    assert window.min() > 0.0
    assert window.max() <= 1.0
    assert_allclose(window, window.T)
    assert_allclose(window, window[::-1, ::-1])


def test_the_window_is_flat_without_overlap_and_falls_towards_the_border_with_it():
    assert np.all(blend_window(8, 0.0) == 1.0)
    row = blend_window(8, 0.5)[4]
    assert np.all(np.diff(row[:4]) > 0)


def test_a_predictor_that_errs_at_tile_borders_is_outweighed_by_its_neighbours():
    def wrong_at_the_border(batch):
        answer = np.ones_like(batch)
        answer[:, :2] = answer[:, -2:] = answer[:, :, :2] = answer[:, :, -2:] = 0.0
        return answer

    image = np.ones((96, 96, 1), np.float32)
    blended = predict_tiled(image, wrong_at_the_border, tile=32, overlap=0.5, batch_size=4)
    assert blended[2:-2, 2:-2].min() > 0.9
    pasted = predict_tiled(image, wrong_at_the_border, tile=32, overlap=0.0, batch_size=4)
    assert pasted[2:-2, 2:-2].min() == 0.0


def test_batches_keep_one_shape_and_the_images_dtype():
    seen = []

    def record(batch):
        seen.append((batch.shape, batch.dtype))
        return batch.astype(np.float32)

    predict_tiled(np.zeros((40, 25, 2), np.uint16), record, tile=16, overlap=0.25, batch_size=4)
    assert set(seen) == {((4, 16, 16, 2), np.dtype(np.uint16))}


def test_the_number_of_classes_is_the_predictors():
    result = predict_tiled(
        noise(9, 50), lambda batch: np.repeat(batch, 3, -1), tile=16, overlap=0.2, batch_size=2
    )
    assert result.shape == (9, 50, 3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 1), (40, 1, 3), (2, 2, 1)])
def test_a_tiny_image_is_mirrored_and_not_darkened(shape):
    seen = []

    def record(batch):
        seen.append(batch)
        return batch

    image = np.full(shape, 0.75, np.float32)
    assert_allclose(predict_tiled(image, record, tile=16, overlap=0.25, batch_size=2), image)
    assert np.all(np.concatenate(seen) == 0.75)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), multiple=st.integers(1, 32))
def test_an_image_in_one_piece_is_padded_to_the_multiple_and_cropped_back(height, width, multiple):
    image, seen = noise(height, width, 2), []

    def record(batch):
        seen.append(batch.shape)
        return batch

    np.testing.assert_array_equal(predict_whole(image, record, multiple=multiple), image)
    ((count, *sides, channels),) = seen
    assert (count, channels) == (1, 2)
    for side, padded in zip((height, width), sides, strict=True):
        assert padded % multiple == 0 and side <= padded < side + multiple


def test_padding_reflects_without_repeating_the_border():
    image = np.arange(4, dtype=np.float32).reshape(1, 4, 1).repeat(4, axis=0)
    seen = []

    def record(batch):
        seen.append(batch)
        return batch

    predict_tiled(image, record, tile=8, overlap=0.0, batch_size=1)
    assert seen[0][0, 0, :, 0].tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


@pytest.mark.parametrize(
    ("shape", "settings_", "words"),
    [
        ((4, 4), {}, r"shape \(4, 4\); expected \(height, width, channels\)"),
        ((0, 4, 1), {}, r"shape \(0, 4, 1\)"),
        ((4, 4, 1), {"batch_size": 0}, "batch_size is 0; give at least 1"),
        ((4, 4, 1), {"overlap": 1.0}, "overlap is 1.0; give the shared fraction"),
        ((4, 4, 1), {"tile": 0}, "tile 0 does not fit an axis of 4 pixels"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(shape, settings_, words):
    with pytest.raises(MicrosegError, match=words) as caught:
        predict_tiled(
            np.zeros(shape, np.float32), identity, **{"tile": 4, "overlap": 0.0, "batch_size": 1} | settings_
        )
    assert "\n" not in str(caught.value)


def test_nothing_to_predict_in_one_piece_is_refused():
    with pytest.raises(MicrosegError, match=r"shape \(0, 4, 1\); expected \(height, width, channels\)"):
        predict_whole(np.zeros((0, 4, 1), np.float32), identity, multiple=4)
