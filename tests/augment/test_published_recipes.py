"""The composites hold the numbers that the projects published, measured on what they draw."""

from collections import Counter

import numpy as np
import pytest

from microseg.augment import AUGMENTATIONS, augmenter, fields
from microseg.augment.transforms import Recolour, Warp
from microseg.config import Component

SHAPE = (100, 200)


def warp_of(name, draws=400, **params):
    """The first warp of a recipe: its border, and many draws of its field."""
    warp = next(step for step in AUGMENTATIONS[name](**params) if isinstance(step, Warp))
    rng = np.random.default_rng(0)
    return warp.border, np.stack([warp.field(SHAPE, rng) for _ in range(draws)])


def corners(displacement):
    """Centre shift, and the images of the unit vectors down and across."""
    height, width = SHAPE
    down = (displacement[..., -1, 0] - displacement[..., 0, 0]) / (height - 1) + (1, 0)
    across = (displacement[..., 0, -1] - displacement[..., 0, 0]) / (width - 1) + (0, 1)
    centre = (displacement[..., 0, 0] + displacement[..., -1, -1]) / 2
    return centre, down, across


@pytest.mark.parametrize(
    ("name", "strength", "angle", "shift", "zoom", "border"),
    [
        ("afm", 1.0, 45, 0.05, 0.05, "wrap"),
        ("afm", 2.0, 90, 0.10, 0.10, "wrap"),
        ("hela", 1.0, 90, 0.30, 0.30, "reflect"),
        ("hela", 0.5, 45, 0.15, 0.15, "reflect"),
    ],
)
def test_warps_as_the_generators_of_keras_drew_them(name, strength, angle, shift, zoom, border):
    found, displacement = warp_of(name, strength=strength)
    centre, down, across = corners(displacement)
    assert found == border
    turned = np.degrees(np.arctan2(down[:, 1], down[:, 0]))
    assert np.abs(turned).max() == pytest.approx(angle, rel=0.03)
    assert np.abs(centre).max(axis=0) == pytest.approx([shift * 100, shift * 200], rel=0.03)
    for axis in (down, across):
        magnification = 1 / np.hypot(*axis.T)
        assert 1 - zoom - 0.01 < magnification.min() < 1 - 0.9 * zoom
        assert 1 + 0.9 * zoom < magnification.max() < 1 + zoom + 0.01
    assert np.abs(np.hypot(*down.T) - np.hypot(*across.T)).max() > zoom  # each axis by itself


@pytest.mark.parametrize("name", ["afm", "hela", "mito"])
def test_both_mirrors_are_independent(name):
    mirrors = [step for step in AUGMENTATIONS[name]() if not isinstance(step, Warp)]
    assert [type(step).__name__ for step in mirrors] == ["HorizontalFlip", "VerticalFlip"]
    augment = augmenter(Component(name="mito"))
    image = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
    seen = Counter(tuple(augment(image, np.zeros((2, 2), np.uint8), s)[0].ravel()) for s in range(400))
    assert len(seen) == 4 and min(seen.values()) > 70


def test_half_the_strength_halves_the_share_of_mirrors():
    augment = augmenter(Component(name="mito", params={"strength": 0.5}))
    image = np.arange(2, dtype=np.float32).reshape(1, 2, 1)
    moved = [augment(image, np.zeros((1, 2), np.uint8), seed)[0][0, 0, 0] for seed in range(800)]
    assert np.mean(moved) == pytest.approx(0.25, abs=0.05)


def test_nuclei_draws_its_steps_with_the_published_shares():
    steps = AUGMENTATIONS["nuclei"]()
    assert [(type(step).__name__, step.p) for step in steps] == [
        ("Warp", 1.0),
        ("OneOf", 1.0),
        ("Recolour", 0.9),
        ("HorizontalFlip", 0.6),
        ("VerticalFlip", 0.7),
        ("OneOf", 0.2),
        ("Recolour", 0.5),
    ]
    assert steps[0].border == "wrap"
    assert [type(step) for step in steps[5].transforms] == [Recolour, Recolour]


def test_nuclei_rotates_by_any_angle():
    _, displacement = warp_of("nuclei")
    _, down, _ = corners(displacement)
    angles = np.degrees(np.arctan2(down[:, 1], down[:, 0]))
    assert np.histogram(angles, 8, (-180, 180))[0].min() > 25


def test_nuclei_moves_mask_and_image_alike_under_its_changes_of_intensity():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 20:30] = 1
    augment = augmenter(Component(name="nuclei"))
    for seed in range(20):
        image, labels = augment(np.repeat(mask[..., None], 3, axis=-1).astype(np.float32), mask, seed)
        assert np.corrcoef(image.mean(axis=-1).ravel(), labels.ravel())[0, 1] > 0.93


def variants(**params):
    return AUGMENTATIONS["tiled"](**params)[0].transforms


def test_tiled_draws_one_of_nineteen_equally_often():
    image = np.random.default_rng(0).random((24, 24, 1), np.float32)
    augment = augmenter(Component(name="tiled"))
    plain = [image, image[:, ::-1], image[::-1], np.rot90(image, 1), np.rot90(image, 2), np.rot90(image, 3)]
    seen = Counter()
    for seed in range(950):
        drawn = augment(image, np.zeros((24, 24), np.uint8), seed)[0]
        seen[next((n for n, known in enumerate(plain) if np.allclose(drawn, known, atol=1e-4)), None)] += 1
    assert len(variants()) == 19
    assert all(28 < seen[number] < 80 for number in range(6))
    assert seen[None] == pytest.approx(950 * 13 / 19, rel=0.06)


def test_tiled_elastic_has_the_measured_not_the_published_strength():
    field, rng = variants()[12].transforms[0].field, np.random.default_rng(0)
    per_axis = np.std([field((256, 256), rng) for _ in range(5)], axis=(0, 2, 3))
    assert per_axis == pytest.approx([2.3, 2.3], rel=0.08)


def test_tiled_distortion_barrel_shrinking_and_shear():
    rng = np.random.default_rng(0)
    fixed = {n: variants()[n].transforms[0].field((101, 101), rng) for n in (7, 8, 13)}
    assert np.abs(fixed[13]).max() == pytest.approx(0.02 * 101, rel=1e-3)
    assert fixed[7][:, 0, 0] == pytest.approx([-12.5, -12.5], abs=1e-3)  # 50 pixels / 0.8 from the centre
    assert fixed[8][:, 0, 0] == pytest.approx([0.0, -5.0], abs=1e-3)
    barrel = variants()[18].transforms[0].field
    assert (barrel.func, barrel.keywords) == (fields.bulge, {"amount": 0.3, "radius": 0.3})


def test_tiled_ignores_what_lies_beyond_the_tile():
    shrink = variants()[7]
    pair = shrink(image=np.ones((50, 50, 1), np.float32), mask=np.ones((50, 50), np.uint8))
    assert np.mean(pair["mask"] == 255) == pytest.approx(1 - 0.8**2, abs=0.03)
    assert (pair["image"][..., 0] == (pair["mask"] == 1)).all()


@pytest.mark.parametrize("name", ["afm", "hela"])
def test_more_strength_moves_further(name):
    lengths = [np.abs(warp_of(name, 30, strength=strength)[1]).mean() for strength in (0.0, 0.3, 1.0, 1.5)]
    assert lengths[0] == 0.0
    assert lengths == sorted(lengths)
