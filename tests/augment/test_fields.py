"""Displacements, measured: on the fields, and on coordinate images that recipes have warped."""

from functools import partial

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.augment import AUGMENTATIONS, fields
from microseg.augment.transforms import Warp

CORNERS = np.array([[0, 0], [0, -1], [-1, 0], [-1, -1]]).T


def draws(field, number, shape=(64, 80)):
    rng = np.random.default_rng(0)
    return np.stack([field(shape, rng) for _ in range(number)])


def rms(displacements):
    """Root mean square length over pixels and draws, of (..., 2, height, width)."""
    return np.sqrt(np.mean(np.sum(np.square(displacements), axis=-3)))


def matrices(displacements):
    """Fit the matrix and the shift at the centre that a displacement holds, exactly."""
    shape = displacements.shape[-2:]
    places = fields.coordinates(shape).reshape(2, -1) - (np.array(shape)[:, None] - 1) / 2
    known = np.vstack([places, np.ones(places.shape[1])]).T
    fitted = [np.linalg.lstsq(known, (places + d.reshape(2, -1)).T, rcond=None)[0].T for d in displacements]
    return np.stack(fitted)[..., :2], np.stack(fitted)[..., 2]


@pytest.mark.parametrize(("displacement", "sigma"), [(2.0, 4.0), (2.0, 8.0), (6.0, 20.0), (3.0, 60.0)])
def test_elastic_warps_a_coordinate_image_by_the_stated_root_mean_square(displacement, sigma):
    side, margin = 192, 32  # beyond the border there is no coordinate to measure
    grid = np.stack(np.mgrid[:side, :side], axis=-1).astype(np.float32)
    warp = A.Compose(AUGMENTATIONS["elastic"](displacement=displacement, sigma=sigma, share=1.0)[-1:], seed=1)
    number = 10 if sigma < 10 else 150  # a wide sigma leaves few independent displacements in a tile
    moved = np.stack([warp(image=grid)["image"] - grid for _ in range(number)])
    measured = rms(np.moveaxis(moved[:, margin:-margin, margin:-margin], -1, 1))
    assert measured == pytest.approx(displacement, rel=0.05)


@pytest.mark.parametrize("sigma", [3.0, 10.0, 100.0])
def test_elastic_is_as_strong_at_the_border_as_inside(sigma):
    field = draws(partial(fields.elastic, displacement=1.0, sigma=sigma), 800, (24, 24))
    assert rms(field[..., :2, :]) == pytest.approx(1.0, rel=0.1)
    assert rms(field[..., 11:13, :]) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("sigma", [3.0, 8.0])
def test_elastic_is_as_smooth_as_noise_that_a_gaussian_smoothed(sigma):
    """Such noise is correlated by exp(-d^2 / 4 sigma^2) over a distance d."""
    field = draws(partial(fields.elastic, displacement=1.0, sigma=sigma), 60, (96, 96))
    distance = round(2 * sigma)
    product = np.mean(field[..., distance:] * field[..., :-distance]) / np.mean(field**2)
    assert product == pytest.approx(np.exp(-(distance**2) / (4 * sigma**2)), abs=0.05)


