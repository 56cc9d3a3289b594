"""Balanced class weights: every class weighs alike, and a pixel 1 on average."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.components import check
from microseg.config import Component
from microseg.errors import MicrosegError
from microseg.losses import LOSSES, balance

BALANCED = Component(name="focal", params={"gamma": 1.0, "class_weights": "balanced"})


@given(pixels=st.lists(st.integers(1, 10**9), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_every_class_weighs_alike_and_a_pixel_one_on_average(pixels):
    weights = np.array(balance(BALANCED, lambda: pixels).params["class_weights"])
    np.testing.assert_allclose(weights * pixels, np.sum(pixels) / len(pixels))
    np.testing.assert_allclose(np.average(weights, weights=pixels), 1.0)


@pytest.mark.parametrize("frequency", [(900, 100), (0.9, 0.1)])
def test_by_hand_from_counts_and_shares(frequency):
    weights = balance(BALANCED, lambda: frequency).params["class_weights"]
    assert weights == pytest.approx((1 / 1.8, 5.0))


def test_class_without_pixels_weighs_nothing():
    assert balance(BALANCED, lambda: [6, 0, 2]).params["class_weights"] == pytest.approx((8 / 12, 0.0, 2.0))


def test_result_fits_the_table_and_keeps_everything_else():
    result = balance(BALANCED, lambda: np.array([3, 1]))
    assert check(result, LOSSES, "loss")["gamma"] == 1.0
    assert BALANCED.params["class_weights"] == "balanced"


@pytest.mark.parametrize("params", [{}, {"class_weights": None}, {"class_weights": [1, 2]}])
def test_other_components_are_left_alone_and_no_pixel_is_counted_for_them(params):
    component = Component(name="bce", params=params)
    assert balance(component, lambda: pytest.fail("the masks are read")) is component


@pytest.mark.parametrize("frequency", [[0, 0], [1, -1], [1, float("nan")], []])
def test_frequencies_that_say_nothing_are_refused(frequency):
    with pytest.raises(MicrosegError, match=r"class frequencies are \[.*need labelled pixels"):
        balance(BALANCED, lambda: frequency)
