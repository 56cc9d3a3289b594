"""TIFF files read in windows, against tifffile's and our own decoding of the whole."""

import struct
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.data.images import decode_image
from microseg.data.streams import image, is_streamed, open_stream, tiff
from microseg.errors import MicrosegError

HEIGHT, WIDTH = 70, 53


def pixels(*shape, dtype=np.uint16):
    values = np.random.default_rng(0).integers(0, 250, (*shape, HEIGHT, WIDTH))
    return values.astype(dtype)


def colour(*, dtype=np.uint8, channels=3):
    return np.moveaxis(pixels(channels, dtype=dtype), 0, -1)


TILES = {"tile": (32, 16)}
LAYOUTS = {
    "one strip": (pixels(), {}),
    "rows in one piece": (pixels(), {"rowsperstrip": 7}),
    "rows, compressed": (pixels(), {"rowsperstrip": 7, "compression": "zlib"}),
    "one strip, compressed": (pixels(), {"rowsperstrip": HEIGHT, "compression": "lzw"}),
    "tiles": (pixels(), TILES),
    "tiles, compressed": (pixels(), TILES | {"compression": "zlib", "predictor": True}),
    "zstd": (pixels(), TILES | {"compression": "zstd"}),
    "big endian": (pixels(), {"byteorder": ">"}),
    "big endian, tiles": (pixels(), TILES | {"byteorder": ">", "compression": "zlib"}),
    "BigTIFF": (pixels(), TILES | {"bigtiff": True}),
    "8 bit": (pixels(dtype=np.uint8), TILES),
    "float32": (pixels(dtype=np.float32), TILES | {"compression": "zlib", "predictor": True}),
    "float64": (pixels(dtype=np.float64), {}),
    "float16": (pixels(dtype=np.float16), {"byteorder": ">"}),
    "int32": (pixels(dtype=np.int32) - 100, TILES),
    "1 bit": (pixels() > 120, {"rowsperstrip": 9}),
    "colours": (colour(), {"photometric": "rgb"}),
    "colours in tiles": (colour(), TILES | {"photometric": "rgb", "compression": "zlib"}),
    "colours in planes": (pixels(3), {"photometric": "rgb", "planarconfig": "separate"}),
    "colours in planes of tiles": (
        pixels(3, dtype=np.uint8),
        TILES | {"photometric": "rgb", "planarconfig": "separate", "compression": "lzw"},
    ),
    "colours in planes of strips": (
        pixels(3),
        {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 8, "byteorder": ">"},
    ),
    "JPEG": (colour(), {"tile": (32, 32), "photometric": "ycbcr", "compression": "jpeg"}),
    "JPEG in grey": (pixels(dtype=np.uint8), {"tile": (32, 32), "compression": "jpeg"}),
    "5 samples": (colour(channels=5), {"photometric": "minisblack", "planarconfig": "contig"}),
    "same transparency": (
        np.dstack([colour(), np.full((HEIGHT, WIDTH, 1), 255, np.uint8)]),
        TILES | {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
    "channels of ImageJ": (pixels(2), {"imagej": True, "metadata": {"axes": "CYX"}}),
    "channels of OME": (pixels(4), TILES | {"ome": True, "metadata": {"axes": "CYX"}}),
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    array, options = LAYOUTS[request.param]
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, array, **options)
    return path


def test_windows_are_those_of_the_whole_image(layout):
    whole = decode_image(layout.read_bytes(), "image")
    with open_stream(layout) as stream:
        assert (stream.shape, stream.dtype, stream.planes) == (whole.shape, whole.dtype, {})
        for rows, columns in [
            (slice(None), slice(None)),
            (slice(5, 41), slice(15, 50)),
            (slice(69, 70), slice(0, 1)),
        ]:
            window = stream.read(rows, columns)
            assert window.dtype == whole.dtype
            assert np.array_equal(window, whole[rows, columns])


@given(corners=st.tuples(*[st.integers(0, side) for side in (HEIGHT, HEIGHT, WIDTH, WIDTH)]))
@settings(max_examples=25, deadline=None)
def test_any_window_is_read(tmp_path_factory, corners):
    path = tmp_path_factory.mktemp("window") / "image.tif"
    tifffile.imwrite(path, pixels(), **TILES, compression="zlib")
    rows, columns = slice(*sorted(corners[:2])), slice(*sorted(corners[2:]))
    with open_stream(path) as stream:
        assert np.array_equal(stream.read(rows, columns)[..., 0], pixels()[rows, columns])


STACKS = {
    "ImageJ": ("TZCYX", {"imagej": True}),
    "ImageJ, big endian": ("TZCYX", {"imagej": True, "byteorder": ">"}),
    "OME": ("TZCYX", {"ome": True, **TILES, "compression": "zlib"}),
    "OME, other order": ("ZTCYX", {"ome": True, **TILES}),
    "OME, channels first": ("CTZYX", {"ome": True}),
}


@pytest.mark.parametrize("name", STACKS)
def test_stacks_are_read_plane_by_plane(tmp_path, name):
    axes, options = STACKS[name]
    sizes = {"T": 3, "Z": 2, "C": 4}
    array = pixels(*(sizes[axis] for axis in axes[:3]))
    tifffile.imwrite(tmp_path / "stack.tif", array, metadata={"axes": axes}, **options)
    ordered = array.transpose([axes.index(axis) for axis in "TZYXC"])
    with open_stream(tmp_path / "stack.tif") as stream:
        assert stream.planes == {"t": 3, "z": 2}
        assert stream.shape == (HEIGHT, WIDTH, 4)
        for plane in np.ndindex(3, 2):
            assert np.array_equal(
                stream.read(slice(3, 60), slice(10, 40), plane), ordered[plane][3:60, 10:40]
            )


def test_pages_that_lie_apart_are_read_row_by_row(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for page in pixels(3):
            writer.write(page, contiguous=False, metadata=None)
    with open_stream(tmp_path / "pages.tif", axes="ZYX") as stream:
        assert stream.planes == {"z": 3}
        for number, page in enumerate(pixels(3)):
            assert np.array_equal(stream.read(slice(None), slice(None), (number,))[..., 0], page)


def test_the_full_resolution_of_a_pyramid_is_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.ome.tif") as writer:
        writer.write(pixels(), subifds=1, **TILES)
        writer.write(pixels()[::2, ::2], subfiletype=1, **TILES)
    with open_stream(tmp_path / "pyramid.ome.tif") as stream:
        assert np.array_equal(stream.read(slice(None), slice(None))[..., 0], pixels())


def test_an_uncompressed_strip_is_not_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_PIECE", 1000)
    tifffile.imwrite(tmp_path / "strip.tif", pixels())
    tifffile.imwrite(tmp_path / "packed.tif", pixels(), compression="zlib", rowsperstrip=HEIGHT)
    with open_stream(tmp_path / "strip.tif") as stream:
        assert stream.chunk_bytes <= 1000
        assert np.array_equal(stream.read(slice(8, 31), slice(4, 9))[..., 0], pixels()[8:31, 4:9])
    with open_stream(tmp_path / "packed.tif") as stream:
        assert stream.chunk_bytes == HEIGHT * WIDTH * 2


def test_bands_that_overlap_decode_each_tile_once(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "tiles.tif", pixels(), **TILES, compression="zlib")
    decoded = []
    plain = tiff.TiffBlocks.decode
    monkeypatch.setattr(
        tiff.TiffBlocks, "decode", lambda self, *key: decoded.append(key) or plain(self, *key)
    )
    with open_stream(tmp_path / "tiles.tif") as stream:
        for top in range(0, HEIGHT, 10):
            stream.read(slice(top, top + 30), slice(None))
    assert len(decoded) == len(set(decoded)) == 3 * 4


def test_what_is_kept_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "CACHE", 3000)  # tiles of 1024 bytes
    tifffile.imwrite(tmp_path / "tiles.tif", pixels(), **TILES)
    with open_stream(tmp_path / "tiles.tif") as stream:
        stream.read(slice(None), slice(None))
        held = [block.nbytes for block in stream._kept.values()]
        assert len(held) == 2
        assert sum(held) == stream._kept_bytes


ONE_PART = {"compression": "zlib", "rowsperstrip": 9 * HEIGHT}
PARTS = {
    "strip": (pixels(), {}),
    "predictor, big endian": (pixels(), {"predictor": True, "byteorder": ">"}),
    "float32": (pixels(dtype=np.float32), {"predictor": True}),
    "PackBits": (pixels(), {"compression": "packbits"}),
    "planes of colours": (pixels(3), {"photometric": "rgb", "planarconfig": "separate"}),
    "pages of channels": (pixels(4), {"ome": True, "metadata": {"axes": "CYX"}}),
}


@pytest.mark.parametrize("name", PARTS)
def test_memory_stays_within_what_is_said(tmp_path, monkeypatch, name):
    monkeypatch.setattr(image, "CACHE", 0)
    array, options = PARTS[name]
    array = np.kron(array, np.ones((9, 9), array.dtype))
    tifffile.imwrite(tmp_path / "part.tif", array, **(ONE_PART | options))
    with open_stream(tmp_path / "part.tif") as stream:
        assert stream.chunk_bytes == array.nbytes
        stream.read(slice(0, 1), slice(0, 1))
        tracemalloc.start()
        stream.read(slice(0, 9), slice(0, 9))
        stream._kept.clear()  # so that the part is decoded again
        stream.read(slice(9, 18), slice(0, 9))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < stream.memory() + (tmp_path / "part.tif").stat().st_size


def test_what_was_read_last_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "CACHE", 2048)  # two tiles
    tifffile.imwrite(tmp_path / "tiles.tif", pixels(), **TILES, compression="zlib")
    decoded = []
    plain = tiff.TiffBlocks.decode
    monkeypatch.setattr(
        tiff.TiffBlocks, "decode", lambda self, *key: decoded.append(key[2]) or plain(self, *key)
    )
    with open_stream(tmp_path / "tiles.tif") as stream:
        for column in (0, 1, 0, 2, 0, 1):
            stream.read(slice(0, 1), slice(16 * column, 16 * column + 1))
    assert decoded == [0, 1, 2, 1]


SIZES = {
    "OME": (
        {"ome": True, "metadata": {"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25}},
        0.25,
    ),
    "ImageJ": ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "um"}}, 0.5),
    "ImageJ, escaped": ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "\\u00B5m"}}, 0.5),
    "ImageJ, pixels": ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}}, None),
    "centimetres": ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, 0.5),
    "inches of a screen": ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
    "not square": ({"resolution": (20000, 10000), "resolutionunit": "CENTIMETER"}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_pixel_size_comes_in_micrometres(tmp_path, name):
    options, size = SIZES[name]
    tifffile.imwrite(tmp_path / "sized.tif", pixels(), **options)
    with open_stream(tmp_path / "sized.tif") as stream:
        assert stream.pixel_size_um == (size if size is None else pytest.approx(size))


def test_steps_along_z_and_t_are_known(tmp_path):
    sizes = {"axes": "TZYX", "PhysicalSizeZ": 2.0, "TimeIncrement": 500.0, "TimeIncrementUnit": "ms"}
    tifffile.imwrite(tmp_path / "ome.tif", pixels(2, 3), ome=True, metadata=sizes)
    tifffile.imwrite(
        tmp_path / "ij.tif", pixels(2, 3), imagej=True,
        metadata={"axes": "TZYX", "spacing": 2.0, "finterval": 0.5, "unit": "um"},
    )  # fmt: skip
    for name in ("ome.tif", "ij.tif"):
        with open_stream(tmp_path / name) as stream:
            assert {axis: stream.scale[axis] for axis in "tz"} == {"t": 0.5, "z": 2.0}


def varying(array):
    return np.dstack([array, pixels(dtype=np.uint8)])


REFUSED = {
    "axes unknown": (
        pixels(4),
        {"photometric": "minisblack"},
        r"state the order of its axes, such as --axes CYX",
    ),
    "two images": ([pixels(), pixels()[:20]], {}, r"2 images of different sizes.*save the wanted one alone"),
    "complex": (pixels(dtype=np.complex64), {}, r"complex64 values; save numbers"),
    "channels of colours": (
        np.stack([colour(), colour()]),
        {"ome": True, "photometric": "rgb", "metadata": {"axes": "CYXS"}},
        r"both channels and colours \(2, 3\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, name):
    arrays, options, text = REFUSED[name]
    with tifffile.TiffWriter(tmp_path / "image.tif", ome=options.pop("ome", False)) as writer:
        for array in arrays if isinstance(arrays, list) else [arrays]:
            writer.write(array, **options)
    with pytest.raises(MicrosegError, match=text) as caught:
        open_stream(tmp_path / "image.tif")
    assert "\n" not in str(caught.value)


def test_rows_across_pages_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "pages.tif", pixels(2))
    with pytest.raises(MicrosegError, match=r"axes YCX .* one page for each plane of Y and X"):
        open_stream(tmp_path / "pages.tif", axes="YCX")


def test_transparency_that_varies_is_refused_where_it_does(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", varying(colour()), photometric="rgb", extrasamples=["unassalpha"])
    with open_stream(tmp_path / "a.tif") as stream:
        assert stream.shape == (HEIGHT, WIDTH, 3)
        with pytest.raises(MicrosegError, match="transparency varies over the image"):
            stream.read(slice(0, 9), slice(0, 9))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_where_they_are(tmp_path, value):
    array = pixels(dtype=np.float32)
    array[40, 30] = value
    tifffile.imwrite(tmp_path / "nan.tif", array, **TILES)
    with open_stream(tmp_path / "nan.tif") as stream:
        assert np.array_equal(stream.read(slice(0, 40), slice(None))[..., 0], array[:40])
        with pytest.raises(MicrosegError, match="NaN or infinite"):
            stream.read(slice(40, 41), slice(None))


@pytest.mark.parametrize("options", [{}, TILES | {"compression": "zlib"}])
def test_a_file_that_ends_early_is_refused_at_once(tmp_path, options):
    tifffile.imwrite(tmp_path / "whole.tif", pixels(), **options)
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) - 500])
    with pytest.raises(MicrosegError, match="damaged or not supported"):
        open_stream(tmp_path / "cut.tif")


