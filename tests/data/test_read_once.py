"""Images are read once per machine: what is decoded is mapped from one file by all trials and folds."""

import numpy as np
import pytest

from microseg.config import Component
from microseg.data import arrays
from microseg.data.arrays import image_array, target_array
from microseg.data.pairs import load_pairs
from microseg.errors import MicrosegError

PREPROCESS = [
    Component(name="percentile"),
    Component(name="percentile", params={"clahe": 4.0}),
    Component(name="zscore"),
]


@pytest.fixture
def manifest(opened, write_pairs, tmp_path):
    return opened(write_pairs(tmp_path / "cells"))


@pytest.mark.parametrize("preprocess", PREPROCESS, ids=str)
@pytest.mark.parametrize("limit", [2**30, 0], ids=["held", "mapped"])
def test_the_second_trial_opens_no_image_file(manifest, tmp_path, preprocess, limit):
    """Other folds, another preprocessing: all come from what the first trial decoded."""
    names, cache = [item.name for item in manifest.items], tmp_path / "decoded"
    first = load_pairs(names, manifest, cache, PREPROCESS[0], borders=True)
    for item in manifest.items:
        for path in (*item.images, item.mask):
            path.unlink()
    second = load_pairs(reversed(names), manifest, cache, preprocess, borders=True, limit=limit)
    for before, after in zip(first, reversed(second), strict=True):
        assert before.name == after.name
        np.testing.assert_array_equal(before.mask, after.mask)
        np.testing.assert_array_equal(before.border, after.border)


def test_the_files_are_read_where_nothing_was_decoded_yet(manifest, tmp_path):
    """What the test above relies on: without the cache the files are missed."""
    item = manifest.items[0]
    item.images[0].unlink()
    with pytest.raises(MicrosegError, match="no such file"):
        load_pairs([item.name], manifest, tmp_path / "elsewhere", PREPROCESS[0])


def inode(array: np.ndarray) -> tuple[int, int]:
    assert isinstance(array, np.memmap) and not array.flags.writeable
    state = array.filename.stat()
    return state.st_dev, state.st_ino


@pytest.mark.parametrize("read", [image_array, target_array])
def test_all_who_read_an_image_map_the_same_file(manifest, tmp_path, read):
    """The system keeps one copy of a file in memory, however many processes map it."""
    item = manifest.items[0]
    assert inode(read(item, manifest, tmp_path)) == inode(read(item, manifest, tmp_path))


def test_an_array_is_decoded_once(manifest, tmp_path, monkeypatch):
    decoded = []
    plain = arrays.read_image
    monkeypatch.setattr(arrays, "read_image", lambda *given: decoded.append(given) or plain(*given))
    for _ in range(3):
        for item in manifest.items:
            image_array(item, manifest, tmp_path / "fresh")
    assert [paths for paths, _ in decoded] == [item.images for item in manifest.items]
