import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import color

from microseg.components import bind, create, parameters
from microseg.config import Component
from microseg.data.preprocess import PREPROCESSING, output_channels, percentile, scale, zscore
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
    image[9, 9] = 0
    assert percentile(image)[[0, 9, 5], [0, 9, 5], 0] == pytest.approx([1.0, 0.0, 10 / 200])


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
    with pytest.raises(
        MicrosegError, match="unknown parameter 'low'; allowed: channels, clahe, colour, gamma"
    ):
        bind(Component(name="scale", params={"low": 1}), PREPROCESSING, "preprocess")
    with pytest.raises(MicrosegError, match="parameter 'clahe' is 0"):
        bind(Component(name="zscore", params={"clahe": 0}), PREPROCESSING, "preprocess")
    with pytest.raises(MicrosegError, match="parameter 'channels' is \\[-1\\]"):
        bind(Component(name="zscore", params={"channels": [-1]}), PREPROCESSING, "preprocess")


OPTIONS = {
    "two channels": {"channels": (2, 0)},
    "grey": {"colour": "grey", "clahe": 4.0},
    "hsv": {"colour": "hsv", "clahe": 3.0, "gamma": 0.5},
    "lab": {"colour": "lab", "clahe": 1.0, "gamma": 2.0},
    "colours equalised": {"clahe": 4.0, "gamma": 0.8},
    "channels equalised": {"channels": (0, 1), "clahe": 256.0},
}


def colours(dtype=np.uint8, shape=(32, 40)):
    top = 1.0 if dtype is np.float32 else np.iinfo(dtype).max
    return (np.random.default_rng(0).random((*shape, 3)) * top).astype(dtype)


@pytest.mark.parametrize("name", PREPROCESSING)
def test_every_entry_takes_the_common_options(name):
    assert {"channels", "colour", "clahe", "gamma"} <= parameters(PREPROCESSING[name]).keys()
    own = {"percentile": {"low", "high", "clip"}, "scale": {"maximum"}, "zscore": set()}[name]
    assert parameters(PREPROCESSING[name]).keys() == own | {"channels", "colour", "clahe", "gamma"}
    with pytest.raises(TypeError, match="unexpected keyword argument 'gama'"):
        PREPROCESSING[name](colours(), gama=2.0)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_options_give_finite_float32_of_the_announced_channels(name, options, dtype):
    image = colours(dtype)
    before = image.copy()
    image.flags.writeable = False
    component = Component(name=name, params=options)
    result = create(component, PREPROCESSING, "preprocess", image)
    assert result.dtype == np.float32
    assert result.shape == (32, 40, output_channels(component, 3))
    assert np.isfinite(result).all()
    assert np.array_equal(image, before)
    assert np.array_equal(result, create(component, PREPROCESSING, "preprocess", image))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", PREPROCESSING)
@pytest.mark.parametrize("image", [np.full((9, 9, 3), 7, np.uint8), np.zeros((1, 1, 3), np.uint8)])
def test_constant_images_give_no_nan(name, options, image):
    assert np.isfinite(PREPROCESSING[name](image, **options)).all()


def test_channels_are_selected_first_and_in_order():
    image = colours()
    chosen = PREPROCESSING["zscore"](image, channels=(2, 0))
    assert np.array_equal(chosen, zscore(image[..., [2, 0]]))


@pytest.mark.parametrize(
    ("params", "channels", "said"),
    [
        ({"channels": [0, 3]}, 3, "channel 3 does not exist; the image has 3, counted from 0: give channels"),
        ({"colour": "hsv"}, 1, "colour 'hsv' needs red, green and blue, not 1 channel"),
        ({"colour": "lab", "channels": [0, 1]}, 3, "colour 'lab' needs red, green and blue, not 2 channel"),
    ],
)
def test_impossible_channels_are_one_line_before_and_while_images_are_read(params, channels, said):
    component = Component(name="scale", params=params)
    with pytest.raises(MicrosegError, match=said):
        output_channels(component, channels)
    with pytest.raises(MicrosegError, match=said):
        create(component, PREPROCESSING, "preprocess", colours()[..., :channels])


@pytest.mark.parametrize(
    ("params", "given", "wanted"),
    [({}, 5, 5), ({"channels": [4, 0]}, 5, 2), ({"colour": "grey"}, 3, 1), ({"colour": "hsv"}, 3, 3)],
)
def test_output_channels(params, given, wanted):
    assert output_channels(Component(name="percentile", params=params), given) == wanted


def test_output_channels_checks_the_table_too():
    with pytest.raises(MicrosegError, match="did you mean 'percentile'"):
        output_channels(Component(name="percentil"), 1)
    with pytest.raises(MicrosegError, match="low must be below high"):
        output_channels(Component(name="percentile", params={"low": 60.0, "high": 40.0}), 1)


def test_a_stated_maximum_gives_the_raw_numbers_that_some_networks_were_trained_with():
    image = np.array([[[0, 51, 255]]], np.uint8)
    assert scale(image, maximum=1.0).ravel() == pytest.approx([0, 51, 255])
    assert scale(image.astype(np.int64), maximum=510).ravel() == pytest.approx([0, 0.1, 0.5])