def test_a_stack_in_one_piece_that_ends_early_is_refused_at_once(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", pixels(4), imagej=True, metadata={"axes": "ZYX"})
    data = (tmp_path / "stack.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) - 3 * HEIGHT * WIDTH * 2])
    with pytest.raises(MicrosegError, match=r"cut\.tif: .*ends before its pixels do"):
        open_stream(tmp_path / "cut.tif")


def test_a_stack_of_imagej_with_one_directory_is_read_as_far_as_it_goes(tmp_path):
    """ImageJ describes the first page alone where a file is larger than 4 GB."""
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, pixels(4), imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        first = tif.pages[0]
        after = first.offset + 2 + 12 * len(first.tags)
        end = first.dataoffsets[0] + pixels(4).nbytes
    data = bytearray(path.read_bytes()[:end])
    data[after : after + 4] = bytes(4)
    path.write_bytes(data)
    with open_stream(path) as stream:
        assert stream.planes == {"z": 4}
        assert np.array_equal(stream.read(slice(None), slice(None), (3,))[..., 0], pixels(4)[3])
    path.write_bytes(data[:-100])
    with pytest.raises(MicrosegError, match="ends before its pixels do"):
        open_stream(path)


def test_a_stack_of_tifffile_with_one_directory_is_refused_where_it_ends_early(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, pixels(4), photometric="minisblack", truncate=True)
    with open_stream(path, axes="ZYX") as stream:
        assert np.array_equal(stream.read(slice(None), slice(None), (3,))[..., 0], pixels(4)[3])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MicrosegError, match="ends before its pixels do"):
        open_stream(path, axes="ZYX")


def test_strips_of_later_pages_lie_where_they_say(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in pixels(2):
            writer.write(page, rowsperstrip=35, contiguous=False, metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[1].aspage().tags["StripOffsets"].overwrite(tif.pages[1].dataoffsets[::-1])
    with open_stream(path, axes="ZYX") as stream:
        assert np.array_equal(stream.read(slice(None), slice(None), (0,))[..., 0], pixels(2)[0])
        assert np.array_equal(
            stream.read(slice(None), slice(None), (1,))[..., 0], np.roll(pixels(2)[1], 35, axis=0)
        )


def test_values_of_an_unknown_type_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "float8.tif", pixels(dtype=np.int8))
    with tifffile.TiffFile(tmp_path / "float8.tif", mode="r+") as tif:
        tif.pages[0].tags["SampleFormat"].overwrite(3)
    with pytest.raises(MicrosegError, match="values of 8 bits of format 3"):
        open_stream(tmp_path / "float8.tif")


def test_tiles_that_were_never_written_are_empty(tmp_path):
    tiles = (np.full((32, 16), 7, np.uint16) if number % 2 == 0 else None for number in range(3 * 4))
    tifffile.imwrite(
        tmp_path / "sparse.tif", tiles, shape=(HEIGHT, WIDTH), dtype=np.uint16, compression="zlib", **TILES
    )
    with open_stream(tmp_path / "sparse.tif") as stream:
        window = stream.read(slice(None), slice(None))
    assert np.array_equal(window, decode_image((tmp_path / "sparse.tif").read_bytes(), "image"))
    assert set(np.unique(window)) == {0, 7}


def test_an_image_in_several_files_is_refused(tmp_path):
    for name in ("a.ome.tif", "b.ome.tif"):
        tifffile.imwrite(tmp_path / name, pixels(), metadata={"axes": "YX"})
    text = tifffile.tiffcomment(tmp_path / "a.ome.tif").replace('SizeZ="1"', 'SizeZ="2"')
    identifier = text.partition('UUID="')[2].partition('"')[0]
    data = '<TiffData FirstZ="{}" IFD="0" PlaneCount="1"><UUID FileName="{}">{}</UUID></TiffData>'
    parts = data.format(0, "a.ome.tif", identifier) + data.format(1, "b.ome.tif", "urn:uuid:b")
    text = text.replace('<TiffData IFD="0" PlaneCount="1"/>', parts)
    tifffile.tiffcomment(tmp_path / "a.ome.tif", text.encode())
    with pytest.raises(MicrosegError, match="one part of an image in several files; save it in one"):
        open_stream(tmp_path / "a.ome.tif")


def test_a_damaged_tile_is_refused_where_it_is(tmp_path):
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, pixels(), **TILES, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        place = tif.pages[0].dataoffsets[-1]
    data = bytearray(path.read_bytes())
    data[place : place + 20] = bytes(20)
    path.write_bytes(data)
    with open_stream(path) as stream:
        stream.read(slice(0, 10), slice(None))
        with pytest.raises(MicrosegError, match="damaged or incomplete file"):
            stream.read(slice(None), slice(None))


def test_a_plane_that_is_not_there_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", pixels(2), imagej=True, metadata={"axes": "ZYX"})
    with open_stream(tmp_path / "stack.tif") as stream:
        for plane in [(), (2,), (0, 0)]:
            with pytest.raises(MicrosegError, match=r"no plane .*; give one index for each of \{'z': 2\}"):
                stream.read(slice(None), slice(None), plane)


def test_only_what_can_be_windowed_is_streamed(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "short.tif").write_bytes(struct.pack("<2s", b"II"))
    for name in ("empty", "picture.png", "short.tif", "missing.tif"):
        assert not is_streamed(tmp_path / name)
        with pytest.raises(
            MicrosegError, match="give the path of a TIFF file or the folder of an OME-Zarr image"
        ):
            open_stream(tmp_path / name)
