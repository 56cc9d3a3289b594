"""Pictures: a panel for each thing to compare, outlines in colours that everybody can tell apart, a size that can be seen."""

import numpy as np
import pytest

from microseg.tracking.figures import (
    BOTH,
    CAPTION,
    GAP,
    ONLY_PREDICTION,
    ONLY_TRUTH,
    PREDICTION,
    TRUTH,
    WIDEST,
    overlay,
    panels,
)
from microseg.training import Sample


def sample(size: int = 64, channels: int = 1, maps: int = 1) -> Sample:
    image = np.random.default_rng(0).random((size, size, channels), np.float32)
    truth = np.zeros((size, size), np.uint8)
    truth[8:24, 8:24] = 1
    truth[0, 0] = 255
    probability = np.zeros((size, size, maps), np.float32)
    probability[30:40, 30:40, -1] = 0.9
    if maps > 1:
        probability[..., 0] = 1 - probability[..., -1]
    return Sample("cell", image, truth, probability)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def cut(picture: np.ndarray, number: int, width: int = WIDEST) -> np.ndarray:
    """Return a panel without its caption, shrunk to the image's own 64 pixels."""
    start = number * (width + GAP)
    return picture[CAPTION :: width // 64, start : start + width : width // 64]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("maps", [1, 3])
def test_truth_is_outlined_on_the_image_and_the_prediction_on_its_probability(channels, maps):
    picture = panels(sample(64, channels, maps), 0.5)
    assert picture.dtype == np.uint8 and picture.shape == (CAPTION + WIDEST, 3 * WIDEST + 2 * GAP, 3)
    outline = has(cut(picture, 1), TRUTH)
    assert outline[8, 8:24].all() and outline[23, 8:24].all() and not outline[12:20, 12:20].any()
    assert not outline[0, 0]  # ignored pixels are no object
    assert has(cut(picture, 2), PREDICTION)[30, 30:40].all()
    assert not has(cut(picture, 0), TRUTH).any()


def test_prediction_in_one_piece_has_a_panel_of_its_own():
    tiles = sample()
    moved = np.roll(tiles.probability, 10, axis=0)
    picture = panels(tiles._replace(whole=moved), 0.5)
    assert picture.shape[1] == 4 * WIDEST + 3 * GAP
    assert has(cut(picture, 3), PREDICTION)[40, 30:40].all()
    assert not has(cut(picture, 2), PREDICTION)[44, 30:40].any()


def test_every_panel_has_a_caption():
    picture = panels(sample(), 0.5)
    strips = [picture[:CAPTION, n * (WIDEST + GAP) :][:, :WIDEST] for n in range(3)]
    assert all((strip < 128).any() for strip in strips)
    assert not np.array_equal(strips[0], strips[1])


def test_a_large_image_is_shrunk():
    height, width, _ = panels(sample(1000), 0.5).shape
    assert height == WIDEST + CAPTION and width == 3 * WIDEST + 2 * GAP


def test_a_constant_image_is_drawn():
    blank = sample()._replace(image=np.zeros((64, 64, 1), np.float32))
    assert panels(blank, 0.5).any()


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("size", [64, 768])
def test_an_overlay_tells_both_outlines_and_where_they_agree(size, maps):
    truth = np.zeros((size, size), np.uint8)
    scale = size // 64
    truth[8 * scale : 24 * scale, 8 * scale : 24 * scale] = 1
    truth[:scale, :scale] = 255
    predicted = np.zeros((size, size, maps), np.float32)
    predicted[8 * scale : 24 * scale, 8 * scale : 40 * scale, -1] = 0.9
    if maps > 1:
        predicted[..., 0] = 1 - predicted[..., -1]
    picture = overlay(Sample("cell", np.zeros((size, size, 1), np.float32), truth, predicted), 0.5)
    assert picture.shape == (WIDEST, WIDEST, 3)
    if maps == 1:
        assert has(picture, BOTH)[100, 48] and has(picture, BOTH)[48, 100]  # left and top are shared
    assert has(picture, ONLY_TRUTH)[100, 24 * 6 - 1]
    assert has(picture, ONLY_PREDICTION)[100, 40 * 6 - 1]
    assert not has(picture, ONLY_TRUTH)[:40, :40].any()  # ignored pixels are no object
