"""Masks written block by block as OME-Zarr, and from it as OME-TIFF; chunks are 32 pixels here."""

import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tifffile
import zarr
from zarr.storage import _local

from microseg.data.streams import MaskStore, levels, ome_tiff, open_stream, store, write_ome_tiff
from microseg.errors import MicrosegError

ORIGIN = {"model": "cells/3", "image": "sha256:ab", "options": {"tta": True, "spacing": (1, 2)}}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    for module in (levels, store, ome_tiff):
        monkeypatch.setattr(module, "CHUNK", 32)


@pytest.fixture
def image(tmp_path):
    """Return a function that opens an image of a size, with a pixel size or without."""

    def opened(*shape, ngff=None, sized=True):
        axes = "TZYX"[-len(shape) :]
        sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (2.0, 0.5, 0.5), strict=True)}
        sizes = {key: size for key, size in sizes.items() if sized and key[-1] in axes}
        sizes |= {"TimeIncrement": 4.0} if "T" in axes and sized else {}
        path = tmp_path / "image.ome.tif"
        tifffile.imwrite(path, np.zeros(shape, np.uint8), ome=True, metadata={"axes": axes} | sizes)
        with open_stream(path) as stream:
            stream.ngff = ngff
            return stream

    return opened


def labels(*shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def fill(mask, values, blocks=None):
    """Write blocks of a mask, all of them where no number of blocks is given."""
    places = itertools.islice(levels.blocks(values.shape), blocks)
    for plane, rows, columns in places:
        mask.write(values[(*plane, rows, columns)], rows, columns, plane)


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
@pytest.mark.parametrize("shape", [(100, 75), (3, 70, 40), (2, 3, 40, 33), (20, 10)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_what_is_written_is_read_back_with_its_pyramid_and_scale(tmp_path, image, shape, ngff, dtype):
    stream, values = image(*shape, ngff=ngff), labels(*shape, dtype=dtype)
    mask = MaskStore.open(tmp_path / "out" / "mask.ome.zarr", stream, dtype, ORIGIN)
    assert (mask.resumed, mask.fraction) == (False, 0.0)
    fill(mask, values)
    assert mask.fraction == 1.0
    folder = mask.finish()
    assert [path.name for path in folder.parent.iterdir()] == ["mask.ome.zarr"]
    with open_stream(folder) as back:
        assert (back.scale, back.planes, back.ngff) == (stream.scale, stream.planes, ngff)
        assert back.dtype == (dtype if dtype == np.uint8 else np.float32)
    group = zarr.open_group(folder, mode="r")
    arrays = [group[str(number)] for number in range(len(list(group.array_keys())))]
    assert group.metadata.zarr_format == arrays[0].metadata.zarr_format == {"0.4": 2, "0.5": 3}[ngff]
    assert min(arrays[-1].shape[-2:]) < 32
    assert all(min(level.shape[-2:]) >= 32 for level in arrays[:-1])
    for number, level in enumerate(arrays):
        assert level.dtype == dtype
        assert np.array_equal(level[...], values[..., :: 2**number, :: 2**number])


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_metadata_has_what_ngff_requires(tmp_path, image, ngff):
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(2, 3, 70, 64, ngff=ngff), np.uint8, ORIGIN)
    fill(mask, labels(2, 3, 70, 64, dtype=np.uint8))
    attributes = zarr.open_group(mask.finish(), mode="r").attrs.asdict()
    facts = attributes["ome"] if ngff == "0.5" else attributes
    (entry,) = facts["multiscales"]
    assert (facts if ngff == "0.5" else entry)["version"] == ngff
    assert ("version" in entry) == (ngff == "0.4")
    assert entry["name"] == "image"
    assert "image-label" in facts
    assert entry["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        *({"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"),
    ]
    assert entry["datasets"] == [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": [4.0, 2.0, size, size]}]}
        for path, size in (("0", 0.5), ("1", 1.0), ("2", 2.0))
    ]
    for array in zarr.open_group(mask.target, mode="r").arrays():
        assert getattr(array[1].metadata, "dimension_names", None) == (
            ("t", "z", "y", "x") if ngff == "0.5" else None
        )
    assert attributes["microseg"]["origin"] == json.loads(json.dumps(ORIGIN))


def test_an_unknown_scale_has_no_unit(tmp_path, image):
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(20, 20, sized=False), np.uint8, ORIGIN)
    fill(mask, labels(20, 20, dtype=np.uint8))
    with open_stream(mask.finish()) as back:
        assert back.scale == {}
        assert back.pixel_size_um is None


def test_an_interrupted_mask_goes_on_where_it_stopped(tmp_path, image):
    stream, values = image(2, 100, 75), labels(2, 100, 75)
    fill(MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint16, ORIGIN), values, blocks=5)
    again = MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint16, ORIGIN)
    assert again.resumed
    assert again.fraction == 5 / 24
    done = [again.done(rows, columns, plane) for plane, rows, columns in levels.blocks(values.shape)]
    assert done == [True] * 5 + [False] * 19
    assert again.done(slice(0, 32), slice(None), (0,))
    assert not again.done(slice(0, 64), slice(None), (0,))
    with pytest.raises(MicrosegError, match="19 of 24 blocks are missing"):
        again.finish()


