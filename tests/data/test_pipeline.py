"""The training pipeline: what is drawn, how often, from which seed, and the values that reach the network."""

import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.augment import augmenter
from microseg.config import Component
from microseg.data.files import file_hash
from microseg.data.images import write_image
from microseg.data.manifest import Item, Manifest
from microseg.data.pairs import Pair, encode_targets, load_pairs
from microseg.data.pipeline import (
    Sampling,
    crop,
    epoch_order,
    epoch_steps,
    foreground_pixels,
    sampler,
    tile_count,
    training_batches,
)

NONE = augmenter(Component(name="none"))
ELASTIC = augmenter(Component(name="elastic"))


def coordinates(name="a", height=20, width=30, labels=2):
    """Make a pair whose image tells where each pixel came from."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns], axis=-1).astype(np.float32)
    return Pair(name, image, ((rows + columns) % labels).astype(np.uint8))


def batches(pairs, maps=1, epochs=range(1), augment=NONE, **sampling):
    sampling = Sampling(**{"tile": 8, "batch_size": 2, "steps": 3, "seed": 5, **sampling})
    return [
        (images.numpy(), targets.numpy())
        for images, targets in training_batches(pairs, sampling, augment, maps, epochs)
    ]


@pytest.mark.parametrize(("shape", "tiles"), [((8, 8), 1), ((9, 8), 2), ((17, 24), 9), ((1, 1), 1)])
def test_tile_count_covers_the_image(shape, tiles):
    assert tile_count(shape, 8) == tiles


def test_epoch_sees_as_many_patches_as_cover_the_images():
    pairs = [coordinates(height=16, width=24), coordinates(height=5, width=9)]  # 6 and 2 tiles of 8 pixels
    assert epoch_steps(pairs, tile=8, batch_size=3) == 3


@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    length=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_every_image_appears_as_often_as_it_has_tiles(counts, length, seed):
    order = epoch_order(counts, length, (seed, 0))
    assert len(order) == length
    total = sum(counts)
    for start in range(0, length - total + 1, total):
        assert np.bincount(order[start : start + total], minlength=len(counts)).tolist() == counts
    assert np.all(np.bincount(order[length // total * total :], minlength=len(counts)) <= counts)


def test_crop_is_a_piece_of_the_image_and_its_mask_from_anywhere():
    pair, rng = coordinates(), np.random.default_rng(0)
    corners = set()
    for _ in range(400):
        image, mask = crop(pair, 8, rng)
        y, x = image[0, 0].astype(int)
        corners.add((y, x))
        np.testing.assert_array_equal(image, pair.image[y : y + 8, x : x + 8])
        np.testing.assert_array_equal(mask, pair.mask[y : y + 8, x : x + 8])
    assert {y for y, _ in corners} == set(range(13)) and {x for _, x in corners} == set(range(23))


@pytest.mark.parametrize(("height", "width"), [(5, 30), (1, 1), (3, 2)])
def test_beyond_a_small_image_pixels_are_mirrored_and_labels_ignored(height, width):
    pair = coordinates(height=height, width=width)
    image, mask = crop(pair, 8, np.random.default_rng(0))
    assert image.shape == (8, 8, 2) and mask.shape == (8, 8)
    inside = mask != 255
    assert inside.sum() == min(height, 8) * min(width, 8)
    rows, columns = image[..., 0].astype(int), image[..., 1].astype(int)
    assert rows.max() < height and columns.max() < width
    np.testing.assert_array_equal(mask[inside], pair.mask[rows, columns][inside])


def rare():
    """Make an image with two single foreground pixels, one of each class, and pixels to ignore."""
    mask = np.zeros((64, 64), np.uint8)
    mask[3, 60], mask[40, 20], mask[50:52] = 1, 2, 255
    return Pair("rare", np.zeros((64, 64, 1), np.float32), mask)


def test_patches_see_rare_foreground_as_often_as_asked():
    seen = {}
    for share in (0.0, 0.5, 1.0):
        sample = sampler([rare()], Sampling(8, 1, 400, 0, foreground=share), NONE, 3)
        targets = np.stack([sample(number)[1] for number in range(400)])
        seen[share] = targets[..., 1:].clip(0).max(axis=(1, 2)).mean(axis=0)
    assert np.all(seen[0.0] < 0.1)
    np.testing.assert_allclose(seen[0.5], 0.25, atol=0.08)  # half of the patches, each class alike
    assert seen[1.0].sum() == 1.0 and np.all(seen[1.0] > 0.4)


def test_the_foreground_pixel_may_lie_anywhere_in_the_patch():
    rng, pair = np.random.default_rng(0), rare()
    classes = foreground_pixels(pair.mask)[1:]
    places = {tuple(np.argwhere(crop(pair, 8, rng, classes)[1] == 2)[0]) for _ in range(900)}
    assert len(places) == 64


def test_foreground_pixels_are_few_and_leave_out_what_is_ignored():
    mask = np.ones((200, 300), np.uint8)
    mask[0], mask[1:3] = 0, 255
    (pixels,) = foreground_pixels(mask, most=100)
    assert 50 < len(pixels) <= 100 and pixels[:, 0].min() >= 3
    assert foreground_pixels(np.zeros((4, 4), np.uint8)) == []


def test_empty_images_are_cut_anywhere_also_when_foreground_is_sought():
    empty = Pair("empty", np.zeros((16, 16, 1), np.float32), np.zeros((16, 16), np.uint8))
    sample = sampler([empty], Sampling(8, 1, 4, 0, foreground=1.0), NONE, 1)
    assert sample(0)[1].shape == (8, 8, 1)


@pytest.mark.parametrize("augment", [NONE, ELASTIC])
def test_border_distances_travel_with_the_labels(augment):
    pair = coordinates()
    pair = pair._replace(border=np.arange(600, dtype=np.uint16).reshape(20, 30).clip(0, 255).astype(np.uint8))
    drawn = batches([pair], augment=augment, steps=2)
    targets = np.concatenate([target for _, target in drawn])
    assert targets.shape == (4, 8, 8, 2)
    assert set(np.unique(targets[..., 0])) <= {-1.0, 0.0, 1.0}
    if augment is NONE:
        rows, columns = (np.concatenate([image for image, _ in drawn])[..., axis] for axis in (0, 1))
        np.testing.assert_array_equal(targets[..., 1], (rows * 30 + columns).clip(0, 255) / 4)


def test_targets_of_one_map_are_exactly_zero_one_or_ignored():
    targets = encode_targets(np.array([[0, 1, 255]], np.uint8), 1)
    assert targets.dtype == np.float32
    assert targets[..., 0].tolist() == [[0.0, 1.0, -1.0]]


def test_targets_of_several_maps_are_one_hot_or_ignored():
    targets = encode_targets(np.array([[0, 2, 255]], np.uint8), 3)
    assert targets.tolist() == [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [-1.0, -1.0, -1.0]]]


@pytest.mark.parametrize("augment", [NONE, ELASTIC])
@pytest.mark.parametrize(("maps", "labels"), [(1, 2), (3, 3)])
def test_label_values_after_the_whole_pipeline(augment, maps, labels):
    pairs = [coordinates(labels=labels), coordinates(height=5, labels=labels)]
    drawn = batches(pairs, maps, augment=augment, steps=4)
    assert len(drawn) == 4
    targets = np.stack([target for _, target in drawn])
    assert targets.shape == (4, 2, 8, 8, maps) and targets.dtype == np.float32
    assert set(np.unique(targets)) == {-1.0, 0.0, 1.0}
    if maps > 1:
        assert set(np.unique(targets.sum(axis=-1))) == {-3.0, 1.0}


def test_epoch_is_the_same_whether_or_not_training_resumed():
    pairs = [coordinates(), coordinates(height=40)]
    whole = batches(pairs, epochs=range(3), augment=ELASTIC)
    resumed = batches(pairs, epochs=range(2, 3), augment=ELASTIC)
    assert len(whole) == 9 and len(resumed) == 3
    for (image, target), (image_again, target_again) in zip(whole[6:], resumed, strict=True):
        np.testing.assert_array_equal(image, image_again)
        np.testing.assert_array_equal(target, target_again)


def test_epochs_and_seeds_draw_differently():
    pairs = [coordinates()]
    first, second = np.split(np.stack([image for image, _ in batches(pairs, epochs=range(2))]), 2)
    other = np.stack([image for image, _ in batches(pairs, seed=6)])
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_sample_depends_on_nothing_but_its_number():
    sample = sampler([coordinates(), coordinates(height=9)], Sampling(8, 2, 3, 0), ELASTIC, 1)
    forward = [sample(number) for number in range(24)]
    for number in reversed(range(24)):
        np.testing.assert_array_equal(sample(number)[0], forward[number][0])


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    items = []
    for index in range(2):
        image, mask = tmp_path / f"i{index}.png", tmp_path / f"m{index}.png"
        write_image(image, rng.integers(0, 256, (12, 9, 1), np.uint8))
        write_image(mask, rng.integers(0, 2, (12, 9), np.uint8))
        items.append(
            Item(
                name=f"im{index}",
                images=(image,),
                mask=mask,
                group=str(index),
                height=12,
                width=9,
                hashes=tuple(file_hash(path.read_bytes()) for path in (image, mask)),
            )
        )
    return Manifest(name="set", source="here", items=tuple(items), channels=1, mask_kind="binary")


PERCENTILE, CLAHE = Component(name="percentile"), Component(name="percentile", params={"clahe": 4.0})
SETTINGS = [
    PERCENTILE,
    Component(name="zscore", params={"gamma": 2.0}),
    Component(name="scale", params={"colour": "grey"}),
    CLAHE,
]


@pytest.mark.parametrize("preprocess", SETTINGS, ids=str)
def test_large_sets_have_the_pixels_of_small_ones(manifest, tmp_path, preprocess):
    """Window by window, or with CLAHE mapped, every image and every patch of it is equal to the bit."""
    colour = manifest.model_copy(update={"channels": 3})  # grey images, read for a network in colour
    for like in (manifest, colour) if preprocess.params.get("colour") is None else (colour,):
        held = load_pairs(["im1", "im0"], like, tmp_path / "cache", preprocess)
        large = load_pairs(["im1", "im0"], like, tmp_path / "cache", preprocess, limit=0)
        assert [pair.name for pair in large] == ["im1", "im0"]
        for a, b in zip(held, large, strict=True):
            assert not isinstance(b.image, np.ndarray) or isinstance(b.image, np.memmap)
            assert a.image.dtype == b.image.dtype == b.whole.dtype == np.float32
            assert a.image.shape == b.image.shape
            np.testing.assert_array_equal(a.whole, b.whole)
            np.testing.assert_array_equal(a.mask, b.mask)
            for seed in range(5):
                patches = (crop(pair, 8, np.random.default_rng(seed)) for pair in (a, b))
                for one, other in zip(*patches, strict=True):
                    np.testing.assert_array_equal(one, other)


def test_nothing_is_written_for_what_can_be_preprocessed_in_windows(manifest, tmp_path):
    """A search may vary the preprocessing: each would leave a copy of all images, four times as large."""
    pairs = load_pairs(["im0", "im1"], manifest, tmp_path / "cache", PERCENTILE, limit=0)
    assert pairs[0].whole.max() == 1.0
    assert not (tmp_path / "cache" / "preprocessed").exists()
    load_pairs(["im0", "im1"], manifest, tmp_path / "cache", CLAHE, limit=0)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "preprocessed").iterdir()}
    assert len(files) == 2
    load_pairs(["im0", "im1"], manifest, tmp_path / "cache", CLAHE, limit=0)
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_a_large_set_is_loaded_without_a_look_at_its_pixels(manifest, tmp_path, monkeypatch):
    """10,000 images are many: each is measured when its first patch is drawn."""
    load_pairs(["im0", "im1"], manifest, tmp_path / "cache", PERCENTILE)
    monkeypatch.setattr("microseg.data.pairs.fit", lambda *_: pytest.fail("an image is measured"))
    pairs = load_pairs(["im0", "im1"], manifest, tmp_path / "cache", PERCENTILE, limit=0)
    sample = sampler(pairs, Sampling(8, 2, 3, 0, foreground=0.5), NONE, 1)
    with pytest.raises(pytest.fail.Exception, match="an image is measured"):
        sample(0)


@pytest.fixture
def few_open_files():
    """A process that may open few files more than it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/dev/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, before[1]))
    yield opened + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("preprocess", [PERCENTILE, CLAHE], ids=str)
