"""Images and tables that attack whoever reads them: one line or their real pixels, and bounded memory."""

import io
import json
import resource
import struct

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr

from microseg.data.entries import read_rows
from microseg.data.images import decode_image
from microseg.data.streams import open_stream
from microseg.errors import MicrosegError

MOST = 256 * 1024  # KiB that an attack may take; each asks for gigabytes
OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels DimensionOrder="XYCZT"'
    ' Type="uint8" SizeX="64" SizeY="64" SizeC="{0}" SizeZ="{0}" SizeT="{0}">{1}</Pixels></Image></OME>'
)
LAUGHS = "".join(
    f'<!ENTITY {letter} "{f"&{former};" * 10}">'
    for former, letter in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.fixture(autouse=True)
def _bounded():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST


def tiff(**options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.full((64, 64), 7, np.uint8), **options)
    return bytearray(buffer.getvalue())


def changed(data, value=None, count=None, tags=()):
    """Change the values, or how many values there are said to be, of tags of the first directory."""
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, at)[0] in tags:
            if value is not None:
                struct.pack_into("<HII", data, at + 2, 4, 1, value)
            if count is not None:
                struct.pack_into("<I", data, at + 4, count)
    return data


SIDES, STRIP, TILE, PIECES = (256, 257), (278,), (322, 323), (273, 279)
TIFFS = {
    "more pixels than the file": changed(tiff(), 2**31 - 1, tags=SIDES),
    "a compressed plane of 1 TiB": changed(tiff(compression="deflate"), 2**20, tags=SIDES + STRIP),
    "a compressed plane of 1 GiB in 100 bytes": changed(
        tiff(compression="deflate"), 2**15, tags=SIDES + STRIP
    ),
    "two thousand million strips": changed(tiff(), count=2**31 - 1, tags=PIECES),
    "tiles of 256 TiB": changed(tiff(tile=(16, 16)), 2**24, tags=TILE),
    "2**60 tiles": changed(changed(tiff(tile=(16, 16)), 1, tags=TILE), 2**30, tags=SIDES),
    "four thousand million pages": tiff(description="ImageJ=1.11a\nimages=4000000000\n"),
    "10**15 planes": tiff(description=OME.format(100_000, "<TiffData/>"), metadata=None),
}


def window(path):
    with open_stream(path) as stream:
        return stream.read(slice(0, 16), slice(0, 16))


@pytest.mark.parametrize("name", TIFFS)
def test_a_hostile_tiff_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / "hostile.tif"
    path.write_bytes(TIFFS[name])
    for read in (lambda: window(path), lambda: decode_image(path.read_bytes(), str(path), None)):
        with pytest.raises(MicrosegError) as caught:
            read()
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_directories_in_a_circle_are_read_once(tmp_path):
    data = tiff()
    start = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)
    path = tmp_path / "circle.tif"
    path.write_bytes(data)
    assert (window(path) == 7).all()
    assert (decode_image(bytes(data), "circle.tif", None) == 7).all()


def test_entities_in_ome_xml_are_not_written_out(tmp_path):
    entities = f'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">{LAUGHS}]>'
    path = tmp_path / "laughs.tif"
    path.write_bytes(tiff(description=entities + OME.format(1, "&j;"), metadata=None))
    assert (window(path) == 7).all()


def stored(folder, codec, chunk=b"", **facts):
    """Write an array of 64 by 64 pixels with other facts in its metadata, and other bytes in its chunk."""
    array = zarr.create_array(folder, shape=(64, 64), chunks=(64, 64), dtype="uint16", compressors=codec)
    array[...] = 7
    described = json.loads((folder / "zarr.json").read_text())
    for name, value in facts.items():
        described[name] = value
    (folder / "zarr.json").write_text(json.dumps(described))
    if chunk:
        (folder / "c" / "0" / "0").write_bytes(chunk)
    return folder


def chunks(*sides):
    return {"name": "regular", "configuration": {"chunk_shape": sides}}


ZERO = bytes(32 * 2**20)
ZARRS = {
    "chunks of 2 TiB": {"shape": [2**20, 2**20], "chunk_grid": chunks(2**20, 2**20)},
    "chunks of nothing": {"chunk_grid": chunks(0, 0)},
    "a negative side": {"shape": [-64, 64]},
    "more than a chunk in its chunk": {"chunk": numcodecs.Zstd().encode(ZERO)},
    "the same by gzip": {"codec": zarr.codecs.GzipCodec(), "chunk": numcodecs.GZip().encode(ZERO)},
    "the same by Blosc": {"codec": zarr.codecs.BloscCodec(), "chunk": numcodecs.Blosc().encode(ZERO)},
    "Blosc with a negative size": {
        "codec": zarr.codecs.BloscCodec(),
        "chunk": b"\x02\x01\x33\x02" + b"\xff" * 60,
    },
    "codecs that are none": {"codecs": [{"name": "os.system", "configuration": {"command": "true"}}]},
}


@pytest.mark.parametrize("name", ZARRS)
def test_a_hostile_zarr_is_refused_in_one_line(tmp_path, name):
    path = stored(tmp_path / "hostile.zarr", **{"codec": zarr.codecs.ZstdCodec()} | ZARRS[name])
    with pytest.raises(MicrosegError) as caught:
        window(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_an_array_without_end_costs_what_is_read_of_it(tmp_path):
    path = stored(tmp_path / "endless.zarr", zarr.codecs.ZstdCodec(), shape=[2**40, 2**40])
    assert (window(path) == 7).all()


def test_metadata_without_end_is_refused_in_one_line(tmp_path):
    path = tmp_path / "deep.zarr"
    path.mkdir()
    (path / "zarr.json").write_text("[" * 100_000)
    with pytest.raises(MicrosegError, match=r"deep\.zarr: damaged or not supported .*recursion"):
        open_stream(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,mask\na,b\n" + "x" * 200_000 + ",c\n", r"line 3 is no row of a CSV table \(field larger"),
        ("x" * 200_000 + ",mask\na,b\n", r"line 1 is no row of a CSV table \(field larger"),
        ('image,mask\n"' + "a,b\n" * 100_000, "is no row of a CSV table"),
    ],
)
def test_an_absurd_table_is_refused_in_one_line(tmp_path, text, reason):
    path = tmp_path / "hostile.csv"
    path.write_text(text)
    with pytest.raises(MicrosegError, match=reason) as caught:
        read_rows(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