OTHERS = {
    "another model": {"origin": ORIGIN | {"model": "cells/4"}},
    "another option": {"origin": ORIGIN | {"options": {"tta": False}}},
    "another type": {"dtype": np.uint8},
    "another size": {"shape": (100, 76)},
    "another version": {"ngff": "0.4"},
    "another scale": {"sized": False},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_was_begun_otherwise_is_begun_anew(tmp_path, image, name):
    plain = {"origin": ORIGIN, "dtype": np.uint16, "shape": (100, 75), "ngff": None, "sized": True}

    def opened(origin, dtype, shape, **options):
        return MaskStore.open(tmp_path / "mask.ome.zarr", image(*shape, **options), dtype, origin)

    fill(opened(**plain), labels(100, 75), blocks=5)
    mask = opened(**(plain | OTHERS[name]))
    assert not mask.resumed
    assert mask.fraction == 0.0


def test_what_is_not_a_mask_any_more_is_begun_anew(tmp_path, image):
    MaskStore.open(tmp_path / "mask.ome.zarr", image(40, 40), np.uint8, ORIGIN)
    (tmp_path / ".mask.ome.zarr.part" / "zarr.json").write_text("{")
    assert not MaskStore.open(tmp_path / "mask.ome.zarr", image(40, 40), np.uint8, ORIGIN).resumed


def test_background_counts_as_done(tmp_path, image):
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(40, 40), np.uint8, ORIGIN)
    fill(mask, np.zeros((40, 40), np.uint8))
    assert mask.done(slice(None), slice(None))
    mask.plane_array()[0:32, 0:32] = 0
    assert mask.done(slice(None), slice(None))


def test_a_plane_is_read_and_written_by_slices(tmp_path, image):
    values = labels(2, 50, 40)
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(2, 50, 40), np.uint16, ORIGIN)
    fill(mask, values)
    plane = mask.plane_array((1,))
    assert (plane.shape, plane.dtype) == ((50, 40), np.uint16)
    plane[32:50, 0:32] = plane[32:50, 0:32] + 1
    values[1, 32:, :32] += 1
    assert np.array_equal(mask.array[...], values)


@pytest.mark.parametrize("window", [(slice(1, 32), slice(0, 32)), (slice(0, 32), slice(0, 33))])
def test_windows_are_whole_blocks(tmp_path, image, window):
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(50, 40), np.uint8, ORIGIN)
    with pytest.raises(ValueError, match="not in whole blocks of 32"):
        mask.write(np.zeros((31, 32), np.uint8), *window)