def test_elastic_down_and_across_are_independent():
    field = draws(partial(fields.elastic, displacement=1.0, sigma=4.0), 50)
    assert abs(np.corrcoef(field[:, 0].ravel(), field[:, 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("cells", [1, 3, 8])
def test_grid_distortion_has_the_stated_root_mean_square_and_straight_cells(cells):
    field = draws(partial(fields.nodes, displacement=3.0, cells=cells), 400, (49, 49))
    assert rms(field) == pytest.approx(3.0, rel=0.05)
    step = 48 // cells
    bend = np.diff(field[..., : step + 1], n=2, axis=-1)
    assert np.abs(bend).max() < 1e-3


@given(st.integers(1, 70), st.integers(1, 70), st.floats(0.0, 0.9))
@settings(max_examples=25, deadline=None)
def test_lens_moves_the_corners_by_at_most_the_stated_fraction(height, width, limit):
    field = draws(partial(fields.lens, displacement=limit), 5, (height, width))
    diagonal = np.hypot(height - 1, width - 1) / 2
    lengths = np.hypot(*np.moveaxis(field, 1, 0))
    assert lengths[:, *CORNERS].max(initial=0) <= limit * diagonal + 1e-3
    assert lengths.max() <= lengths[:, *CORNERS].max(initial=0) + 1e-3


def test_lens_reaches_the_stated_fraction_both_ways():
    field = draws(partial(fields.lens, displacement=0.2), 300, (61, 81))
    along = field[:, 0, 0, 0] / -30  # the top corner's row, as a fraction of its distance from the centre
    assert -0.2 <= along.min() < -0.19
    assert 0.19 < along.max() <= 0.2


@pytest.mark.parametrize("amount", [0.3, -0.3])
def test_bulge_follows_its_formula_inside_the_disc_and_moves_nothing_outside(amount):
    class Middle:
        def uniform(self, low, high, size):
            return np.full(size, (low + high) / 2)

    field = fields.bulge((101, 101), Middle(), amount=amount, radius=0.3)
    assert np.hypot(*field[:, 50, 50]) == 0.0
    for r in (1, 10, 25, 30):
        expected = r * np.sin(np.pi * r / (2 * 30.3)) ** amount
        assert r + field[1, 50, 50 + r] == pytest.approx(expected, rel=1e-4)
        assert field[0, 50, 50 + r] == pytest.approx(0.0, abs=1e-4)
    rows, columns = fields.coordinates((101, 101)) - 50
    assert np.abs(field[:, np.hypot(rows, columns) > 30.4]).max() == 0.0


def test_bulges_lie_anywhere():
    field = draws(partial(fields.bulge, amount=0.3, radius=0.2), 200, (50, 50))
    touched = (np.abs(field).max(axis=1) > 0.05).mean(axis=0)
    assert touched.min() > 0.0


def test_affine_stays_within_its_limits_and_reaches_them():
    field = draws(partial(fields.affine, angle=30.0, shift=0.1), 400)
    matrix, shift = matrices(field)
    angle = np.degrees(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    assert -30.01 < angle.min() < -29 and 29 < angle.max() < 30.01
    assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-4)
    assert np.abs(shift).max(axis=0) == pytest.approx([6.4, 8.0], rel=0.02)


def test_zoom_and_shear_are_magnification_and_degrees():
    matrix, _ = matrices(draws(partial(fields.affine, zoom=0.2), 300))
    magnification = 1 / matrix[:, 0, 0]
    assert magnification == pytest.approx(1 / matrix[:, 1, 1], rel=1e-3)
    assert 0.799 < magnification.min() < 0.81 and 1.19 < magnification.max() < 1.201
    apart, _ = matrices(draws(partial(fields.affine, zoom=0.2, isotropic=False), 50))
    assert np.abs(apart[:, 0, 0] - apart[:, 1, 1]).max() > 0.1
    slant, _ = matrices(draws(partial(fields.affine, shear=10.0), 300))
    assert 9.9 < np.degrees(np.arctan(slant[:, 1, 0])).max() < 10.01


def test_a_window_lies_within_the_tile_and_fills_it():
    source = draws(partial(fields.window, smallest=0.5), 300) + fields.coordinates((64, 80))
    assert source[:, 0].min() > -1e-3 and source[:, 0].max() < 63 + 1e-3
    assert source[:, 1].min() > -1e-3 and source[:, 1].max() < 79 + 1e-3
    sides = np.ptp(source[:, 0], axis=(1, 2)) / 63
    assert 0.5 - 1e-3 < sides.min() < 0.51 and 0.98 < sides.max() < 1.001


def test_bounded_elastic_reaches_a_fraction_of_the_width():
    field = draws(partial(fields.bounded_elastic, largest=0.02, sigma=10.0), 5, (40, 100))
    assert np.abs(field).max(axis=(1, 2, 3)) == pytest.approx(2.0, rel=1e-4)


def shifted(border, channels=1, planes=()):
    """Sample everything three pixels further right; the last three columns have no source."""
    right = np.stack([np.zeros((5, 8), np.float32), np.full((5, 8), 3, np.float32)])
    warp = A.Compose([Warp(lambda shape, rng: right, border)])
    image = np.tile(np.arange(8, dtype=np.float32)[None, :, None], (5, 1, channels))
    mask = np.tile(np.arange(8, dtype=np.uint8)[None, :], (5, 1))
    if planes:
        mask = np.repeat(mask[..., None], *planes, axis=-1)
    warped = warp(image=image, mask=mask)
    return warped["image"], warped["mask"]


@pytest.mark.parametrize(
    ("border", "image", "mask"),
    [
        ("reflect", [6, 5, 4], [6, 5, 4]),
        ("wrap", [0, 1, 2], [0, 1, 2]),
        ("nearest", [7, 7, 7], [7, 7, 7]),
        ("constant", [0, 0, 0], [255, 255, 255]),
    ],
)
@pytest.mark.parametrize("channels", [1, 5])
def test_borders(border, image, mask, channels):
    warped, labels = shifted(border, channels, (6,))
    for channel in range(channels):
        assert warped[2, :, channel].tolist() == [3, 4, 5, 6, 7, *image]
    for plane in range(6):
        assert labels[2, :, plane].tolist() == [3, 4, 5, 6, 7, *mask]
    assert shifted(border)[1].tolist() == labels[..., 0].tolist()
