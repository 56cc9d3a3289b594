import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microseg.components import bind
from microseg.config import Component
from microseg.data.preprocess import PREPROCESSING, percentile, scale, zscore
from microseg.errors import MicrosegError

RAMP = np.arange(101, dtype=np.uint16).reshape(1, 101, 1)
ANY_TYPE = st.sampled_from([np.uint8, np.uint16, np.float32])


@st.composite
def any_image(draw):
    dtype = draw(ANY_TYPE)
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 5)))
    top = 1.0 if dtype is np.float32 else np.iinfo(dtype).max
    elements = st.floats(0, top, width=32) if dtype is np.float32 else st.integers(0, top)
    return draw(hnp.arrays(dtype, shape, elements=elements))


@pytest.mark.parametrize("name", PREPROCESSING)
@given(image=any_image())
@settings(max_examples=30, deadline=None)
def test_every_entry_gives_finite_float32_and_leaves_its_input(name, image):
    before = image.copy()
    image.flags.writeable = False
    result = PREPROCESSING[name](image)
    assert result.dtype == np.float32
    assert result.shape == image.shape
    assert np.isfinite(result).all()
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", ["percentile", "zscore"])
@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_channel_becomes_zero(name, value):
    image = np.dstack([np.full((5, 7), value, np.uint16), np.arange(35, dtype=np.uint16).reshape(5, 7)])
    result = PREPROCESSING[name](image)
    assert (result[..., 0] == 0).all()
    assert result[..., 1].max() > 0.9


@pytest.mark.parametrize("name", ["percentile", "zscore"])
def test_brightness_and_contrast_do_not_matter(name):
    image = np.random.default_rng(0).integers(0, 1000, (20, 20, 2), dtype=np.uint16)
    brighter = (image * 3 + 500).astype(np.uint16)
    assert np.allclose(PREPROCESSING[name](image), PREPROCESSING[name](brighter), atol=1e-5)


def test_percentile_known_values():
    result = percentile(RAMP, low=10.0, high=90.0, clip=False)
    assert result[0, [10, 50, 90, 100], 0] == pytest.approx([0.0, 0.5, 1.0, 1.125])
    clipped = percentile(RAMP, low=10.0, high=90.0)
    assert clipped.min() == 0.0
    assert clipped.max() == 1.0
    assert clipped[0, 50, 0] == pytest.approx(0.5)


def test_percentile_of_a_nearly_empty_field_keeps_its_cell():
    image = np.full((100, 100, 1), 10, np.uint8)
    image[0, 0] = 200
    result = percentile(image)
    assert result[0, 0, 0] == 1.0
    assert result[5, 5, 0] == 0.0


def test_percentile_order_is_checked():
    with pytest.raises(MicrosegError, match="low must be below high"):
        percentile(RAMP, low=60.0, high=40.0)


def test_scale_by_number_type():
    assert scale(np.array([[[0, 51, 255]]], np.uint8)).ravel() == pytest.approx([0, 0.2, 1])
    assert scale(np.array([[[0, 65535]]], np.uint16)).ravel() == pytest.approx([0, 1])
    assert scale(np.array([[[0.25]]], np.float32)).ravel() == pytest.approx([0.25])


@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_scale_refuses_floats_outside_0_to_1(value):
    with pytest.raises(MicrosegError, match=r"float images in 0\.\.1"):
        scale(np.array([[[value]]], np.float32))


def test_scale_refuses_other_integers():
    with pytest.raises(MicrosegError, match="got int64"):
        scale(np.array([[[5]]], np.int64))


def test_zscore_known_values():
    image = np.array([[[1.0], [3.0]]], np.float32)
    assert zscore(image).ravel() == pytest.approx([-1.0, 1.0])


def test_zscore_of_a_constant_with_an_inexact_mean_is_zero():
    assert (zscore(np.full((7, 11, 1), 0.1, np.float32)) == 0).all()


def test_parameters_are_bounded():
    with pytest.raises(MicrosegError, match="less than or equal to 100"):
        bind(Component(name="percentile", params={"high": 101}), PREPROCESSING, "preprocess")
    with pytest.raises(MicrosegError, match="it takes no parameters"):
        bind(Component(name="scale", params={"low": 1}), PREPROCESSING, "preprocess")
