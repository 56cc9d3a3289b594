"""Label images and measurements that users take along."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from microseg.errors import MicrosegError
from microseg.serving.objects import as_uint16, measurements

LABELS = np.zeros((20, 30), np.int32)
LABELS[2:6, 4:8] = 1
LABELS[10:12, 10:30] = 2
GREY = np.where(LABELS == 2, 100, 7).astype(np.uint16)[..., None]


def test_a_square_and_a_bar_are_measured_as_by_hand():
    table = measurements(LABELS, GREY)
    assert table["label"] == [1, 2]
    assert table["area_px"] == [16, 40]
    assert (table["centroid_y"], table["centroid_x"]) == ([3.5, 10.5], [5.5, 19.5])
    assert table["mean_intensity"] == [7, 100]
    assert_allclose(table["equivalent_diameter_px"], 2 * np.sqrt(np.array([16, 40]) / np.pi))
    assert_allclose(table["eccentricity"], [0, np.sqrt(1 - (2**2 - 0) / 20**2)], atol=2e-3)
    assert not [name for name in table if name.endswith(("um", "um2"))]


def test_micrometres_come_from_the_size_of_a_pixel_and_channels_are_counted_from_1():
    table = measurements(LABELS, np.concatenate([GREY, GREY * 2], axis=2), 0.5)
    assert table["area_um2"] == [4, 10]
    assert_allclose(table["equivalent_diameter_um"], np.array(table["equivalent_diameter_px"]) / 2)
    assert (table["mean_intensity_1"], table["mean_intensity_2"]) == ([7, 100], [14, 200])


@pytest.mark.parametrize("channels", [1, 3])
def test_without_objects_the_columns_are_there_and_empty(channels):
    image = GREY.repeat(channels, axis=2)
    none = measurements(np.zeros_like(LABELS), image, 0.5)
    assert list(none) == list(measurements(LABELS, image, 0.5))
    assert not any(none.values())


def test_labels_fit_16_bits_or_are_refused():
    assert as_uint16(LABELS).dtype == np.uint16
    assert_array_equal(as_uint16(LABELS), LABELS)
    assert as_uint16(np.full((1, 1), 65_535, np.int32))[0, 0] == 65_535
    with pytest.raises(MicrosegError, match="65536 objects, but a 16-bit label image holds 65535"):
        as_uint16(np.full((1, 1), 65_536, np.int32))
