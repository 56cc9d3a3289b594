"""What is measured in bands of rows and applied to windows equals the preprocessed whole image, bit for bit."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from microseg.config import Component
from microseg.data.preprocess import PREPROCESSING, bands, fit, percentile
from microseg.data.preprocess.bands import moments, strips
from microseg.data.preprocess.percentiles import percentiles
from microseg.errors import MicrosegError

STREAMED = [
    Component(name="scale"),
    Component(name="scale", params={"maximum": 0.25, "gamma": 0.7}),
    Component(name="scale", params={"colour": "hsv", "gamma": 2.2}),
    Component(name="percentile"),
    Component(name="percentile", params={"low": 20.0, "high": 35.5, "clip": False, "gamma": 0.4}),
    Component(name="percentile", params={"channels": [2, 0], "clip": False}),
    Component(name="percentile", params={"colour": "lab", "gamma": 1.3}),
    Component(name="zscore"),
    Component(name="zscore", params={"channels": [1]}),
    Component(name="zscore", params={"colour": "grey", "gamma": 0.5}),
]
TYPES = [np.uint8, np.uint16, np.float32]
STRIP = 300


@pytest.fixture(autouse=True, scope="module")
def low_strips():
    """Divide small images too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "_STRIP", STRIP)
        yield


def image_of(dtype, height, width, channels=3, seed=0, constant=False):
    """Skewed values with a few equal ones; the first channel constant where asked for."""
    values = np.random.default_rng(seed).random((height, width, channels)) ** 3
    values[: height // 2, 0] = 0.125
    if constant:
        values[..., 0] = 0.3
    return (values * (1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max)).astype(dtype)


def divided(image, cuts):
    """Return the image as a function that gives its bands anew at each call."""
    return lambda: iter(np.split(image, sorted(cuts)))


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("component", STREAMED, ids=str)
@pytest.mark.parametrize("dtype", TYPES)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_any_window_after_any_division_equals_the_whole_image(component, dtype, data):
    height, width = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    image = image_of(
        dtype, height, width, seed=data.draw(st.integers(0, 9)), constant=data.draw(st.booleans())
    )
    cuts = data.draw(st.sets(st.integers(1, height - 1))) if height > 1 else ()
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))

    whole = PREPROCESSING[component.name](image, **component.params)
    preprocess = fit(component, divided(image, cuts))
    assert same(preprocess(image), whole)
    window = np.s_[top:bottom, left:right]
    assert same(preprocess(image[window].copy()), whole[window])


@pytest.mark.parametrize("name", PREPROCESSING)
def test_rows_one_by_one_and_the_order_of_memory_change_nothing(name):
    image = image_of(np.float32, 23, 1003)
    whole = PREPROCESSING[name](image)
    planar = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    assert same(fit(Component(name=name), divided(np.moveaxis(planar, 0, -1), range(1, 23)))(image), whole)
    assert same(fit(Component(name=name), divided(image.astype(">f4"), [5]))(image), whole)