@pytest.mark.parametrize("limit", [None, 0])
def test_more_images_are_read_than_files_may_be_open(manifest, tmp_path, few_open_files, preprocess, limit):
    """A trap: Python keeps the file of a mapped array open, and 20,000 arrays are more than many systems allow."""
    items = tuple(manifest.items[0].model_copy(update={"name": f"{number}"}) for number in range(100))
    many = manifest.model_copy(update={"items": items})
    names = [one.name for one in items]
    pairs = load_pairs(names, many, tmp_path / "cache", preprocess, borders=True, limit=limit)
    seen = [(pair.image[0:2, 0:2], pair.mask, pair.labels) for pair in pairs[:5]]
    assert all(labels.shape == (*mask.shape, 2) for _, mask, labels in seen)


@pytest.mark.parametrize(("given", "most"), [(1, 1), (2, 2)])
def test_no_more_threads_draw_than_the_process_was_given(monkeypatch, given, most):
    """A trap of `tf.data`: its own pool has a thread for every core."""
    monkeypatch.setattr(tf.config.threading, "get_inter_op_parallelism_threads", lambda: given)
    drawing, at_once, lock = 0, [], threading.Lock()

    def slow(image, mask, seed):
        nonlocal drawing
        with lock:
            drawing += 1
            at_once.append(drawing)
        time.sleep(0.005)
        with lock:
            drawing -= 1
        return image, mask

    batches([coordinates()], augment=slow, epochs=range(3), steps=4)
    assert max(at_once) == most
