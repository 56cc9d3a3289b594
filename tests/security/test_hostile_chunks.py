"""Chunks of Zarr that are coded in many ways: read as they are, or refused before they are decompressed."""

import json
import os
import pickle
import resource
import subprocess
import sys

import numcodecs
import numpy as np
import pytest
import zarr
from zarr import codecs

from microseg.data.streams import open_stream
from microseg.errors import MicrosegError

PIXELS = np.random.default_rng(0).integers(0, 2**16, (64, 64), np.uint16)
BOMB = 2**27  # bytes that each stands for
ALLOWED = 50 * 1024  # KiB beyond what an honest chunk took
ZARR_2 = {
    "none": None,
    "blosc": numcodecs.Blosc(),
    "bz2": numcodecs.BZ2(1),
    "gzip": numcodecs.GZip(),
    "lz4": numcodecs.LZ4(),
    "lzma": numcodecs.LZMA(preset=0),
    "zlib": numcodecs.Zlib(),
    "zstd": numcodecs.Zstd(),
}
ZARR_3 = {
    "none": None,
    "blosc": codecs.BloscCodec(),
    "gzip": codecs.GzipCodec(),
    "zstd": codecs.ZstdCodec(),
    "two": (codecs.BloscCodec(), codecs.GzipCodec(), codecs.Crc32cCodec()),
}
READ = """
import resource, sys
from microseg.data.streams import open_stream
from microseg.errors import MicrosegError
first = None
for path in sys.argv[1:]:
    try:
        with open_stream(__import__("pathlib").Path(path)) as stream:
            print(stream.read(slice(0, 16), slice(0, 16)).size)
    except MicrosegError as error:
        print(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = first or peak
    print(peak - first)
"""


def stored(folder, version, compressors, **options):
    array = zarr.create_array(
        folder, shape=PIXELS.shape, dtype=PIXELS.dtype, zarr_format=version, compressors=compressors,
        **{"chunks": (32, 32)} | options,
    )  # fmt: skip
    array[...] = PIXELS
    return folder


def planted(folder, version, compressors, chunk, **options):
    stored(folder, version, compressors, **options)
    first = folder / ("0.0" if version == 2 else "c/0/0")
    assert first.is_file()
    first.write_bytes(chunk)
    return folder


def read(folder):
    with open_stream(folder) as stream:
        return stream.read(slice(None), slice(None))[..., 0]


@pytest.mark.parametrize(
    ("version", "name"), [*((2, name) for name in ZARR_2), *((3, name) for name in ZARR_3)]
)
def test_each_codec_that_is_allowed_is_read(tmp_path, version, name):
    folder = stored(tmp_path / "image.zarr", version, (ZARR_2 if version == 2 else ZARR_3)[name])
    assert (read(folder) == PIXELS).all()


@pytest.mark.parametrize("name", ZARR_3)
def test_shards_are_read(tmp_path, name):
    folder = stored(tmp_path / "image.zarr", 3, ZARR_3[name], chunks=(16, 16), shards=(32, 32))
    assert (read(folder) == PIXELS).all()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
def test_differences_that_are_kept_in_the_pixels_type_are_read(tmp_path, version):
    delta = {2: numcodecs.Delta("<u2"), 3: codecs.numcodecs.Delta(dtype="<u2")}[version]
    folder = stored(tmp_path / "image.zarr", version, ZARR_2["zstd"] if version == 2 else ZARR_3["zstd"],
                    filters=[delta])  # fmt: skip
    assert (read(folder) == PIXELS).all()