@pytest.mark.parametrize("colour", ["grey", "hsv", "lab"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pixel_has_one_colour_wherever_it_lies(colour, dtype):
    """A matrix product of all pixels, as scikit-image's, rounds single precision by the pixel's place."""
    image = image_of(dtype, 40, 211)
    whole = PREPROCESSING["scale"](image, colour=colour)
    rng = np.random.default_rng(1)
    for _ in range(20):
        top, left = rng.integers(0, 39), rng.integers(0, 210)
        window = np.s_[top : rng.integers(top + 1, 41), left : rng.integers(left + 1, 212)]
        assert same(PREPROCESSING["scale"](image[window], colour=colour), whole[window])


NUMBERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8", ">u2", ">f4"]


@pytest.mark.parametrize("dtype", NUMBERS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_percentiles_are_those_of_numpy(dtype, data):
    bounds = {"min_value": -1000, "max_value": 1000} if "f" in dtype else {}
    elements = hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False, **bounds)
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3)))
    image = data.draw(hnp.arrays(dtype, shape, elements=elements))
    wanted = data.draw(st.lists(st.floats(0, 100), min_size=1, max_size=5))
    expected = np.percentile(image.astype(np.dtype(dtype).newbyteorder("=")), wanted, axis=(0, 1))
    cuts = data.draw(st.sets(st.integers(1, shape[0])))
    assert np.array_equal(percentiles(divided(image, cuts - {shape[0]}), wanted), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_percentiles_of_many_values_are_those_of_numpy(dtype):
    image = np.random.default_rng(0).normal(0.5, 0.05, (150, 60, 2))
    image = (image * (1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max)).astype(dtype)
    wanted = [0, 0.1, 1, 33.3, 50, 99.8, 100]
    expected = np.percentile(image, wanted, axis=(0, 1))
    assert np.array_equal(percentiles(lambda: [image[:31], image[31:]], wanted), expected)


def test_percentiles_tell_neighbouring_floats_apart():
    """All share the leading 16 bits, and both signs occur."""
    steps = (1 + np.arange(101) * 2.0**-23).astype(np.float32)
    image = np.stack([steps, -steps], axis=-1)[None]
    low, high = percentiles(lambda: [image], [10, 90])
    assert low == pytest.approx([steps[10], -steps[90]], rel=1e-12)
    assert high == pytest.approx([steps[90], -steps[10]], rel=1e-12)


def exact_moments(values):
    """Return mean and standard deviation by fractions."""
    numbers = [Fraction(float(value)) for value in values.ravel()]
    mean = sum(numbers) / len(numbers)
    return float(mean), math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers))


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [
        ("u1", 0),
        ("u2", 0),
        ("u2", 65000),
        ("i2", -32768),
        ("i4", 10**9),
        ("f4", 0),
        ("f4", -1e6),
        ("f8", 1e9),
    ],
)
def test_moments_are_exact_far_from_zero_too(dtype, offset):
    values = np.random.default_rng(0).random((20, 30, 2)) * 255
    image = (values + offset).astype(dtype)
    for channel, found in enumerate(np.transpose(moments(divided(image, [1, 13])))):
        assert found == pytest.approx(exact_moments(image[..., channel]), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_moments_do_not_depend_on_the_division_or_the_order_of_memory(dtype, monkeypatch):
    """Few rows of many channels: the order of a sum shows in its last bits, and does not average out."""
    monkeypatch.setattr(bands, "_STRIP", 8000)
    image = (np.random.default_rng(0).normal(size=(12, 101, 9)) * 1e6).astype(dtype)
    planar = np.moveaxis(np.moveaxis(image, -1, 0).copy(), 0, -1)
    expected = np.array(moments(lambda: [image])).tobytes()
    for each, cuts in (
        (image, range(1, 12)),
        (planar, []),
        (planar, [1, 7]),
        (image[:, ::-1][:, ::-1], [11]),
    ):
        assert np.array(moments(divided(each, cuts))).tobytes() == expected


@pytest.mark.parametrize("value", [0.1, 3e38, -7.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_floats_have_exactly_their_mean_and_no_deviation(value, dtype):
    image = np.full((7, 11, 1), value, dtype)
    mean, deviation = moments(divided(image, [2]))
    assert mean == float(image[0, 0, 0])
    assert deviation == 0


@pytest.mark.parametrize("component", STREAMED, ids=str)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_only_what_is_measured_is_read(component, dtype):
    image = image_of(dtype, 12, 8)
    read = []

    def counted():
        for row in range(12):
            read.append(row)
            yield image[row : row + 1]

    fit(component, counted)
    passes = {"scale": 0, "percentile": 1, "zscore": 1}[component.name] * (2 if dtype is np.float32 else 1)
    whole = passes + ("gamma" in component.params)
    looks = 1 if passes else 0  # at the first row, for its number type
    assert [read.count(row) for row in (0, 5, 11)] == [whole + looks, whole, whole]


CLAHE = Component(name="percentile", params={"clahe": 4.0, "gamma": 0.5})


def test_clahe_takes_the_whole_image_as_its_only_band():
    image = image_of(np.uint8, 32, 40)
    assert same(fit(CLAHE, lambda: [image])(image), PREPROCESSING["percentile"](image, clahe=4.0, gamma=0.5))


def test_clahe_is_refused_on_bands_before_more_than_two_are_read():
    read = []

    def counted():
        for row in range(9):
            read.append(row)
            yield image_of(np.uint8, 4, 40)

    with pytest.raises(MicrosegError, match=r"cut the image up, or train with 'percentile' and no clahe$"):
        fit(CLAHE, counted)
    assert read == [0, 1]


def test_clahe_is_refused_on_a_window():
    image = image_of(np.uint8, 32, 40)
    preprocess = fit(CLAHE, lambda: [image])
    with pytest.raises(MicrosegError, match="cannot be applied to windows of a large one"):
        preprocess(image[:, :20])


def test_what_a_whole_image_is_refused_for_is_refused_in_bands():
    image = np.linspace(0, 2, 24, dtype=np.float32).reshape(4, 2, 3)
    preprocess = fit(Component(name="scale"), divided(image, [2]))
    assert preprocess(image[:2]).max() <= 1
    with pytest.raises(MicrosegError, match=r"'scale' takes float images in 0\.\.1, got 1.04348 to 2"):
        preprocess(image[2:])
    with pytest.raises(MicrosegError, match=r"colour 'lab' takes float images in 0\.\.1"):
        fit(Component(name="zscore", params={"colour": "lab"}), divided(image, [2]))
    with pytest.raises(MicrosegError, match="did you mean 'zscore'"):
        fit(Component(name="zscor"), divided(image, [2]))
    with pytest.raises(MicrosegError, match="low must be below high"):
        fit(Component(name="percentile", params={"low": 99.9}), divided(image, [2]))
    with pytest.raises(MicrosegError, match="channel 3 does not exist"):
        fit(Component(name="zscore", params={"channels": [3]}), divided(image, [2]))
    with pytest.raises(TypeError, match="unexpected keyword argument 'gama'"):
        percentile.fit(divided(image, [2]), gama=2.0)


def test_strips_are_the_rows_in_order():
    image = image_of(np.uint8, 30, 7)
    given = list(strips(divided(image, [3, 4])))
    assert all(strip.size <= STRIP for strip in given)
    assert np.array_equal(np.concatenate(given), image)
    wide = image.reshape(1, -1, 3)
    assert [strip.shape for strip in strips(lambda: [wide])] == [wide.shape]


@pytest.mark.parametrize(
    ("name", "params"), [("percentile", {"colour": "lab"}), ("zscore", {"gamma": 0.5}), ("percentile", {})]
)
def test_the_memory_of_measuring_does_not_grow_with_the_bands(name, params):
    """But for the sums of rows."""
    component = Component(name=name, params=params)

    def peak(image):
        tracemalloc.start()
        fit(component, lambda: [image])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    low, high = image_of(np.float32, 64, 64), image_of(np.float32, 512, 64)
    peak(low)  # imports
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "_STRIP", low.size // 4)
        assert peak(high) - peak(low) < 0.1 * (high.nbytes - low.nbytes)
