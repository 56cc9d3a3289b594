"""Images that a network was not trained for are told apart from those that it was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from microseg.data.images import read_image
from microseg.serving.unlike import (
    MOST_IMAGES,
    appearance,
    differences,
    look,
    look_at,
    sample,
    scale_difference,
)


def cells(seed, size=96):
    """Bright discs on a dim, slightly noisy background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = rng.normal(20, 2, (size, size))
    for _ in range(12):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(4, 8)
        image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] += rng.uniform(80, 120)
    return image.clip(0, 255).astype(np.uint8)[..., None]


SEEN = appearance(cells(seed) for seed in range(12))


@pytest.mark.parametrize("seed", range(100, 108))
def test_an_image_like_the_training_images_is_answered_without_a_word(seed):
    assert differences(SEEN, look(cells(seed))) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda image: image.astype(np.uint16) * 257, "values lie between"),
        (lambda image: image.astype(np.float32) / 255, "values lie between"),
        (lambda image: image.astype(np.float32) - 100, "values lie between -8"),
        (lambda image: ndimage.gaussian_filter(image.astype(np.float32), (3, 3, 0)), "more blurred"),
        (lambda image: image + np.random.default_rng(0).normal(0, 25, image.shape), "noisier, or sharper"),
        (lambda image: np.full_like(image, 20), "at least"),
    ],
    ids=["another number type", "0 to 1", "offset", "blurred", "noisy", "empty"],
)
def test_an_image_unlike_them_is_said_to_be_in_one_sentence(changed, words):
    sentences = differences(SEEN, look(changed(cells(100))))
    assert any(words in sentence for sentence in sentences)
    assert not any("\n" in sentence for sentence in sentences)


def test_focus_of_white_noise_is_twenty_and_falls_with_blur():
    """Independent pixels of variance 1: four neighbours and 4 squared of the pixel itself."""
    noise = np.random.default_rng(0).normal(size=(600, 600, 1))
    assert look(noise).focus == pytest.approx(20, rel=0.02)
    blurred = [look(ndimage.gaussian_filter(noise, (sigma, sigma, 0))).focus for sigma in (1, 2, 4)]
    assert sorted(blurred, reverse=True) == blurred


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 50), st.floats(-100, 100))
def test_focus_knows_neither_gain_nor_offset_of_the_camera(gain, offset):
    image = cells(3).astype(np.float64)
    assert look(gain * image + offset).focus == pytest.approx(look(image).focus, rel=1e-3)


def test_the_rows_of_a_large_image_say_what_all_of_it_says():
    large = np.tile(cells(1, size=512), (5, 4, 1))
    for some, every in zip(look(large), look(large[:512, :2048]), strict=True):
        assert some == pytest.approx(every, rel=0.05)


def test_windows_of_a_large_image_say_what_all_of_it_says():
    large = np.tile(cells(1, size=256), (4, 4, 1))
    windows = [large[y : y + 256, x : x + 256] for y in (0, 384, 768) for x in (0, 384, 768)]
    for some, every in zip(look_at(windows), look(large), strict=True):
        assert some == pytest.approx(every, rel=0.05)
    assert look_at([large]) == pytest.approx(look(large))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 3), (9, 2, 1), (3, 3, 2)])
def test_the_smallest_images_have_measures_too(shape):
    assert np.isfinite(look(np.zeros(shape, np.uint8))).all()
    assert np.isfinite(look(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))).all()


def test_of_a_large_data_set_some_images_are_looked_at_evenly_spread():
    assert sample(range(7)) == range(7)
    assert len(sample(range(MOST_IMAGES))) == MOST_IMAGES
    some = sample(range(5 * MOST_IMAGES + 1))
    assert len(some) <= MOST_IMAGES
    assert some[-1] >= 5 * MOST_IMAGES - 5


@pytest.mark.parametrize(
    ("trained", "given_um"), [(None, 0.5), (0.5, None), (0.5, 0.5), (0.5, 0.6), (0.5, 0.41)]
)
def test_pixel_sizes_that_are_unknown_or_close_are_no_difference(trained, given_um):
    assert scale_difference(trained, given_um) == []


def test_another_pixel_size_is_said_with_the_factor_that_mends_it():
    (sentence,) = scale_difference(0.5, 0.25)
    assert "0.25 um wide" in sentence and "0.5 times its size" in sentence


def test_real_images_of_the_same_kind_pass_and_blurred_ones_do_not(real_data):
    files = sorted((real_data("afm_astrocyte") / "images").glob("*"))[:30]
    images = [read_image([file]) for file in files]
    seen = appearance(images[::2])
    assert sum(bool(differences(seen, look(image))) for image in images[1::2]) <= 1
    for image in images[1::2]:
        assert differences(seen, look(ndimage.gaussian_filter(image.astype(np.float32), (4, 4, 0))))
