"""OME-Zarr images and plain Zarr arrays read in windows, against numpy."""

import itertools
import multiprocessing

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.data.streams import is_streamed, omezarr, open_stream
from microseg.errors import MicrosegError

SIZES = {"t": 2, "c": 3, "z": 4, "y": 50, "x": 37}
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
SCALE = {"t": 5.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.5}


def pixels(axes="yx", dtype=np.uint16):
    shape = [SIZES[axis] for axis in axes]
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def multiscale(axes, *, units=UNITS, path="0", **more):
    described = [
        {"name": axis, "type": "space"} | ({"unit": units[axis]} if axis in units else {}) for axis in axes
    ]
    transform = {"type": "scale", "scale": [SCALE[axis] for axis in axes]}
    return {"axes": described, "datasets": [{"path": path, "coordinateTransformations": [transform]}]} | more


def write(folder, array, attributes, *, zarr_format=3, **options):
    group = zarr.create_group(folder, zarr_format=zarr_format, attributes=attributes)
    chunks = tuple(min(20, side) if side > 4 else 2 for side in array.shape)
    options = {"chunks": chunks, "dtype": array.dtype} | options
    group.create_array("0", shape=array.shape, **options)[...] = array
    return folder


def write_image(folder, array, axes, *, zarr_format=3, **options):
    entry = multiscale(axes)
    attributes = (
        {"ome": {"version": "0.5", "multiscales": [entry]}} if zarr_format == 3 else {"multiscales": [entry]}
    )
    return write(folder, array, attributes, zarr_format=zarr_format, **options)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tyx", "czyx", "tczyx", "yxc", "ztyx", "xy"])
def test_planes_are_those_of_the_array(tmp_path, axes, zarr_format):
    array = pixels(axes)
    folder = write_image(tmp_path / "image.ome.zarr", array, axes, zarr_format=zarr_format)
    full = [axis for axis in "tzyxc" if axis in axes]
    ordered = array.transpose([axes.index(axis) for axis in full])
    ordered = ordered if "c" in axes else ordered[..., None]
    with open_stream(folder) as stream:
        assert stream.ngff == {2: "0.4", 3: "0.5"}[zarr_format]
        assert stream.planes == {axis: SIZES[axis] for axis in "tz" if axis in axes}
        assert stream.shape == ordered.shape[-3:]
        assert stream.scale == {axis: SCALE[axis] for axis in axes if axis != "c"}
        assert stream.pixel_size_um == 0.5
        for plane in itertools.product(*map(range, stream.planes.values())):
            window = stream.read(slice(7, 41), slice(3, 37), plane)
            assert window.dtype == np.uint16
            assert np.array_equal(window, ordered[plane][7:41, 3:37])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:zarr.errors.ZarrUserWarning")
def test_consolidated_metadata_is_no_hindrance(tmp_path, zarr_format):
    folder = write_image(tmp_path / "image.zarr", pixels(), "yx", zarr_format=zarr_format)
    zarr.consolidate_metadata(folder)
    with open_stream(folder) as stream:
        assert np.array_equal(stream.read(slice(None), slice(None))[..., 0], pixels())


