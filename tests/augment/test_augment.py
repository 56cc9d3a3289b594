"""Augmentation: the contract of every recipe, equal warps for image and mask, displacement in pixels."""

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import albumentations as A
import numpy as np
import pytest

from microseg.augment import AUGMENTATIONS, augmenter
from microseg.augment.recipes import _transforms
from microseg.components import check, parameters
from microseg.config import Component
from microseg.errors import MicrosegError

WARPS = (
    "flips", "crop", "rotate", "affine", "elastic", "grid_distortion", "optical_distortion", "barrel",
    "pincushion", "afm", "hela", "mito", "tiled",
)  # fmt: skip
RECOLOURS = ("hsv", "clahe", "brightness_contrast", "gamma", "blur", "sharpen", "noise")
PARAMS = {"compose": {"steps": {"noise": {}, "rotate": {"border": "constant"}, "flips": {}}}}
ZERO = {
    "rotate": {"angle": 0}, "affine": {"shift": 0, "zoom": 0, "shear": 0}, "crop": {"smallest": 1},
    "grid_distortion": {"displacement": 0}, "optical_distortion": {"displacement": 0},
    "barrel": {"amount": 0}, "pincushion": {"amount": 0}, "hsv": {"hue": 0, "saturation": 0, "value": 0},
    "brightness_contrast": {"brightness": 0, "contrast": 0}, "gamma": {"limit": 0}, "blur": {"sigma": 0},
    "sharpen": {"amount": 0}, "noise": {"deviation": 0},
    "afm": {"strength": 0}, "hela": {"strength": 0}, "mito": {"strength": 0},
    "nuclei": {"strength": 0}, "tiled": {"strength": 0},
}  # fmt: skip
SHARED = [name for name in AUGMENTATIONS if "share" in parameters(AUGMENTATIONS[name]) and name != "elastic"]
every = pytest.mark.parametrize("name", AUGMENTATIONS)


def recipe(name, **params):
    return augmenter(Component(name=name, params=params or PARAMS.get(name, {})))


def surely(name):
    """The recipe, applied to every pair."""
    return recipe(name, share=1.0) if name in (*SHARED, "elastic") else recipe(name)


def pair(shape=(48, 48), channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((*shape, channels), np.float32), rng.choice([0, 1, 2], shape).astype(np.uint8)


def test_every_recipe_is_a_warp_a_recolouring_or_both():
    assert set(AUGMENTATIONS) == {*WARPS, *RECOLOURS, "none", "nuclei", "compose"}


@every
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_shapes_types_and_labels_stay(name, channels):
    image, mask = pair(channels=channels)
    for seed in range(4):
        warped, labels = recipe(name)(image, mask, seed)
        assert warped.shape == image.shape and warped.dtype == np.float32
        assert np.isfinite(warped).all()
        assert labels.shape == mask.shape and labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, 1, 2, 255}


@every
def test_every_range_of_values_is_augmented_alike(name):
    """Nothing is cut to 0..1: z-scored images, and those of 0 to 255, lose nothing."""
    image, mask = pair(channels=3)
    image = np.round(image * 255) / np.float32(255)  # rounded to 256 levels alike, whatever the range
    augment = recipe(name, border="reflect") if name == "tiled" else recipe(name)
    if name == "compose":
        augment = recipe(name, steps={"noise": {}, "rotate": {}, "hsv": {}})
    for seed in range(5):
        expected, actual = augment(image, mask, seed)[0], augment(8 * image - 4, mask, seed)[0]
        np.testing.assert_allclose(actual, 8 * expected - 4, atol=5e-3)


@every
def test_a_constant_image_gives_no_nan(name):
    warped, _ = surely(name)(np.full((32, 32, 3), 0.7, np.float32), np.zeros((32, 32), np.uint8), 0)
    assert np.isfinite(warped).all()


@every
def test_seed_decides_everything_whatever_thread_asks(name):
    augment = recipe(name)
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
    image, mask = pair(channels=3)
    image.flags.writeable = mask.flags.writeable = False  # as mapped files are
    surely(name)(image, mask, 1)