def endless_zstd():
    """Blocks of one repeated byte, in a frame that does not say how many bytes it holds."""
    blocks = BOMB // 2**17
    header = (2**17 << 3 | 1 << 1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd\x00\x58" + (header + b"\0") * (blocks - 1) + b"\x03\0\x10\0"


def sharded(chunk):
    """A shard of four chunks, of which each is that one."""
    index = np.array([(0, len(chunk))] * 4, "<u8").tobytes()
    return chunk + index + bytes(numcodecs.CRC32C(location="end").encode(index))[-4:]


def test_no_chunk_is_decompressed_beyond_its_size(tmp_path):
    honest = stored(tmp_path / "honest.zarr", 3, codecs.ZstdCodec())
    zeros = bytes(BOMB)
    bombs = {name: bytes(codec.encode(zeros)) for name, codec in ZARR_2.items() if codec}
    assert all(len(bomb) < BOMB // 200 for bomb in bombs.values())
    folders = [planted(tmp_path / f"{name}.zarr", 2, ZARR_2[name], bomb) for name, bomb in bombs.items()]
    folders += [
        planted(tmp_path / f"{name}3.zarr", 3, ZARR_3[name], bombs[name])
        for name in ("blosc", "gzip", "zstd")
    ]
    small = {"chunks": (16, 16), "shards": (32, 32)}
    folders += [
        planted(tmp_path / "endless.zarr", 2, ZARR_2["zstd"], endless_zstd()),
        planted(tmp_path / "endless3.zarr", 3, ZARR_3["zstd"], endless_zstd()),
        planted(tmp_path / "shard.zarr", 3, ZARR_3["zstd"], sharded(bombs["zstd"]), **small),
        planted(tmp_path / "endless-shard.zarr", 3, ZARR_3["zstd"], sharded(endless_zstd()), **small),
    ]
    run = subprocess.run(
        [sys.executable, "-c", READ, honest, *folders],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    lines = run.stdout.splitlines()
    assert lines[:2] == ["256", "0"] and len(lines) == 2 * len(folders) + 2, run.stdout
    for folder, said, more in zip(folders, lines[2::2], lines[3::2], strict=True):
        assert said.startswith(f"{folder}: damaged") and int(more) < ALLOWED, (said, more)


@pytest.mark.parametrize(
    ("side", "shape", "reason"),
    [
        (2**14, 64, "chunks of 536870912 bytes in an array of 8192"),
        (2**15, 2**15, "zstd: chunks of 2147483648 bytes; at most 2147483647 are decompressed"),
    ],
)
def test_a_chunk_that_is_said_to_be_huge_is_refused(tmp_path, side, shape, reason):
    folder = stored(tmp_path / "image.zarr", 3, codecs.ZstdCodec())
    grid = {"name": "regular", "configuration": {"chunk_shape": [side, side]}}
    changed(folder, 3, shape=[shape, shape], chunk_grid=grid)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MicrosegError, match=reason), open_stream(folder) as stream:
        stream.read(slice(0, 16), slice(0, 16))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ALLOWED


def changed(folder, version, **facts):
    path = folder / (".zarray" if version == 2 else "zarr.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        ([{"id": "packbits"}] * 9, "packbits"),
        ([{"id": "astype", "encode_dtype": "u1", "decode_dtype": "f8"}] * 9, "astype"),
        ([{"id": "delta", "dtype": "f8", "astype": "u1"}] * 9, "delta with an astype of another size"),
        ([{"id": "vlen-utf8"}, {"id": "pickle"}], ""),
        ([{"id": "pickle"}], ""),
    ],
)
def test_a_filter_that_makes_much_of_little_is_refused(tmp_path, filters, name):
    class Planted:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    for dtype in ("<u2", "|O"):
        folder = planted(tmp_path / f"image{dtype[1:]}.zarr", 2, None, pickle.dumps(Planted()))
        changed(folder, 2, filters=filters, dtype=dtype)
        with pytest.raises(MicrosegError) as caught:
            read(folder)
        text = str(caught.value)
        assert text.startswith(str(folder)) and "\n" not in text
        assert dtype == "|O" or name in text
    assert not (tmp_path / "owned").exists()


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
def test_a_codec_that_is_not_bounded_is_refused_by_its_name(tmp_path):
    folder = stored(tmp_path / "image.zarr", 3, codecs.ZstdCodec())
    wider = {"name": "numcodecs.astype", "configuration": {"encode_dtype": "u1", "decode_dtype": "u2"}}
    changed(folder, 3, codecs=[wider, {"name": "bytes", "configuration": {"endian": "little"}}])
    with pytest.raises(MicrosegError, match=r"chunks coded by astype; allowed: bitround, .*, zstd\); save"):
        read(folder)
