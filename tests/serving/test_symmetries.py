"""The mean over the symmetries of a square: algebra says how it turns."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from microseg.serving.symmetries import over_symmetries


def batch(side=6, seed=0):
    return np.random.default_rng(seed).random((2, side, side, 2), np.float32)


def slanted(values):
    """Answers by place and direction: nothing of it is symmetric."""
    side = values.shape[1]
    return np.cumsum(values, axis=2) * np.arange(1, side + 1, dtype=np.float32)[:, None, None]


@settings(max_examples=20, deadline=None)
@given(side=st.integers(1, 9))
def test_a_pointwise_network_is_unchanged(side):
    assert_allclose(over_symmetries(lambda values: values**2)(batch(side)), batch(side) ** 2, rtol=1e-6)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_the_result_turns_with_the_image_whatever_the_network_does(turns, mirror):
    def moved(values):
        return np.rot90(values[:, :, ::-1] if mirror else values, turns, axes=(1, 2))

    mean = over_symmetries(slanted)
    assert_allclose(mean(moved(batch())), moved(mean(batch())), rtol=1e-5)
    if turns or mirror:
        assert np.abs(slanted(moved(batch())) - moved(slanted(batch()))).max() > 1


def test_eight_different_views_of_each_tile_are_predicted():
    seen = []
    over_symmetries(lambda values: seen.append(values) or values)(batch())
    assert len({values.tobytes() for values in seen}) == 8
    assert all(values.flags.c_contiguous for values in seen)
