"""Known values of what changes intensities."""

import colorsys

import numpy as np
import pytest

from microseg.augment import augmenter
from microseg.config import Component

RAMP = np.linspace(-2.0, 6.0, 64, dtype=np.float32).reshape(8, 8, 1)  # as z-scored images are: beyond 0 to 1


def drawn(name, image=RAMP, number=200, **params):
    mask = np.zeros(image.shape[:2], np.uint8)
    augment = augmenter(Component(name=name, params={"share": 1.0, **params}))
    return np.stack([augment(image, mask, seed)[0] for seed in range(number)])


def test_brightness_adds_a_fraction_of_the_range():
    added = drawn("brightness_contrast", brightness=0.25, contrast=0.0) - RAMP
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-5
    assert -2.0 <= added.min() < -1.95 and 1.95 < added.max() <= 2.0 + 1e-5


def test_contrast_stretches_about_the_mean():
    changed = drawn("brightness_contrast", brightness=0.0, contrast=0.5)
    assert changed.mean(axis=(1, 2, 3)) == pytest.approx(RAMP.mean(), abs=1e-5)
    stretch = np.ptp(changed, axis=(1, 2, 3)) / 8
    assert 0.5 <= stretch.min() < 0.52 and 1.48 < stretch.max() <= 1.5 + 1e-5


def test_gamma_keeps_both_ends_and_bends_both_ways():
    changed = drawn("gamma", limit=1.0)
    assert changed.min(axis=(1, 2, 3)) == pytest.approx(-2.0, abs=1e-5)
    assert changed.max(axis=(1, 2, 3)) == pytest.approx(6.0, abs=1e-5)
    exponent = np.log((changed[:, 4, 0, 0] + 2) / 8) / np.log((RAMP[4, 0, 0] + 2) / 8)
    assert 0.5 - 1e-4 <= exponent.min() < 0.52 and 1.95 < exponent.max() <= 2 + 1e-4
    assert np.mean(exponent < 1) == pytest.approx(0.5, abs=0.1)


def test_noise_has_a_variance_drawn_evenly_up_to_the_stated_one():
    image = np.zeros((64, 64, 2), np.float32)
    image[0, 0] = 10.0
    noise = drawn("noise", image, deviation=0.1) - image
    deviation = noise.std(axis=(1, 2, 3))
    assert 0.97 < deviation.max() < 1.03
    assert np.mean(deviation**2) == pytest.approx(0.5, rel=0.1)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.01


def test_blur_spreads_a_point_by_its_sigma():
    image = np.zeros((41, 41, 1), np.float32)
    image[20, 20] = 1.0
    blurred = drawn("blur", image, sigma=3.0)[..., 0]
    assert blurred.sum(axis=(1, 2)) == pytest.approx(1.0, abs=1e-3)
    spread = np.sqrt((blurred.sum(axis=1) * (np.arange(41) - 20) ** 2).sum(axis=1))
    assert 2.85 < spread.max() < 3.05
    assert np.median(spread) == pytest.approx(1.5, abs=0.3)


def test_sharpen_overshoots_at_an_edge_and_leaves_flat_parts():
    image = np.zeros((20, 20, 1), np.float32)
    image[:, 10:] = 1.0
    sharp = drawn("sharpen", image, amount=1.0)
    assert sharp[:, 0, 10, 0].max() > 1.2
    assert np.abs(sharp - image)[:, :, [0, 1, 18, 19]].max() < 1e-5


def test_hue_turns_by_up_to_the_stated_degrees():
    image = np.array([[[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.5, 0.5, 0.5], [0.0, 0.0, 1.0]]], np.float32)
    turned = drawn("hsv", image, hue=60.0, saturation=0.0, value=0.0)
    hues = np.array([colorsys.rgb_to_hsv(*changed[0, 0])[0] * 360 for changed in turned])
    hues = (hues + 180) % 360 - 180
    assert -60.1 < hues.min() < -58 and 58 < hues.max() < 60.1
    assert turned[:, 0, 2] == pytest.approx(0.5, abs=1e-5)


def test_grey_stays_grey_whatever_saturation_is_added():
    grey = np.repeat(RAMP, 3, axis=-1)
    changed = drawn("hsv", grey, number=40, hue=90.0, saturation=1.0, value=0.0)
    assert np.ptp(changed, axis=-1).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_what_is_no_colour_has_no_hue(channels):
    image = np.repeat(RAMP, channels, axis=-1)
    np.testing.assert_array_equal(drawn("hsv", image, number=3), np.stack([image] * 3))


def test_clahe_raises_local_contrast_channel_by_channel_within_the_range():
    rows = np.mgrid[:64, :64][0] / 64
    faint = (rows + 0.05 * np.random.default_rng(0).random((64, 64))).astype(np.float32)
    image = np.stack([faint, faint[::-1] * 3], axis=-1)
    changed = drawn("clahe", image, number=20, limit=8.0)
    assert image.min() <= changed.min() and changed.max() <= image.max()
    local = np.abs(np.diff(changed, axis=2)).mean(axis=(1, 2))
    assert (local.max(axis=0) > 1.3 * np.abs(np.diff(image, axis=1)).mean(axis=(0, 1))).all()


def test_a_higher_limit_of_clahe_lets_more_contrast_through():
    rows, columns = np.mgrid[:128, :128] / 128
    image = (0.5 + 0.2 * np.sin(9 * rows * columns))[..., None].astype(np.float32)
    image += 0.01 * np.random.default_rng(0).standard_normal(image.shape, np.float32)
    none, some, much = (
        np.abs(np.diff(drawn("clahe", image, number=5, limit=limit), axis=1)).mean() for limit in (1, 4, 40)
    )
    assert 1.2 * none < some < much / 1.2
