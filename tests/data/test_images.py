import io
import logging

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from microseg.data import images
from microseg.data.images import (
    check_suffix,
    decode_image,
    decode_labels,
    is_lossy,
    read_image,
    read_labels,
    write_image,
)
from microseg.errors import MicrosegError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)


def pillow(array, kind="PNG", **options):
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_back(tmp_path, suffix, dtype, channels):
    array = (np.arange(6 * 8 * channels) * 250 % np.iinfo(dtype).max).astype(dtype).reshape(6, 8, channels)
    path = tmp_path / f"image{suffix}"
    write_image(path, array)
    back = read_image([path])
    assert back.dtype == dtype
    assert np.array_equal(back, array)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_tiff_keeps_other_channel_counts_and_float(tmp_path, channels):
    array = np.random.default_rng(0).normal(size=(6, 8, channels)).astype(np.float32)
    write_image(tmp_path / "image.tif", array)
    assert np.array_equal(read_image([tmp_path / "image.tif"]), array)


@given(labels=hnp.arrays(np.int32, (4, 5), elements=st.integers(0, 65535)))
@settings(max_examples=20, deadline=None)
def test_labels_up_to_16_bits_survive_png(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("labels") / "labels.png"
    write_image(path, labels)
    assert np.array_equal(read_labels(path), labels)


def test_equal_pixels_give_equal_bytes(tmp_path):
    for name in ("one.tif", "two.tif"):
        write_image(tmp_path / name, GREY)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


def test_a_failed_write_leaves_nothing(tmp_path):
    write_image(tmp_path / "image.png", GREY)
    with pytest.raises(MicrosegError, match=r"PNG cannot hold float32 .* use \.tif"):
        write_image(tmp_path / "image.png", GREY.astype(np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]
    assert np.array_equal(read_image([tmp_path / "image.png"])[..., 0], GREY)


def test_sixteen_bit_colour_png_keeps_its_bits():
    deep = COLOUR.astype(np.uint16) * 257 + 3
    assert np.array_equal(decode_image(imagecodecs.png_encode(deep), "deep.png"), deep)


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
def test_compressed_tiff(compression):
    assert np.array_equal(decode_image(tiff(GREY, compression=compression), "a.tif")[..., 0], GREY)


def test_big_endian_becomes_native():
    array = GREY.astype(">u2")
    back = decode_image(tiff(array, byteorder=">"), "a.tif")
    assert back.dtype == np.uint16
    assert back.dtype.isnative
    assert np.array_equal(back[..., 0], GREY)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float64])
def test_other_number_types_become_float32(dtype):
    back = decode_image(tiff(GREY.astype(dtype) - 5), "a.tif")
    assert back.dtype == np.float32
    assert np.array_equal(back[..., 0], GREY.astype(np.float32) - 5)


def test_constant_alpha_is_dropped_and_varying_refused():
    opaque = np.dstack([COLOUR, np.full(GREY.shape, 255, np.uint8)])
    assert np.array_equal(decode_image(pillow(opaque), "a.png"), COLOUR)
    with pytest.raises(MicrosegError, match=r"a\.png: transparency varies .* flatten"):
        decode_image(pillow(np.dstack([COLOUR, GREY])), "a.png")
    grey_alpha = np.dstack([GREY, np.full(GREY.shape, 7, np.uint8)])
    assert np.array_equal(decode_image(pillow(grey_alpha), "a.png")[..., 0], GREY)


def test_four_channels_without_alpha_stay_four():
    four = np.dstack([COLOUR, GREY])
    data = tiff(four, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(decode_image(data, "a.tif"), four)
    opaque = np.dstack([COLOUR, np.full(GREY.shape, 255, np.uint8)])
    rgba = tiff(opaque, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(decode_image(rgba, "a.tif"), COLOUR)


def test_palette_is_colour_in_an_image_and_index_in_a_mask():
    indexed = Image.fromarray((GREY % 3).astype(np.uint8), mode=None).convert("P")
    indexed.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 200])
    data = pillow(indexed)
    assert decode_image(data, "a.png").shape == (6, 8, 3)
    assert np.array_equal(decode_labels(data, "a.png"), GREY % 3)


def test_one_bit_masks_and_images():
    bits = GREY % 2 == 0
    data = pillow(Image.fromarray(bits))
    assert np.array_equal(decode_labels(data, "a.png"), bits.astype(np.uint8))
    assert set(np.unique(decode_image(data, "a.png"))) == {0, 255}


def test_grey_mask_saved_as_colour_is_accepted_and_real_colour_refused():
    assert np.array_equal(decode_labels(pillow(np.dstack([GREY] * 3)), "a.png"), GREY)
    with pytest.raises(MicrosegError, match="a mask in colour"):
        decode_labels(pillow(COLOUR), "a.png")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 0.5, np.float32), "not whole numbers"),
        (np.full((4, 4), np.nan, np.float32), "not whole numbers"),
        (np.full((4, 4), np.inf, np.float32), "not whole numbers"),
        (np.full((4, 4), -1, np.int16), "labels start at 0"),
    ],
)
def test_labels_that_are_no_labels(values, message):
    with pytest.raises(MicrosegError, match=message):
        decode_labels(tiff(values), "mask.tif")


def test_whole_float_labels_are_accepted():
    labels = decode_labels(tiff(GREY.astype(np.float32)), "mask.tif")
    assert labels.dtype.kind == "i"
    assert np.array_equal(labels, GREY)


