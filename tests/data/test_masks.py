from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from microseg.data.arrays import image_array, instance_array, target_array
from microseg.data.facts import whole_labels
from microseg.data.images import write_image
from microseg.errors import MicrosegError

SHAPE = (12, 16)


def stripes(values, dtype=np.uint8):
    """One column of pixels per value, background on both sides."""
    mask = np.zeros(SHAPE, dtype)
    for index, value in enumerate(values):
        mask[2:9, 1 + index] = value
    return mask


def blocks(count, start=1):
    mask = np.zeros(SHAPE, np.uint16)
    for index in range(count):
        row, column = divmod(index, 8)
        mask[2 * row, 2 * column] = start + index
    return mask


@pytest.fixture
def with_masks(tmp_path, write_pairs, opened):
    """Return a function that opens a set of the given masks."""

    def build(*masks, **options):
        names = [f"m{index}" for index in range(len(masks))]
        folder = write_pairs(tmp_path / "set", names=names, masks=dict(zip(names, masks, strict=True)))
        return opened(folder, **options)

    return build


@pytest.fixture
def targets(tmp_path, with_masks):
    """Return a function that gives the first target of a set of the given masks, and the manifest."""

    def build(*masks, **options):
        manifest = with_masks(*masks, **options)
        return target_array(manifest.items[0], manifest, tmp_path / "cache"), manifest

    return build


@pytest.mark.parametrize("value", [1, 255, 65535])
def test_a_single_value_is_binary(targets, value):
    mask = stripes([value], np.uint16)
    target, manifest = targets(mask, stripes([]))
    assert manifest.mask_kind == "binary"
    assert manifest.classes == ("foreground",)
    assert target.dtype == np.uint8
    assert np.array_equal(target, mask > 0)


def test_0_1_and_255_ignore_255(targets):
    mask = stripes([1, 255])
    target, manifest = targets(mask)
    assert manifest.ignore == 255
    assert np.array_equal(target, mask)


def test_1_in_some_and_255_in_others_is_refused(with_masks):
    with pytest.raises(MicrosegError, match="hold 1 in some and 255 in others; state --threshold 1"):
        with_masks(stripes([1]), stripes([255]))
    assert with_masks(stripes([1]), stripes([255]), threshold=1).ignore is None


def test_a_threshold_cuts_at_its_value(targets):
    target, manifest = targets(stripes([99, 100, 101]), threshold=100)
    assert manifest.mask_kind == "binary"
    assert target[5, 1:4].tolist() == [0, 1, 1]


def test_instances_are_recognised_and_kept(tmp_path, targets):
    mask = blocks(40)
    target, manifest = targets(mask, blocks(3))
    assert manifest.mask_kind == "instance"
    assert np.array_equal(target, mask > 0)
    objects = instance_array(manifest.items[0], manifest, tmp_path / "cache")
    assert objects.dtype == np.int32
    assert np.array_equal(objects, mask)


@pytest.mark.parametrize("background", [0, 7])
def test_objects_of_any_numbers_are_counted_from_1(tmp_path, write_pairs, opened, background):
    mask = np.full(SHAPE, background, np.uint32)
    mask[2:4, 2:4], mask[6:8, 2:4] = 2**31 + 5, 900_000_000
    folder = write_pairs(tmp_path / "set", names=["m"])
    (folder / "masks" / "m.png").unlink()
    tifffile.imwrite(folder / "masks" / "m.tif", mask)
    manifest = opened(folder, mask_kind="instance")
    objects = instance_array(manifest.items[0], manifest, tmp_path / "cache")
    first = int(background > 0)
    assert (objects[0, 0], objects[6, 2], objects[2, 2]) == (first, first + 1, first + 2)


def test_few_instances_are_recognised_by_their_numbering(with_masks):
    assert with_masks(blocks(9), blocks(5)).mask_kind == "instance"


@pytest.mark.parametrize(
    "masks",
    [
        [stripes([1, 2])],
        [blocks(9), blocks(9)],  # the same nine everywhere: could be classes
        [blocks(9, start=2), blocks(5)],  # a gap where a class is absent
        [np.tile(blocks(8)[:1], (12, 1))],  # many pieces of each
    ],
    ids=["two values", "same count", "gaps", "pieces"],
)
def test_what_may_be_classes_or_instances_is_refused(with_masks, masks):
    with pytest.raises(
        MicrosegError, match=r"state --mask-kind binary \(with --threshold\), instance or classes"
    ):
        with_masks(*masks)
    assert with_masks(*masks, mask_kind="instance").mask_kind == "instance"


def test_touching_labels_are_whole_and_split_ones_are_not():
    assert whole_labels(np.array([[1, 1, 2, 2]])) == 2
    assert whole_labels(np.array([[1, 2, 1]])) == 1
    assert whole_labels(np.array([[1, 0], [0, 1]])) == 1, "diagonal neighbours are connected"


