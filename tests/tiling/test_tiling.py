"""Tiled prediction with the identity or a small filter in the network's place: algebra gives every answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from microseg.errors import MicrosegError
from microseg.tiling import WINDOWS, Grid, halo_of, predict_tiled, predict_whole


@st.composite
def settings_of_tiling(draw):
    tile = draw(st.integers(1, 24))
    halo = draw(st.integers(0, (tile - 1) // 2))
    return {
        "grid": Grid(tile, halo, draw(st.integers(1, tile)), draw(st.sampled_from(sorted(WINDOWS)))),
        "batch_size": draw(st.integers(1, 5)),
    }


def identity(batch):
    return batch


def noise(height, width, channels=1):
    return np.random.default_rng(height * 1000 + width).random((height, width, channels), np.float32)


def neighbourhood(radius):
    """A network that weighs every pixel up to a distance, unevenly, and sees zeros outside its input."""
    weights = np.random.default_rng(radius).normal(size=(1, 2 * radius + 1, 2 * radius + 1, 1))

    def predict(batch):
        return ndimage.correlate(np.asarray(batch, np.float32), weights, mode="constant")

    return predict


def pooled(radius, stride):
    """The same on a map of means over squares, each of which then has one answer."""
    near = neighbourhood(radius)

    def predict(batch):
        count, height, width, channels = batch.shape
        squares = batch.reshape(count, height // stride, stride, width // stride, stride, channels)
        return near(squares.mean((2, 4))).repeat(stride, 1).repeat(stride, 2)

    return predict


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    channels=st.integers(1, 3),
    setting=settings_of_tiling(),
)
def test_the_identity_gives_the_image_back(height, width, channels, setting):
    image = noise(height, width, channels)
    result = predict_tiled(image, identity, **setting)
    assert result.dtype == np.float32
    assert_allclose(result, image, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), setting=settings_of_tiling())
def test_every_pixel_is_covered_by_weights_whose_sum_is_one(height, width, setting):
    """Each tile answers with a number of its own: the result is a mean of some of them, everywhere."""
    counter = iter(range(100_000))

    def numbered(batch):
        return np.stack([np.full_like(tile, next(counter)) for tile in batch])

    result = predict_tiled(noise(height, width), numbered, **setting)
    assert np.isfinite(result).all()
    assert result.min() >= -1e-3 and result.max() <= next(counter) * (1 + 1e-5)
    assert_allclose(predict_tiled(noise(height, width), np.ones_like, **setting), 1.0, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    stride=st.sampled_from([1, 2, 4, 6]),
    strides=st.integers(2, 6),
    extra=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.integers(1, 5),
    data=st.data(),
)
def test_a_network_that_looks_no_farther_than_the_halo_gives_what_one_piece_gives(
    stride, strides, extra, batch, data
):
    """It pools, so that only tiles in step with its stride can give the same."""
    tile = stride * strides
    halo = data.draw(st.integers(0, (tile - stride) // 2))
    predict = pooled(data.draw(st.integers(0, halo // stride)), stride)
    image, grid = noise(tile + extra[0], tile + extra[1]), Grid(tile, halo, stride)
    tiled = predict_tiled(image, predict, grid=grid, batch_size=batch)
    margins = [grid.margin(side) for side in image.shape[:2]]
    assert_allclose(tiled, predict_whole(image, predict, multiple=stride, margins=margins), atol=1e-4)


def test_a_network_that_pools_is_not_the_same_out_of_step():
    image, predict = noise(70, 70), pooled(1, 4)
    whole = predict_whole(image, predict, multiple=4, margins=(8, 8))
    in_step = predict_tiled(image, predict, grid=Grid(24, 7, 4), batch_size=4)
    out_of_step = predict_tiled(image, predict, grid=Grid(24, 7, 1), batch_size=4)
    assert_allclose(in_step, whole, atol=1e-4)
    assert np.abs(out_of_step - whole).mean() > 0.1


def test_a_network_that_looks_farther_leaves_seams_which_a_larger_halo_lessens():
    image, predict = noise(70, 70), neighbourhood(7)
    whole = predict_whole(image, predict, multiple=1, margins=(8, 8))[8:-8, 8:-8]
    errors = [
        np.abs(predict_tiled(image, predict, grid=Grid(32, halo), batch_size=4)[8:-8, 8:-8] - whole).mean()
        for halo in (0, 3, 7)
    ]
    assert errors[0] > 2 * errors[1] > 0.1
    assert errors[2] < 1e-5


@settings(max_examples=100, deadline=None)
@given(
    length=st.integers(1, 500),
    tile=st.integers(1, 64),
    overlap=st.floats(0.0, 0.95),
    stride=st.integers(1, 64),
)
def test_the_fewest_tiles_in_step_cover_the_axis_and_share_at_least_two_halos(length, tile, overlap, stride):
    grid = Grid(tile, halo_of(tile, overlap), stride)
    starts = grid.starts(length)
    assert starts[0] == 0
    assert starts[-1] + tile >= length
    gaps = set(np.diff(starts).tolist())
    assert len(gaps) <= 1
    for gap in gaps:
        assert 1 <= gap <= tile - 2 * grid.halo
        assert gap % grid.alignment == 0
        longest = (tile - 2 * grid.halo) // grid.alignment * grid.alignment
        assert (len(starts) - 2) * longest + tile < length  # one tile fewer does not reach the end


def test_known_starts():
    assert Grid(256, 32).starts(256) == [0]
    assert Grid(256, 0).starts(257) == [0, 1]
    assert Grid(256, 64).starts(512) == [0, 128, 256]
    assert Grid(4, 0).starts(10) == [0, 3, 6]
    assert Grid(256, 32, 32).starts(512) == [0, 128, 256]
    assert Grid(256, 30, 32).starts(600) == [0, 192, 384]


def test_the_stride_gives_way_to_the_halo():
    assert Grid(64, 16, 32).alignment == 32
    assert Grid(64, 17, 32).alignment == 16
    assert Grid(32, 4, 32).starts(64) == [0, 16, 32]


def test_a_halo_is_half_of_what_two_tiles_share():
    assert halo_of(256, 0.25) == 32
    assert halo_of(32, 0.0) == 0


@pytest.mark.parametrize("window", sorted(WINDOWS))
@settings(max_examples=40, deadline=None)
@given(tile=st.integers(1, 300), overlap=st.floats(0.0, 0.99))
def test_a_window_is_symmetric_rises_to_the_middle_and_counts_beyond_the_halo(window, tile, overlap):
    halo = halo_of(tile, overlap)
    weights = WINDOWS[window](tile, halo)
    assert weights.shape == (tile,)
    assert weights.dtype == np.float32
    assert weights.min() >= 0.0 and weights.max() <= 1.0
    assert weights[halo : tile - halo].min() > 0.0
    assert_allclose(weights, weights[::-1], atol=1e-6)
    assert np.all(np.diff(weights[: tile // 2]) >= 0)


def test_known_windows():
    assert_allclose(
        WINDOWS["flat"](12, 2), [0, 0, 0.146447, 0.853553, 1, 1, 1, 1, 0.853553, 0.146447, 0, 0], atol=1e-6
    )
    assert np.all(WINDOWS["flat"](8, 0) == 1.0)
    assert_allclose(WINDOWS["hann"](4, 1), [0.146447, 0.853553, 0.853553, 0.146447], atol=1e-6)
    assert_allclose(
        WINDOWS["gaussian"](16, 0)[:8], np.exp(-0.5 * (np.arange(7.5, 0, -1) / 2) ** 2), rtol=1e-6
    )


@pytest.mark.parametrize("window", ["hann", "gaussian"])
def test_errors_at_tile_borders_are_outweighed_by_neighbours_and_left_out_by_the_flat_window(window):
    def wrong_at_the_border(batch):
        answer = np.ones_like(batch)
        answer[:, :2] = answer[:, -2:] = answer[:, :, :2] = answer[:, :, -2:] = 0.0
        return answer

    image = np.ones((96, 96, 1), np.float32)
    blended = predict_tiled(image, wrong_at_the_border, grid=Grid(32, 8, window=window), batch_size=4)
    assert 0.9 < blended.min() < 1.0
    left_out = predict_tiled(image, wrong_at_the_border, grid=Grid(32, 2), batch_size=4)
    assert_allclose(left_out, 1.0, atol=1e-6)
    pasted = predict_tiled(image, wrong_at_the_border, grid=Grid(32, 0), batch_size=4)
    assert pasted[2:-2, 2:-2].min() == 0.0


def test_an_image_takes_the_fewest_batches_of_one_size_in_its_own_type():
    seen = []

    def record(batch):
        seen.append((batch.shape, batch.dtype))
        return batch.astype(np.float32)

    predict_tiled(np.zeros((40, 25, 2), np.uint16), record, grid=Grid(16, 2), batch_size=8)
    assert seen == [((6, 16, 16, 2), np.dtype(np.uint16))] * 2  # 12 tiles: not 8 and 4
    seen.clear()
    predict_tiled(np.zeros((16, 9, 2), np.uint16), record, grid=Grid(16, 2), batch_size=8)
    assert seen == [((1, 16, 16, 2), np.dtype(np.uint16))]


def test_the_last_batch_is_filled_up_and_its_filling_ignored():
    batches = []

    def record(batch):
        batches.append(len(batch))
        return np.full(batch.shape, len(batches), np.float32)

    result = predict_tiled(np.zeros((8, 40, 1), np.float32), record, grid=Grid(8, 0), batch_size=3)
    assert batches == [3, 3]  # 5 tiles
    assert_array_equal(result[0, :, 0], [1] * 24 + [2] * 16)


def test_an_axis_of_one_tile_has_no_margin():
    """Else each image as large as a training patch would take four or nine tiles."""
    assert (Grid(16, 4).margin(16), Grid(16, 4).margin(17), Grid(16, 3, 4).margin(17)) == (0, 4, 4)
    seen = []

    def record(batch):
        seen.append(batch)
        return batch

    image = noise(16, 40)
    predict_tiled(image, record, grid=Grid(16, 4), batch_size=1)
    assert_array_equal(seen[0][0, :, :4], image[:, 4:0:-1])  # mirrored by the halo across
    assert_array_equal(seen[0][0, :, 4:], image[:, :12])  # and not at all along


def test_the_number_of_classes_is_the_predictors():
    result = predict_tiled(
        noise(9, 50), lambda batch: np.repeat(batch, 3, -1), grid=Grid(16, 2), batch_size=2
    )
    assert result.shape == (9, 50, 3)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 1), (40, 1, 3), (2, 2, 1)])
def test_a_tiny_image_is_mirrored_and_not_darkened(shape):
    seen = []

    def record(batch):
        seen.append(batch)
        return batch

    image = np.full(shape, 0.75, np.float32)
    assert_allclose(predict_tiled(image, record, grid=Grid(16, 2), batch_size=2), image)
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

    predict_tiled(image, record, grid=Grid(8, 0), batch_size=1)
    assert seen[0][0, 0, :, 0].tolist() == [2, 1, 0, 1, 2, 3, 2, 1]


@pytest.mark.parametrize(
    ("shape", "settings_", "words"),
    [
        ((4, 4), {}, r"shape \(4, 4\); expected \(height, width, channels\)"),
        ((0, 4, 1), {}, r"shape \(0, 4, 1\)"),
        (
            (4, 4, 1),
            {"grid": Grid(4, 0, window="hamming")},
            "window is 'hamming'; give one of flat, hann, gaussian",
        ),
        ((4, 4, 1), {"batch_size": 0}, "batch_size is 0; give at least 1"),
        ((5, 4, 1), {"grid": Grid(4, 2)}, "halo is 2; give 0 to 1 pixels, less than half of tile 4"),
        ((5, 4, 1), {"grid": Grid(4, -1)}, "halo is -1; give 0 to 1 pixels"),
        ((4, 4, 1), {"grid": Grid(0, 0)}, "tile is 0; give the side"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(shape, settings_, words):
    with pytest.raises(MicrosegError, match=words) as caught:
        predict_tiled(
            np.zeros(shape, np.float32), identity, **{"grid": Grid(4, 0), "batch_size": 1} | settings_
        )
    assert "\n" not in str(caught.value)


def test_nothing_to_predict_in_one_piece_is_refused():
    with pytest.raises(MicrosegError, match=r"shape \(0, 4, 1\); expected \(height, width, channels\)"):
        predict_whole(np.zeros((0, 4, 1), np.float32), identity, multiple=4)