def test_multi_page_axes_are_stated_never_guessed():
    stack = np.stack([GREY, GREY + 1, GREY + 2])
    data = tiff(stack, photometric="minisblack")
    with pytest.raises(MicrosegError, match=r"a\.tif: a multi-page TIFF of shape .*3, 6, 8.*--axes CYX"):
        decode_image(data, "a.tif")
    assert np.array_equal(decode_image(data, "a.tif", "CYX"), np.moveaxis(stack, 0, -1))
    for axes in ("ZYX", "TYX"):
        with pytest.raises(MicrosegError, match=f"3 planes along {axes[0]}.*a file of its own"):
            decode_image(data, "a.tif", axes)
    with pytest.raises(MicrosegError, match="do not fit its shape"):
        decode_image(data, "a.tif", "TZCYX")


@pytest.mark.parametrize(
    ("axes", "order"), [("CYX", (2, 0, 1)), ("YXC", (0, 1, 2)), ("CXY", (2, 1, 0)), ("XYC", (1, 0, 2))]
)
def test_stated_axes_are_put_in_order(axes, order):
    pages = np.ascontiguousarray(COLOUR.transpose(order))
    data = tiff(pages, photometric="minisblack", metadata=None)
    assert np.array_equal(decode_image(data, "a.tif", axes), COLOUR)


def test_planes_of_length_one_are_dropped():
    data = tiff(
        COLOUR.transpose(2, 0, 1)[None], photometric="minisblack", metadata={"axes": "ZCYX"}, imagej=True
    )
    assert np.array_equal(decode_image(data, "a.tif"), COLOUR)
    assert np.array_equal(decode_image(data, "a.tif", "ZCYX"), COLOUR)
    assert np.array_equal(decode_image(data, "a.tif", "CYX"), COLOUR)


def test_axes_that_the_file_names_itself_need_no_statement():
    data = tiff(COLOUR.transpose(2, 0, 1), photometric="minisblack", metadata={"axes": "CYX"}, ome=True)
    assert np.array_equal(decode_image(data, "a.ome.tif"), COLOUR)
    with pytest.raises(MicrosegError, match="3 planes along Z"):
        decode_image(tiff(COLOUR.transpose(2, 0, 1), metadata={"axes": "ZYX"}, imagej=True), "a.tif")


def test_stated_axes_leave_single_pages_alone():
    assert np.array_equal(decode_image(tiff(COLOUR, photometric="rgb"), "a.tif", "CYX"), COLOUR)
    assert np.array_equal(decode_image(tiff(GREY), "a.tif", "CYX")[..., 0], GREY)


def test_pages_of_different_size_are_refused():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY[:4], metadata=None)
    with pytest.raises(MicrosegError, match="2 images of different sizes"):
        decode_image(buffer.getvalue(), "a.tif")


@pytest.mark.parametrize(
    "data",
    [
        pillow(GREY),
        imagecodecs.png_encode(COLOUR.astype(np.uint16)),
        pillow(COLOUR, "JPEG"),
        tiff(GREY),
        tiff(GREY.astype(np.float32), compression="lzw"),
        tiff(np.tile(GREY, (8, 8)), tile=(16, 16), compression="zlib"),
    ],
    ids=["png", "png16", "jpeg", "tiff", "lzw", "tiled"],
)
def test_a_cut_file_is_refused_or_complete(data):
    whole = decode_image(data, "whole")
    refused = 0
    for cut in range(0, len(data), max(1, len(data) // 25)):
        try:
            assert np.array_equal(decode_image(data[:cut], "cut"), whole)
        except MicrosegError as error:
            refused += 1
            assert str(error).startswith("cut: ")
            assert "\n" not in str(error)
    assert refused >= 15


def test_tifffile_does_not_talk_beside_the_error():
    with pytest.raises(MicrosegError):
        decode_image(tiff(GREY)[:100], "cut.tif")
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("tifffile").handlers)


def test_a_file_of_another_kind_is_refused_whatever_its_name(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(b"GIF89a and more")
    with pytest.raises(MicrosegError, match=r"image\.png: not a PNG, TIFF or JPEG"):
        read_image([path])
    with pytest.raises(MicrosegError, match="no such file"):
        read_image([tmp_path / "none.png"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_float_images_are_finite(value):
    array = GREY.astype(np.float32)
    array[0, 0] = value
    with pytest.raises(MicrosegError, match=r"a\.tif: NaN or infinite"):
        decode_image(tiff(array), "a.tif")


def test_jpeg_is_lossy_also_within_tiff():
    assert is_lossy(pillow(COLOUR, "JPEG"))
    assert is_lossy(tiff(np.tile(COLOUR, (4, 4, 1)), photometric="ycbcr", compression="jpeg"))
    assert not is_lossy(tiff(GREY, compression="lzw"))
    assert not is_lossy(pillow(GREY))


def test_one_file_per_channel(tmp_path):
    for index in range(3):
        write_image(tmp_path / f"c{index}.png", COLOUR[..., index])
    assert np.array_equal(read_image([tmp_path / f"c{index}.png" for index in range(3)]), COLOUR)
    write_image(tmp_path / "c2.png", COLOUR[:5, :, 2])
    with pytest.raises(MicrosegError, match=r"c2\.png: this channel is 8 x 5 uint8, but c0\.png is 8 x 6"):
        read_image([tmp_path / "c0.png", tmp_path / "c2.png"])


@pytest.mark.parametrize("suffix", sorted(images.PROPRIETARY))
def test_proprietary_formats_say_how_to_convert(tmp_path, suffix):
    with pytest.raises(MicrosegError, match=r"convert it to TIFF .*bfconvert.*Fiji"):
        check_suffix(tmp_path / f"scan{suffix}")


def test_suffixes(tmp_path):
    assert check_suffix(tmp_path / "A.TIF")
    assert not check_suffix(tmp_path / "README.txt")
    assert not check_suffix(tmp_path / "._A.png")
    with pytest.raises(MicrosegError, match="save it as PNG or TIFF"):
        check_suffix(tmp_path / "a.bmp")
