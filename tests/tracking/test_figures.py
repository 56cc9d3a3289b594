"""Pictures: three panels, outlines in colours that everybody can tell apart, a size that can be seen."""

import numpy as np
import pytest

from microseg.tracking.figures import GAP, PREDICTION, TRUTH, WIDEST, triptych
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


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("maps", [1, 3])
def test_truth_is_outlined_on_the_image_and_the_prediction_on_its_probability(channels, maps):
    picture = triptych(sample(64, channels, maps), 0.5)
    scale = WIDEST // 64
    assert picture.dtype == np.uint8 and picture.shape == (64 * scale, (3 * 64 + 2 * GAP) * scale, 3)
    middle, right = slice((64 + GAP) * scale, (128 + GAP) * scale), slice((128 + 2 * GAP) * scale, None)
    outline = has(picture[:, middle], TRUTH)[::scale, ::scale]
    assert outline[8, 8:24].all() and outline[23, 8:24].all() and not outline[12:20, 12:20].any()
    assert not outline[0, 0]  # ignored pixels are no object
    assert has(picture[:, right], PREDICTION)[::scale, ::scale][30, 30:40].all()
    assert not has(picture[:, : 64 * scale], TRUTH).any()


def test_a_large_image_is_shrunk():
    height, width, _ = triptych(sample(1000), 0.5).shape
    assert height == WIDEST and width < 3 * WIDEST + 3 * GAP


def test_a_constant_image_is_drawn():
    blank = sample()._replace(image=np.zeros((64, 64, 1), np.float32))
    assert triptych(blank, 0.5).any()