def test_an_older_mask_is_replaced(tmp_path, image):
    for value in (1, 2):
        mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(40, 40), np.uint8, ORIGIN)
        assert not mask.resumed
        fill(mask, np.full((40, 40), value, np.uint8))
        mask.finish()
    assert zarr.open_group(tmp_path / "mask.ome.zarr", mode="r")["0"][0, 0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.ome.tif", "mask.ome.zarr"]


def test_a_mask_that_is_not_wanted_any_more_is_removed(tmp_path, image):
    MaskStore.open(tmp_path / "mask.ome.zarr", image(40, 40), np.uint8, ORIGIN).discard()
    assert [path.name for path in tmp_path.iterdir()] == ["image.ome.tif"]


def test_a_finish_that_was_interrupted_is_done_again(tmp_path, image, monkeypatch):
    stream, values = image(100, 75), labels(100, 75)
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint16, ORIGIN)
    fill(mask, values)
    with monkeypatch.context() as patched:
        patched.setattr(store, "_replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            mask.finish()
    assert not (tmp_path / "mask.ome.zarr").exists()
    again = MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint16, ORIGIN)
    assert (again.resumed, again.fraction) == (True, 1.0)
    assert np.array_equal(zarr.open_group(again.finish(), mode="r")["1"][...], values[::2, ::2])


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from zarr.storage import _local
    from microseg.data.streams import MaskStore

    target = Path(sys.argv[1])
    opened = _local.Path.open

    class Half:
        def __init__(self, file):
            self.file = file
        def __enter__(self):
            return self
        def __exit__(self, *_):
            self.file.close()
        def write(self, data):
            self.file.write(bytes(data)[: len(data) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(path, mode="r", *more):
        return Half(opened(path, mode, *more)) if mode == "wb" else opened(path, mode, *more)

    mask = MaskStore(target, resumed=True)
    _local.Path.open = dying
    mask.write(np.ones((20, 20), np.uint8), slice(0, 20), slice(0, 20))
"""


def test_a_block_whose_writer_is_killed_midway_is_not_there(tmp_path, image, project):
    stream = image(20, 20)
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint8, ORIGIN)
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(mask.target)],
        env=os.environ | {"PYTHONPATH": str(project / "platform")},
    )
    assert killed.returncode == -signal.SIGKILL
    files = [path.name for path in (tmp_path / ".mask.ome.zarr.part" / "0").rglob("*") if path.is_file()]
    assert [name.rpartition(".")[2] for name in sorted(files)] == ["partial", "json"]
    again = MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint8, ORIGIN)
    assert again.resumed
    assert not again.done(slice(None), slice(None))
    fill(again, np.ones((20, 20), np.uint8))
    folder = again.finish()
    assert not list(folder.rglob("*.partial"))
    assert zarr.open_group(folder, mode="r")["0"][...].all()


def test_a_block_that_cannot_be_written_is_not_there(tmp_path, image, monkeypatch):
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(20, 20), np.uint8, ORIGIN)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_local.Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        fill(mask, np.ones((20, 20), np.uint8))
    assert not mask.done(slice(None), slice(None))


def _write_every_other(target, remainder):
    mask = MaskStore(target, resumed=True)
    for number, (plane, rows, columns) in enumerate(levels.blocks((100, 75))):
        if number % 2 == remainder:
            mask.write(labels(100, 75)[rows, columns], rows, columns, plane)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_processes_write_one_mask_together(tmp_path, image):
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(100, 75), np.uint16, ORIGIN)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_every_other, args=(mask.target, number)) for number in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert mask.fraction == 1.0
    assert np.array_equal(mask.array[...], labels(100, 75))


def test_of_two_processes_that_begin_at_once_one_begins(tmp_path, image, monkeypatch):
    stream, create = image(40, 40), store._create

    def overtaken(folder, facts):
        with monkeypatch.context() as patched:
            patched.setattr(store, "_create", create)
            fill(
                MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint8, ORIGIN),
                np.ones((40, 40)),
                blocks=1,
            )
        return create(folder, facts)

    monkeypatch.setattr(store, "_create", overtaken)
    assert MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint8, ORIGIN).fraction == 0.25
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mask.ome.zarr.part", "image.ome.tif"]


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
@pytest.mark.parametrize("shape", [(100, 75), (3, 70, 40), (2, 3, 40, 33), (20, 10)])
def test_an_ome_tiff_has_the_pixels_levels_and_sizes_of_the_mask(tmp_path, image, shape, ngff):
    values, stream = labels(*shape, dtype=np.uint32), image(*shape, ngff=ngff)
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", stream, np.uint32, ORIGIN)
    fill(mask, values)
    write_ome_tiff(mask.finish(), tmp_path / "mask.ome.tif")
    with tifffile.TiffFile(tmp_path / "mask.ome.tif") as tif:
        (series,) = tif.series
        assert tif.is_ome
        assert not tif.is_bigtiff
        assert series.keyframe.is_tiled
        assert series.keyframe.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert series.axes == "TZYX"[-len(shape) :]
        for number, level in enumerate(series.levels):
            assert np.array_equal(level.asarray(), values[..., :: 2**number, :: 2**number])
            assert level.keyframe.is_reduced == (number > 0)
        assert min(series.levels[-1].shape[-2:]) < 32
    with open_stream(tmp_path / "mask.ome.tif") as back:
        assert (back.scale, back.planes) == (stream.scale, stream.planes)


def test_readers_without_ome_find_the_pixel_size_too(tmp_path, image):
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(40, 40), np.uint8, ORIGIN)
    fill(mask, labels(40, 40, dtype=np.uint8))
    write_ome_tiff(mask.finish(), tmp_path / "mask.ome.tif")
    with tifffile.TiffFile(tmp_path / "mask.ome.tif") as tif:
        pixels, centimetres = tif.pages[0].tags["XResolution"].value
        assert tif.pages[0].tags["ResolutionUnit"].value == 3
        assert pixels / centimetres == pytest.approx(20000)


def test_a_large_mask_becomes_a_bigtiff(tmp_path, image, monkeypatch):
    monkeypatch.setattr(ome_tiff, "_CLASSIC", 40 * 40)
    mask = MaskStore.open(tmp_path / "mask.ome.zarr", image(40, 40), np.uint8, ORIGIN)
    fill(mask, labels(40, 40, dtype=np.uint8))
    write_ome_tiff(mask.finish(), tmp_path / "mask.ome.tif")
    with tifffile.TiffFile(tmp_path / "mask.ome.tif") as tif:
        assert tif.is_bigtiff
        assert np.array_equal(tif.asarray(), labels(40, 40, dtype=np.uint8))
