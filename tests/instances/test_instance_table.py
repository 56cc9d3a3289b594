"""The table of an image in blocks is scikit-image's of the whole image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import ndimage
from skimage import measure

from microseg.errors import MicrosegError
from microseg.instances import measure_blocks, measurements

THEIRS = {
    "label": "label",
    "area": "area_px",
    "centroid-0": "centroid_y",
    "centroid-1": "centroid_x",
    "equivalent_diameter_area": "equivalent_diameter_px",
    "eccentricity": "eccentricity",
    "intensity_mean-0": "mean_intensity_1",
    "intensity_mean-1": "mean_intensity_2",
}
NAMES = ("label", "area", "centroid", "equivalent_diameter_area", "eccentricity", "intensity_mean")


def joined(tables):
    tables = list(tables)
    table = {name: np.concatenate([one[name] for one in tables]) for name in tables[-1]}
    return {name: values[table["label"].argsort()] for name, values in table.items()}


def scene(seed, height, width):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.random((height, width)), 1.5)
    labels = measure.label(field > np.quantile(field, 0.6), connectivity=2)
    return labels, rng.integers(0, 60_000, (height, width, 2)).astype(np.uint16)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 60), st.integers(4, 70))
def test_the_columns_are_those_of_regionprops(seed, height, width, block):
    labels, image = scene(seed, height, width)
    expected = measure.regionprops_table(labels, image, properties=NAMES)
    for table in (measurements(labels, image), joined(measure_blocks(labels, image, block=block))):
        assert list(table) == list(THEIRS.values())
        for theirs, ours in THEIRS.items():
            # The root of a rounding error: a circle's eccentricity is 0 within its half of the digits.
            assert_allclose(table[ours], expected[theirs], rtol=1e-9, atol=1e-6, err_msg=ours)


def test_every_object_is_in_one_table_and_micrometres_in_all():
    labels, image = scene(1, 50, 60)
    tables = list(
        measure_blocks(labels, lambda rows, columns: image[rows, columns], block=20, pixel_size_um=0.5)
    )
    assert 3 < len(tables) <= 10
    table = joined(tables)
    assert table["label"].tolist() == list(range(1, labels.max() + 1))
    assert_allclose(table["area_um2"], table["area_px"] / 4)
    assert_allclose(table["centroid_y_um"], table["centroid_y"] / 2)
    assert_allclose(table["centroid_x_um"], table["centroid_x"] / 2)
    assert_allclose(table["equivalent_diameter_um"], table["equivalent_diameter_px"] / 2)


def test_far_from_the_corner_a_disc_is_as_round_as_near_to_it():
    """Sums of squares about the corner of the image would lose all digits that tell."""
    y, x = np.mgrid[-5:6, -5:6]
    disc = (y**2 + x**2 <= 26).astype(np.int8)
    disc[5, 0] = 0  # not quite symmetric
    labels = np.zeros((3_000_000, 11), np.int8)
    labels[1_999_997:2_000_008] = disc
    grey = lambda rows, columns: np.ones((rows.stop - rows.start, 11, 1))  # noqa: E731
    near = measurements(disc, np.ones((11, 11, 1)))
    *_, far = measure_blocks(labels, grey, block=1_000_000)
    assert far["area_px"] == near["area_px"]
    assert_allclose(far["eccentricity"], near["eccentricity"], rtol=1e-7)
    assert_allclose(far["centroid_y"], np.array(near["centroid_y"]) + 1_999_997, rtol=1e-12)


def test_no_object_gives_the_columns_and_another_size_one_line():
    nothing = np.zeros((8, 8), np.int32)
    (table,) = measure_blocks(nothing, np.zeros((8, 8, 3)), block=4)
    assert list(table)[-1] == "mean_intensity_3"
    assert not any(table.values())
    with pytest.raises(MicrosegError, match=r"4 x 4 pixels was read as \(4, 2, 1\)"):
        list(measure_blocks(nothing, np.zeros((8, 6, 1)), block=4))