@every
def test_planes_of_a_mask_move_alike(name):
    image, mask = pair()
    planes = np.stack([mask, 2 - mask, mask, mask, mask, mask], axis=-1)
    for seed in range(3):
        warped = recipe(name)(image, planes, seed)[1]
        assert warped.shape == planes.shape
        np.testing.assert_array_equal(warped[..., 0], recipe(name)(image, mask, seed)[1])
        np.testing.assert_array_equal(warped[..., 1], recipe(name)(image, 2 - mask, seed)[1])
        np.testing.assert_array_equal(warped[..., 5], warped[..., 0])


@pytest.mark.parametrize("name", WARPS)
def test_image_and_mask_are_sampled_at_the_same_places(name):
    """The image holds its own coordinates, the mask the same as labels: they must stay equal."""
    places = np.stack(np.mgrid[:96, :96], axis=-1)
    moved = 0
    for seed in range(12):
        warped, labels = surely(name)(places.astype(np.float32), places.astype(np.uint8), seed)
        known = labels[..., 0] != 255
        apart = np.abs(warped - labels)[known].max(axis=-1) > 0.55
        # Between the last pixel and the first, wrapped, a mean of the two coordinates is no place.
        assert np.mean(apart) <= (0.05 if name == "afm" else 0.0)
        moved += np.any(labels != places)
    assert moved > 2


@pytest.mark.parametrize("name", RECOLOURS)
def test_recolouring_leaves_the_mask_alone(name):
    image, mask = pair(channels=3)
    changed, labels = surely(name)(image, mask, 0)
    np.testing.assert_array_equal(labels, mask)
    assert np.abs(changed - image).max() > 1e-3


@pytest.mark.parametrize("name", ZERO)
def test_no_strength_is_the_identity(name):
    image, mask = pair(channels=3)
    shares = {"share": 1.0} if name in SHARED else {}
    augment = recipe(name, **ZERO[name], **shares)
    for seed in range(20):
        warped, labels = augment(image, mask, seed)
        np.testing.assert_allclose(warped, image, atol=1e-5)
        np.testing.assert_array_equal(labels, mask)


def test_every_magnitude_can_be_zero():
    without = {"none", "flips", "elastic", "clahe", "compose"}
    assert set(ZERO) == set(AUGMENTATIONS) - without


@pytest.mark.parametrize("name", SHARED)
def test_no_share_is_the_identity(name):
    image, mask = pair(channels=3)
    warped, labels = recipe(name, share=0.0)(image, mask, 0)
    np.testing.assert_array_equal(warped, image)
    np.testing.assert_array_equal(labels, mask)


def test_sixteen_bits_never_reach_albumentations():
    image = np.random.default_rng(0).integers(0, 65535, (32, 32, 1), dtype=np.uint16)
    changed, _ = recipe("gamma", share=1.0)(image, np.zeros((32, 32), np.uint8), 0)
    assert changed.dtype == np.float32
    assert changed.max() > 60000


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


def test_steps_are_applied_in_the_order_of_the_table():
    image, mask = pair()
    steps = {"noise": {"share": 1.0}, "flips": {}, "rotate": {"angle": 20.0}}
    one = recipe("compose", steps=steps)(image, mask, 3)
    other = recipe("compose", steps=dict(reversed(steps.items())))(image, mask, 3)
    np.testing.assert_array_equal(one[0], other[0])
    clean = recipe("compose", steps={**steps, "noise": {"share": 0.0}})(image, mask, 3)
    np.testing.assert_array_equal(one[1], clean[1])
    assert np.abs(one[0] - clean[0]).max() > 0.01


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"flip": {}}, r"unknown augment 'flip'; did you mean 'flips'\?"),
        ({"rotate": {"angel": 3}}, r"augment 'rotate': unknown parameter 'angel'; did you mean 'angle'\?"),
        ({"compose": {"steps": {"gamma": {"limit": -1}}}}, r"augment 'gamma': parameter 'limit' is -1"),
        ({"compose": {}}, r"augment 'compose': parameter 'steps' is required"),
        ({}, r"augment 'compose': parameter 'steps' is \{\}; Dictionary should have at least 1 item"),
        (["flips"], r"augment 'compose': parameter 'steps' is \['flips'\]"),
    ],
)
def test_steps_are_checked_like_recipes_before_anything_is_built(steps, said):
    with pytest.raises(MicrosegError, match=said) as caught:
        check(Component(name="compose", params={"steps": steps}), AUGMENTATIONS, "augment")
    assert "\n" not in str(caught.value)