FORMS = {
    "sharded": {"chunks": (8, 8), "shards": (64, 64)},
    "without compression": {"compressors": None},
    "other fill value": {"fill_value": 7},
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16", "bool", ">u2"])
def test_any_form_and_type_is_read(tmp_path, name, dtype):
    array = pixels(dtype=dtype)
    folder = write_image(tmp_path / "image.zarr", array, "yx", **FORMS[name])
    expected = array * np.uint8(255) if dtype == "bool" else array
    with open_stream(folder) as stream:
        assert stream.dtype == {"uint8": "u1", "bool": "u1", ">u2": "u2"}.get(dtype, "f4")
        assert np.array_equal(stream.read(slice(None), slice(None))[..., 0], expected)


def test_big_endian_of_zarr_2_is_read(tmp_path):
    folder = write_image(tmp_path / "image.zarr", pixels(dtype=">u2"), "yx", zarr_format=2)
    with open_stream(folder) as stream:
        window = stream.read(slice(None), slice(None))
        assert window.dtype.isnative
        assert np.array_equal(window[..., 0], pixels())


@given(corners=st.tuples(*[st.integers(0, side) for side in (50, 50, 37, 37)]))
@settings(max_examples=15, deadline=None)
def test_any_window_is_read(tmp_path_factory, corners):
    folder = write_image(tmp_path_factory.mktemp("window") / "image.zarr", pixels("cyx"), "cyx")
    rows, columns = slice(*sorted(corners[:2])), slice(*sorted(corners[2:]))
    with open_stream(folder) as stream:
        assert np.array_equal(stream.read(rows, columns), np.moveaxis(pixels("cyx")[:, rows, columns], 0, -1))


def test_chunks_that_were_never_written_have_the_fill_value(tmp_path):
    folder = write_image(tmp_path / "image.zarr", pixels(), "yx", fill_value=9)
    (folder / "0" / "c" / "1" / "1").unlink()
    expected = pixels()
    expected[20:40, 20:37] = 9
    with open_stream(folder) as stream:
        assert np.array_equal(stream.read(slice(None), slice(None))[..., 0], expected)


def test_the_memory_of_a_chunk_counts_the_planes_and_channels_in_it(tmp_path):
    folder = write_image(tmp_path / "image.zarr", pixels("czyx"), "czyx", chunks=(1, 4, 16, 16))
    with open_stream(folder) as stream:
        assert stream.chunk_bytes == 3 * 4 * 16 * 16 * 2


def test_units_are_converted(tmp_path):
    units = {"t": "millisecond", "z": "nanometer", "y": "millimeter", "x": "meter"}
    entry = multiscale(
        "tzyx", units=units, coordinateTransformations=[{"type": "scale", "scale": [1, 1, 2, 2]}]
    )
    folder = write(tmp_path / "image.zarr", pixels("tzyx"), {"ome": {"multiscales": [entry]}})
    with open_stream(folder) as stream:
        assert stream.scale == pytest.approx({"t": 0.005, "z": 0.002, "y": 1000.0, "x": 1e6})
        assert stream.pixel_size_um is None


def test_sizes_without_a_unit_are_not_known(tmp_path):
    entry = multiscale("yx", units={"y": "pixel"})
    folder = write(tmp_path / "image.zarr", pixels(), {"ome": {"multiscales": [entry]}})
    with open_stream(folder) as stream:
        assert stream.scale == {}


@pytest.mark.parametrize("axes", [None, ["t", "c", "z", "y", "x"]])
def test_metadata_older_than_units_is_read(tmp_path, axes):
    entry = {"datasets": [{"path": "0"}]} | ({"axes": axes} if axes else {})
    folder = write(tmp_path / "old.zarr", pixels("tczyx"), {"multiscales": [entry]}, zarr_format=2)
    with open_stream(folder) as stream:
        assert stream.planes == {"t": 2, "z": 4}
        assert np.array_equal(
            stream.read(slice(0, 9), slice(0, 9), (1, 2))[..., 0], pixels("tczyx")[1, 0, 2, :9, :9]
        )


def test_a_single_image_of_bioformats2raw_is_read(tmp_path):
    zarr.create_group(tmp_path / "raw.zarr", attributes={"ome": {"bioformats2raw.layout": 3}})
    write_image(tmp_path / "raw.zarr" / "0", pixels(), "yx")
    with open_stream(tmp_path / "raw.zarr") as stream:
        assert np.array_equal(stream.read(slice(None), slice(None))[..., 0], pixels())
    write_image(tmp_path / "raw.zarr" / "1", pixels(), "yx")
    with pytest.raises(MicrosegError, match=r"several images; give the folder of one, such as .*raw\.zarr/0"):
        open_stream(tmp_path / "raw.zarr")


def plain(folder, array, **options):
    zarr.create_array(folder, data=array, **options)
    return folder


def test_a_plain_array_says_its_axes_or_has_them_stated(tmp_path):
    array = pixels("cyx")
    flat = plain(tmp_path / "flat.zarr", pixels())
    named = plain(tmp_path / "named.zarr", array, dimension_names=["c", "y", "x"])
    mute = plain(tmp_path / "mute.zarr", array)
    for folder, axes, expected in [
        (flat, None, pixels()[..., None]),
        (named, None, array),
        (mute, "CYX", array),
    ]:
        expected = expected if folder is flat else np.moveaxis(expected, 0, -1)
        with open_stream(folder, axes) as stream:
            assert stream.ngff is None
            assert np.array_equal(stream.read(slice(None), slice(None)), expected)
    with pytest.raises(MicrosegError, match="state the order of its axes, such as --axes CYX"):
        open_stream(mute)


def attributes_of(*entries):
    return {"ome": {"multiscales": list(entries)}}


REFUSED = {
    "no image": ({}, "Zarr group with 0 images in its metadata"),
    "several": (attributes_of(multiscale("yx"), multiscale("yx")), "Zarr group with 2 images"),
    "plate": ({"ome": {"plate": {}}}, r"a plate with many images; give the folder of one, such as .*/A/1/0"),
    "no level": (attributes_of({"axes": ["y", "x"], "datasets": []}), "metadata is incomplete"),
    "no array": (attributes_of(multiscale("yx", path="7")), "names the array 7, which is missing"),
    "another folder": (attributes_of(multiscale("yx", path="../other.zarr")), "damaged or not supported"),
    "too many axes": (
        attributes_of(multiscale("cyx")),
        r"names 3 axes, but the array has the shape \(50, 37\)",
    ),
    "odd axes": (attributes_of({"axes": ["y", "w"], "datasets": [{"path": "0"}]}), "an image has y and x"),
    "not metadata": ({"ome": [1]}, "Zarr group with 0 images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused_in_one_line(tmp_path, name):
    attributes, text = REFUSED[name]
    folder = write(tmp_path / "image.zarr", pixels(), attributes)
    with pytest.raises(MicrosegError, match=text) as caught:
        open_stream(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", '{"zarr_format": 9}', '{"zarr_format": 3, "node_type": "array"}'])
def test_damaged_metadata_is_refused_in_one_line(tmp_path, text):
    folder = plain(tmp_path / "image.zarr", pixels())
    (folder / "zarr.json").write_text(text)
    assert is_streamed(folder)
    with pytest.raises(MicrosegError, match=r"image\.zarr: damaged or not supported"):
        open_stream(folder)


def test_an_unknown_codec_is_refused(tmp_path):
    folder = plain(tmp_path / "image.zarr", pixels())
    facts = (folder / "zarr.json").read_text()
    (folder / "zarr.json").write_text(facts.replace('"zstd"', '"unheard_of"'))
    with pytest.raises(MicrosegError, match="unheard_of"), open_stream(folder) as stream:
        stream.read(slice(None), slice(None))


def test_a_damaged_chunk_is_refused_where_it_is(tmp_path):
    folder = write_image(tmp_path / "image.zarr", pixels(), "yx")
    (folder / "0" / "c" / "2" / "1").write_bytes(b"nonsense")
    with open_stream(folder) as stream:
        stream.read(slice(0, 40), slice(None))
        with pytest.raises(MicrosegError, match="damaged or incomplete file"):
            stream.read(slice(None), slice(None))


def test_bands_that_overlap_decode_each_chunk_once(tmp_path, monkeypatch):
    decoded = []
    decode = omezarr.ZarrBlocks.decode
    monkeypatch.setattr(
        omezarr.ZarrBlocks, "decode", lambda self, *key: decoded.append(key) or decode(self, *key)
    )
    with open_stream(write_image(tmp_path / "image.zarr", pixels(), "yx")) as stream:
        for top in range(0, 50, 10):
            stream.read(slice(top, top + 30), slice(None))
    assert len(decoded) == len(set(decoded)) == 3 * 2


def _mean(folder, answers):
    with open_stream(folder) as stream:
        answers.put(float(stream.read(slice(None), slice(None)).mean()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_reads_too(tmp_path):
    """zarr reads in a thread of its own, which a fork does not take along."""
    folder = write_image(tmp_path / "image.zarr", pixels(), "yx")
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with open_stream(folder) as stream:
        stream.read(slice(None), slice(None))
        child = context.Process(target=_mean, args=(folder, answers))
        child.start()
        assert answers.get(timeout=60) == pytest.approx(pixels().mean())
        child.join()
