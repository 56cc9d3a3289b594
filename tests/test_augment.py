"""Augmentation: the contract of every recipe, equal warps for image and mask, displacement in pixels."""

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import albumentations as A
import numpy as np
import pytest

from microseg.augment import AUGMENTATIONS, _transforms, augmenter
from microseg.config import Component
from microseg.errors import MicrosegError

every = pytest.mark.parametrize("name", AUGMENTATIONS)


def pair(shape=(48, 48), channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((*shape, channels), np.float32), rng.choice([0, 1, 255], shape).astype(np.uint8)


@every
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_shapes_types_and_labels_stay(name, channels):
    image, mask = pair(channels=channels)
    warped, labels = augmenter(Component(name=name))(image, mask, 7)
    assert warped.shape == image.shape and warped.dtype == np.float32
    assert labels.shape == mask.shape and labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 1, 255}


@every
def test_values_outside_zero_to_one_survive(name):
    image, mask = pair()
    warped, _ = augmenter(Component(name=name))(8.0 * image - 4.0, mask, 3)
    assert warped.min() < -3.0 and warped.max() > 3.0


@every
def test_seed_decides_everything_whatever_thread_asks(name):
    augment = augmenter(Component(name=name))
    image, mask = pair()
    seeds = list(range(16))
    alone = [augment(image, mask, seed) for seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: augment(image, mask, seed), reversed(seeds)))
    for (a, b), (c, d) in zip(alone, reversed(together), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


@every
def test_the_original_is_not_changed(name):
    image, mask = pair()
    before = image.copy(), mask.copy()
    augmenter(Component(name=name))(image, mask, 1)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_none_is_the_identity():
    image, mask = pair()
    warped, labels = augmenter(Component(name="none"))(image, mask, 1)
    np.testing.assert_array_equal(warped, image)
    np.testing.assert_array_equal(labels, mask)


def test_flips_draw_all_eight_symmetries_about_equally():
    image, mask = pair((4, 4))
    augment = augmenter(Component(name="flips"))
    drawn = [augment(image, mask, seed)[0].tobytes() for seed in range(400)]
    shares = np.unique(drawn, return_counts=True)[1]
    assert len(shares) == 8
    assert shares.min() > 25


@pytest.mark.parametrize("name", ["flips", "elastic"])
def test_image_and_mask_move_together(name):
    mask = np.zeros((96, 96), np.uint8)
    mask[20:60, 30:50] = 1
    image = mask[..., None].astype(np.float32)
    augment = augmenter(Component(name=name))
    for seed in range(10):
        warped, labels = augment(image, mask, seed)
        assert labels.sum() > 0
        assert np.mean((warped[..., 0] > 0.5) != (labels == 1)) < 0.005
        clear = np.abs(warped[..., 0] - 0.5) > 0.49
        np.testing.assert_array_equal((warped[..., 0] > 0.5)[clear], (labels == 1)[clear])


@pytest.mark.parametrize(("displacement", "sigma"), [(2.0, 8.0), (6.0, 20.0)])
def test_elastic_moves_pixels_by_the_stated_root_mean_square(displacement, sigma):
    side, margin = 256, 64
    grid = np.stack(np.mgrid[:side, :side], axis=-1).astype(np.float32)
    recipe = AUGMENTATIONS["elastic"](displacement=displacement, sigma=sigma, share=1.0)[-1:]
    squares = []
    for seed in range(12):
        warp = A.Compose(recipe, seed=seed)
        moved = warp(image=grid)["image"] - grid
        squares.append(np.mean(np.sum(moved[margin:-margin, margin:-margin] ** 2, axis=-1)))
    assert np.sqrt(np.mean(squares)) == pytest.approx(displacement, rel=0.15)


def test_elastic_repeats_no_border_and_invents_no_background():
    image, mask = np.ones((64, 64, 1), np.float32), np.ones((64, 64), np.uint8)
    augment = augmenter(Component(name="elastic", params={"displacement": 20.0, "share": 1.0}))
    warped, labels = augment(image, mask, 0)
    np.testing.assert_allclose(warped, 1.0, rtol=1e-6)
    assert np.all(labels == 1)


def test_argument_that_albumentations_does_not_know_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserWarning, match="not valid for transform"):
            _transforms(lambda: [A.HorizontalFlip(propability=0.5)])


QUIET = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        os._exit(3)
sys.addaudithook(refuse)
import microseg.augment
"""


def test_import_asks_nothing_of_the_network():
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    assert subprocess.run([sys.executable, "-c", QUIET], env=environment).returncode == 0


def test_unknown_recipe_and_parameter_are_one_line():
    with pytest.raises(MicrosegError, match=r"unknown augment 'flip'; did you mean 'flips'\?"):
        augmenter(Component(name="flip"))
    with pytest.raises(MicrosegError, match=r"augment 'elastic': parameter 'displacement' is -1.0"):
        augmenter(Component(name="elastic", params={"displacement": -1.0}))