def test_known_colours():
    rgb = np.array([[[255, 0, 0], [0, 0, 255], [255, 255, 255], [128, 128, 128]]], np.uint8)
    hsv = PREPROCESSING["scale"](rgb, colour="hsv")[0]
    assert hsv == pytest.approx(np.array([[0, 1, 1], [2 / 3, 1, 1], [0, 0, 1], [0, 0, 0.502]]), abs=0.004)
    lab = PREPROCESSING["scale"](rgb, colour="lab", maximum=255)[0]
    assert lab[2] == pytest.approx([1.0, 128 / 255, 128 / 255], abs=0.004)
    assert lab[0] == pytest.approx([0.532, (80.1 + 128) / 255, (67.2 + 128) / 255], abs=0.004)
    grey = PREPROCESSING["scale"](rgb, colour="grey")[0, :, 0]
    assert grey == pytest.approx([0.2125, 0.0721, 1.0, 0.502], abs=0.003)


@pytest.mark.parametrize("colour", ["grey", "hsv", "lab"])
def test_colour_spaces_mean_the_same_in_every_number_type(colour):
    shallow = colours(np.uint8)
    deep, real = shallow.astype(np.uint16) * 257, (shallow / 255).astype(np.float32)
    expected = PREPROCESSING["scale"](real, colour=colour)
    assert PREPROCESSING["scale"](deep, colour=colour) == pytest.approx(expected, abs=1e-4)
    assert PREPROCESSING["scale"](shallow, colour=colour) == pytest.approx(expected, abs=0.0021)


def test_white_stays_within_the_range_of_floats():
    assert PREPROCESSING["scale"](np.ones((4, 4, 3), np.float32), colour="grey").max() <= 1.0


def test_colours_of_unscaled_floats_are_refused():
    with pytest.raises(MicrosegError, match=r"colour 'lab' takes float images in 0\.\.1, got 0 to 255"):
        PREPROCESSING["percentile"](np.array([[[0, 3, 255]]], np.float32), colour="lab")


@pytest.mark.parametrize("limit", [4.0, 8.0, 16.0])
def test_clahe_is_limited_as_in_opencv(limit):
    """A factor of two in the limit would change the correlation to below 0.98 or the spread by a third."""
    rows, columns = np.mgrid[:512, :512] / 512
    rng = np.random.default_rng(0)
    image = np.clip(90 + 40 * np.sin(9 * rows * columns) + 9 * rng.standard_normal(rows.shape), 0, 255)
    image = image.astype(np.uint8)
    image[0, :2] = 0, 255  # scikit-image first stretches an image to its range, OpenCV does not
    expected = cv2.createCLAHE(limit, (8, 8)).apply(image) / 255
    ours = PREPROCESSING["scale"](image[..., None], clahe=limit)[..., 0]
    assert np.corrcoef(expected.ravel(), ours.ravel())[0, 1] > 0.99
    assert ours.std() == pytest.approx(expected.std(), rel=0.07)


def test_clahe_makes_a_dim_image_as_bright_as_any():
    image = colours()[..., :1]
    bright, dim = (PREPROCESSING["scale"](x, clahe=4.0) for x in (image, image // 4))
    assert (dim.min(), dim.max()) == (bright.min(), bright.max()) == (0.0, 1.0)
    assert dim.mean() == pytest.approx(bright.mean(), abs=0.02)


def test_clahe_of_colours_keeps_their_hue():
    image = (colours(np.float32) * 0.3 + np.array([0.4, 0.2, 0.1])).astype(np.float32)
    result = PREPROCESSING["scale"](image, clahe=4.0)
    assert result.std() > 1.2 * image.std()
    before, after = color.rgb2lab(image), color.rgb2lab(result)
    inside = (result > 0.01).all(-1) & (result < 0.99).all(-1)  # colours that a screen cannot show are cut
    assert np.abs(before - after)[inside][:, 1:].max() < 0.5


def test_clahe_of_separate_channels_treats_each_alone():
    image = colours()[..., :2]
    both = PREPROCESSING["percentile"](image, clahe=4.0)
    alone = PREPROCESSING["percentile"](image[..., 1:], clahe=4.0)
    assert np.array_equal(both[..., 1:], alone)


def test_hue_is_never_equalised():
    plain = PREPROCESSING["scale"](colours(), colour="hsv")
    adjusted = PREPROCESSING["scale"](colours(), colour="hsv", clahe=4.0, gamma=0.5)
    assert adjusted[..., :2] == pytest.approx(plain[..., :2], abs=1e-6)
    assert np.abs(adjusted[..., 2] - plain[..., 2]).max() > 0.1


def test_gamma_known_values_and_kept_range():
    assert PREPROCESSING["scale"](np.array([[[0.25], [1.0]]], np.float32), gamma=0.5).ravel() == (
        pytest.approx([0.5, 1.0])
    )
    plain = PREPROCESSING["zscore"](colours())
    bent = PREPROCESSING["zscore"](colours(), gamma=2.0)
    assert (bent.min(), bent.max()) == pytest.approx((plain.min(), plain.max()), abs=1e-5)
    assert bent.mean() < plain.mean() - 0.1


LIGHT = """
import sys
import microseg.data.preprocess
assert "skimage" not in sys.modules and "albumentations" not in sys.modules
"""


def test_reading_a_configuration_imports_no_image_library():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", LIGHT], env=environment).returncode == 0
