"""The trivial rival: Otsu's threshold, with what is bright chosen on training images."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from microseg.registry import fit_otsu


def scaled(image):
    return image.astype(np.float32) / 255


def field(bright, dark, seed=0):
    """A grey image whose middle has another brightness, and the middle's mask."""
    truth = np.zeros((20, 30), np.uint8)
    truth[5:12, 8:20] = 1
    noise = np.random.default_rng(seed).normal(0, 3, truth.shape)
    return (np.where(truth, bright, dark) + noise).clip(0, 255).astype(np.uint8)[..., None], truth


@pytest.mark.parametrize(("middle", "around"), [(200, 40), (40, 200)])
def test_bright_and_dark_objects_are_told_by_the_training_images(middle, around):
    images, truths = zip(*(field(middle, around, seed) for seed in range(3)), strict=True)
    otsu = fit_otsu(scaled, images, truths, 1)
    unseen, truth = field(middle, around, 9)
    assert (otsu(unseen) == truth).mean() > 0.99


def test_pixels_that_count_nowhere_do_not_choose():
    image, truth = field(200, 40)
    assert fit_otsu(scaled, [image], [np.where(truth == 1, 1, 255).astype(np.uint8)], 1).bright == 1


def test_of_several_classes_the_two_that_score_best_are_told_apart():
    image, truth = field(200, 40)
    otsu = fit_otsu(scaled, [image], [truth * 2], 3)
    assert (otsu.dark, otsu.bright) == (0, 2)


def test_colour_counts_by_its_mean_and_an_even_image_is_all_dark():
    image, truth = field(200, 40)
    colour = np.concatenate([image, image, np.full_like(image, 120)], axis=-1)
    otsu = fit_otsu(scaled, [colour], [truth], 1)
    assert_array_equal(otsu(colour), truth)
    assert not otsu(np.full((8, 8, 3), 70, np.uint8)).any()