def test_classes_and_their_ignored_pixels(targets):
    mask = stripes([1, 2, 3, 255])
    target, manifest = targets(mask, mask_kind="classes")
    assert manifest.classes == ("background", "class-1", "class-2", "class-3")
    assert manifest.ignore == 255
    assert np.array_equal(target, mask)


def test_named_classes_may_be_absent(with_masks):
    manifest = with_masks(stripes([2]), classes=("background", "nucleus", "cytoplasm", "debris"))
    assert manifest.mask_kind == "classes"
    assert manifest.classes[1] == "nucleus"


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        ([stripes([1, 3])], {"mask_kind": "classes"}, "but never 2; renumber"),
        ([stripes([1, 2])], {"classes": ("background", "cell")}, "hold 0 to 1 here"),
        ([stripes([1, 300], np.uint16)], {"mask_kind": "classes"}, "renumber them"),
        ([stripes([1, 2])], {"mask_kind": "instance", "threshold": 2}, "only binary masks have one"),
        ([stripes([1])], {"mask_kind": "binary", "classes": ("background", "cell")}, "leave out one"),
        ([stripes([1, 2, 9])], {"mask_kind": "binary"}, "need --threshold"),
        ([stripes([7])], {"threshold": 8}, "no foreground in any of the 1 masks"),
        ([stripes([255])], {"mask_kind": "classes"}, "no foreground"),
    ],
)
def test_masks_that_do_not_fit_what_is_stated(with_masks, masks, options, message):
    with pytest.raises(MicrosegError, match=message) as caught:
        with_masks(*masks, **options)
    assert "\n" not in str(caught.value)


def test_jpeg_masks_need_a_threshold(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set", names=("m",))
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 9:21] = 255
    (folder / "masks" / "m.png").unlink()
    write_image(folder / "images" / "m.png", mask)
    Image.fromarray(mask).save(folder / "masks" / "m.jpg", quality=60)
    with pytest.raises(MicrosegError, match=r"m\.jpg: a JPEG mask.*state --threshold"):
        opened(folder)
    for kind in ("instance", "classes"):
        with pytest.raises(MicrosegError, match="a JPEG mask"):
            opened(folder, mask_kind=kind, threshold=128)
    manifest = opened(folder, threshold=128)
    target = target_array(manifest.items[0], manifest, tmp_path / "cache")
    assert np.array_equal(target, mask > 0), "the ringing of the compression is cut away"


def test_objects_are_asked_of_instance_masks_only(tmp_path, with_masks):
    manifest = with_masks(stripes([1]))
    with pytest.raises(MicrosegError, match="binary masks do not tell objects apart"):
        instance_array(manifest.items[0], manifest, tmp_path / "cache")


def test_arrays_are_decoded_once_and_read_only(tmp_path, write_pairs, opened, monkeypatch):
    manifest = opened(write_pairs(tmp_path / "set"))
    item, cache = manifest.items[0], tmp_path / "cache"
    first = image_array(item, manifest, cache)
    assert first.shape == (*SHAPE, 1)
    assert first.dtype == np.uint8
    assert isinstance(first, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 1
    item.images[0].unlink()
    assert np.array_equal(image_array(item, manifest, cache), first)


def test_a_changed_file_is_not_stored_under_the_old_hash(tmp_path, write_pairs, opened):
    manifest = opened(write_pairs(tmp_path / "set"))
    item = manifest.items[0]
    write_image(item.images[0], np.zeros(SHAPE, np.uint8))
    with pytest.raises(MicrosegError, match="changed since the data set was checked"):
        image_array(item, manifest, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("arrays/*"))


def test_an_interrupted_decoding_leaves_nothing(tmp_path, write_pairs, opened, monkeypatch):
    manifest = opened(write_pairs(tmp_path / "set"))

    def fail(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        image_array(manifest.items[0], manifest, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "arrays").iterdir())


def test_grey_images_of_a_colour_set_have_three_equal_channels(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set")
    write_image(folder / "images" / "b_1.png", np.zeros((*SHAPE, 3), np.uint8))
    manifest = opened(folder)
    array = image_array(manifest.items[0], manifest, tmp_path / "cache")
    assert array.shape == (*SHAPE, 3)
    assert (array == array[..., :1]).all()
    assert array.any()


def test_sixteen_bit_images_keep_their_type(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set", names=("m",))
    deep = (np.arange(192).reshape(SHAPE) * 300).astype(np.uint16)
    (folder / "images" / "m.png").write_bytes(imagecodecs.png_encode(deep))
    manifest = opened(folder)
    array = image_array(manifest.items[0], manifest, tmp_path / "cache")
    assert array.dtype == np.uint16
    assert np.array_equal(array[..., 0], deep)
    assert isinstance(manifest.items[0].mask, Path)
