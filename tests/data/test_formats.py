import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from microseg.config import parse
from microseg.data.arrays import instance_array, target_array
from microseg.data.facts import Ledger
from microseg.data.images import write_image
from microseg.data.manifest import describe
from microseg.data.open import FORMATS
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError

SHAPE = (12, 16)


def image(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def mask(value=255, shape=SHAPE):
    result = np.zeros(shape, np.uint8)
    result[3:8, 4:9] = value
    return result


def named(manifest):
    return {item.name: item for item in manifest.items}


def test_paired_folders(tmp_path, write_pairs, opened):
    manifest = opened(write_pairs(tmp_path / "set"))
    assert [item.name for item in manifest.items] == ["a_1", "a_2", "b_1"]
    assert manifest.mask_kind == "binary"
    assert manifest.channels == 1
    assert manifest.name == "set"
    first = manifest.items[0]
    assert (first.height, first.width) == SHAPE
    assert first.group == "a_1"
    assert first.split is None
    assert all(path.is_absolute() for path in (*first.images, first.mask))


def test_masks_beside_images_of_other_suffix_and_with_mask_suffix(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set", suffix=".tif")
    (folder / "masks" / "a_1.png").rename(folder / "masks" / "a_1_mask.png")
    (folder / "masks").rename(folder / "labels")
    (folder / "images" / "README.txt").write_text("notes")
    (folder / "images" / "._a_1.tif").write_bytes(b"")
    assert len(opened(folder).items) == 3


def test_split_folders_name_their_items(tmp_path, write_pairs, opened):
    for split in ("train", "val", "test"):
        write_pairs(tmp_path / "set" / split, names=("0", "1"))
    manifest = opened(tmp_path / "set")
    assert [item.name for item in manifest.items] == [
        "test-0",
        "test-1",
        "train-0",
        "train-1",
        "valid-0",
        "valid-1",
    ]
    assert [item.split for item in manifest.items] == ["test", "test", "train", "train", "valid", "valid"]


def test_one_file_per_channel_in_folders(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set", names=("x",))
    (folder / "images" / "x.png").rename(folder / "images" / "x_gfp.png")
    write_image(folder / "images" / "x_dapi.png", image(9))
    manifest = opened(folder, channel_suffixes=("_dapi", "_gfp"))
    assert manifest.channels == 2
    assert [path.name for path in manifest.items[0].images] == ["x_dapi.png", "x_gfp.png"]
    with pytest.raises(MicrosegError, match="channel 'x_cy5' is missing"):
        opened(folder, channel_suffixes=("_dapi", "_gfp", "_cy5"))
    with pytest.raises(MicrosegError, match="none of the channel suffixes _dapi; rename"):
        opened(folder, channel_suffixes=("_dapi",))


def test_groups_by_regex(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set")
    assert opened(folder, group_regex=r"^(.+)_\d+").groups == ("a", "b")
    assert opened(folder, group_regex=r"^[a-z]").groups == ("a", "b")
    with pytest.raises(MicrosegError, match=r"b_1\.png: group regex '\^\(a\)' finds nothing in 'b_1'"):
        opened(folder, group_regex="^(a)")


def test_a_manifest_csv_beside_the_folders_adds_facts(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set")
    rows = (
        "file,group,kind,part\na_1.png,s1,dark,train\na_2.png,s1,dark,val\n"
        "b_1.png,s2,bright,test\nextra.png,s3,x,\n"
    )
    (folder / "manifest.csv").write_text(rows)
    plain = named(opened(folder))
    assert plain["a_2"].group == "s1"
    assert plain["a_2"].stratum == ""
    stated = named(opened(folder, stratum_column="kind", split_column="part", group_regex="^(.)"))
    assert stated["b_1"].stratum == "bright"
    assert stated["b_1"].split == "test"
    assert stated["a_2"].split == "valid"
    assert stated["a_2"].group == "a"
    with pytest.raises(MicrosegError, match="no column 'kin'; did you mean 'kind'"):
        opened(folder, stratum_column="kin")
    with pytest.raises(MicrosegError, match="give one of them"):
        opened(folder, group_column="kind", group_regex=".")
    (folder / "manifest.csv").write_text(rows.replace("b_1.png", "c_1.png"))
    with pytest.raises(MicrosegError, match=r"no row for image 'b_1' \(1 missing\) in column 'file'"):
        opened(folder, stratum_column="kind")
    (folder / "manifest.csv").write_text(rows.replace("extra.png", "a_1.png"))
    with pytest.raises(MicrosegError, match="'a_1' occurs 2 times"):
        opened(folder, stratum_column="kind")
    (folder / "manifest.csv").write_text(rows.replace("val", "vald"))
    with pytest.raises(MicrosegError, match="unknown split 'vald'; did you mean 'val"):
        opened(folder, split_column="part")
    (folder / "manifest.csv").unlink()
    with pytest.raises(MicrosegError, match=r"'kind' is stated, but there is no manifest\.csv"):
        opened(folder, stratum_column="kind")


def break_missing_mask(folder):
    (folder / "masks" / "a_1.png").unlink()


def break_extra_mask(folder):
    write_image(folder / "masks" / "z.png", mask())


def break_two_masks(folder):
    write_image(folder / "masks" / "a_1_mask.png", mask())


def break_two_images(folder):
    write_image(folder / "images" / "a_1.tif", image())


def break_shape(folder):
    write_image(folder / "masks" / "a_1.png", mask(shape=(13, 16)))


def break_cut(folder):
    path = folder / "images" / "a_1.png"
    path.write_bytes(path.read_bytes()[:90])


def break_nan(folder):
    (folder / "images" / "a_1.png").unlink()
    write_image(folder / "images" / "a_1.tif", np.full(SHAPE, np.nan, np.float32))


def break_empty(folder):
    shutil.rmtree(folder / "images")
    shutil.rmtree(folder / "masks")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()


def break_no_foreground(folder):
    for path in (folder / "masks").iterdir():
        write_image(path, mask(0))


def break_channels(folder):
    write_image(folder / "images" / "a_1.tif", image(shape=(*SHAPE, 2)))
    (folder / "images" / "a_1.png").unlink()


def break_masks_folder(folder):
    shutil.rmtree(folder / "masks")


def break_czi(folder):
    (folder / "images" / "scan.czi").write_bytes(b"ZISRAWFILE")


BROKEN = {
    break_missing_mask: r"images/a_1\.png: no mask of this name .*\(1 of 3 images",
    break_extra_mask: r"masks/z\.png: no image of this name .*\(1 of 4 masks",
    break_two_masks: r"masks/a_1_mask\.png: a second mask for image 'a_1' beside a_1\.png",
    break_two_images: "the name 'a_1' occurs 2 times",
    break_shape: r"masks/a_1\.png: 16 x 13 pixels, but its image a_1\.png has 16 x 12",
    break_cut: r"images/a_1\.png: damaged or incomplete file",
    break_nan: r"images/a_1\.tif: NaN or infinite values",
    break_empty: "set: no images; PNG, TIFF and JPEG",
    break_no_foreground: r"no foreground in any of the 3 masks, .*a_1\.png",
    break_channels: r"images/a_1\.tif: 2 channels, but b_1\.png has 1",
    break_masks_folder: r"beside images/ there must be one of masks/ and labels/, found 0",
    break_czi: r"scan\.czi: CZI is not read directly; convert it to TIFF",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_broken_input_is_one_line_that_names_the_file(tmp_path, write_pairs, opened, damage):
    folder = write_pairs(tmp_path / "set")
    opened(folder)  # what is remembered of a good state must not hide the damage
    damage(folder)
    with pytest.raises(MicrosegError, match=BROKEN[damage]) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_what_is_no_data_set(tmp_path, opened):
    with pytest.raises(MicrosegError, match="no such file or folder"):
        opened(tmp_path / "none")
    (tmp_path / "set" / "other").mkdir(parents=True)
    with pytest.raises(
        MicrosegError, match=r"one of these is needed: images/ and masks/.*one folder per image.*CSV"
    ):
        opened(tmp_path / "set")


def test_grey_among_colour_is_read_as_colour(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set")
    write_image(folder / "images" / "a_1.png", image(shape=(*SHAPE, 3)))
    assert opened(folder).channels == 3


def write_bowl(folder, images=3):
    for index in range(images):
        write_image(folder / f"id{index}" / "images" / f"id{index}.png", image(index))
        first, second = np.zeros((2, *SHAPE), np.uint8)
        first[1:5, 1:5] = 255
        second[4:9, 3:9] = 255
        write_image(folder / f"id{index}" / "masks" / "one.png", first)
        write_image(folder / f"id{index}" / "masks" / "two.png", second)
    return folder


def test_one_mask_per_object_is_merged_once(tmp_path, opened):
    folder = write_bowl(tmp_path / "bowl")
    manifest = opened(folder)
    assert manifest.mask_kind == "instance"
    assert [item.name for item in manifest.items] == ["id0", "id1", "id2"]
    labels = instance_array(manifest.items[0], manifest, tmp_path / "cache")
    assert labels.dtype == np.int32
    assert labels[4, 4] == 1, "where objects overlap the earlier one stays"
    assert labels[8, 8] == 2
    assert np.array_equal(np.unique(labels), [0, 1, 2])
    merged = manifest.items[0].mask
    written = merged.stat().st_mtime_ns
    assert opened(folder) == manifest
    assert merged.stat().st_mtime_ns == written
    shutil.rmtree(tmp_path / "cache")
    assert opened(folder) == manifest


def test_a_changed_object_is_merged_anew(tmp_path, opened):
    folder = write_bowl(tmp_path / "bowl")
    before = opened(folder)
    write_image(folder / "id1" / "masks" / "three.png", mask())
    after = opened(folder)
    assert [a.sha256 == b.sha256 for a, b in zip(before.items, after.items, strict=True)] == [
        True,
        False,
        True,
    ]


def test_broken_bowls(tmp_path, opened):
    folder = write_bowl(tmp_path / "bowl")
    write_image(folder / "id1" / "masks" / "three.png", mask(shape=(5, 5)))
    with pytest.raises(MicrosegError, match=r"three\.png: shape \(5, 5\) .* one\.png is \(12, 16\)"):
        opened(folder)
    shutil.rmtree(folder / "id1" / "masks")
    with pytest.raises(MicrosegError, match="id1: no folder masks/"):
        opened(folder)
    (folder / "id1" / "masks").mkdir()
    with pytest.raises(MicrosegError, match="id1: 1 images and 0 masks"):
        opened(folder)
    with pytest.raises(MicrosegError, match="always read as instances"):
        opened(folder, mask_kind="binary")


@pytest.mark.parametrize(
    ("name", "message"),
    [("three.jpg", "a JPEG mask of a single object"), ("three.tif", "damaged or incomplete")],
)
def test_objects_that_cannot_be_read(tmp_path, opened, name, message):
    folder = write_bowl(tmp_path / "bowl")
    path = folder / "id1" / "masks" / name
    if path.suffix == ".jpg":
        Image.fromarray(mask()).save(path)
    else:
        write_image(path, mask())
        path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(MicrosegError, match=rf"id1/masks/{name}: {message}"):
        opened(folder)
    assert not list((tmp_path / "cache" / "facts").glob("*")), "nothing is remembered of a broken set"


def write_table(folder, write_pairs, text, name="table.csv"):
    write_pairs(folder)
    (folder / name).write_text(text)
    return folder / name


def test_a_table_of_paths(tmp_path, write_pairs, opened):
    text = (
        "image;mask;group;split;stratum\nimages/a_1.png;masks/a_1.png;007;train;x\n"
        "images/b_1.png;masks/b_1.png;8;test;\n"
    )
    items = named(opened(write_table(tmp_path, write_pairs, text)))
    assert items["a_1"].group == "007"
    assert items["a_1"].split == "train"
    assert items["a_1"].stratum == "x"
    assert items["b_1"].split == "test"


def test_a_table_with_other_columns_and_a_file_per_channel(tmp_path, write_pairs, opened):
    text = "dapi,gfp,truth,specimen\nimages/a_1.png,images/a_2.png,masks/a_1.png,s\n"
    table = write_table(tmp_path, write_pairs, text)
    manifest = opened(table, image_column="dapi,gfp", mask_column="truth", group_column="specimen")
    assert manifest.channels == 2
    assert manifest.items[0].group == "s"
    with pytest.raises(MicrosegError, match="no column 'dapy'; did you mean 'dapi'"):
        opened(table, image_column="dapy", mask_column="truth")


def test_a_yaml_table(tmp_path, write_pairs, opened):
    text = (
        "mask_kind: binary\npixel_size_um: 0.5\nitems:\n"
        "- {image: [images/a_1.png, images/a_2.png], mask: masks/a_1.png, group: 7}\n"
        "- {name: other, image: [images/b_1.png, images/a_2.png], mask: masks/b_1.png, group: 7,"
        " split: test}\n"
    )
    manifest = opened(write_table(tmp_path, write_pairs, text, "table.yaml"))
    assert manifest.channels == 2
    assert manifest.pixel_size_um == 0.5
    assert [(item.name, item.group, item.split) for item in manifest.items] == [
        ("a_1", "7", None),
        ("other", "7", "test"),
    ]
    assert opened(tmp_path / "table.yaml", pixel_size_um=2.0).pixel_size_um == 2.0, (
        "what is stated goes first"
    )


ROW = "images/a_1.png,masks/a_1.png"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "image,mask\n", "no rows"),
        ("t.csv", f"image,mask\n{ROW}\n{ROW}\n", "'a_1' occurs 2 times"),
        ("t.csv", f"image,mask, mask\n{ROW},m.png\n", "t.csv: 2 columns are named 'mask'; give each a name"),
        ("t.csv", f"image,mask\n{ROW},3\n", "line 2 does not have the header's 2 columns"),
        ("t.csv", "image,mask\nimages/a_1.png\n", "line 2 does not have the header's 2 columns"),
        ("t.csv", "image,mask\nimages/x.png,masks/a_1.png\n", "row 1: no such file 'images/x.png'"),
        ("t.csv", f"img,mask\n{ROW}\n", "no column 'image'; .*allowed: img, mask"),
        ("t.csv", f"image,mask,group\n{ROW},\n", "no value in the group column"),
        ("t.csv", f"image,mask,name\n{ROW},a/b\n", "the name 'a/b' has a slash"),
        ("t.csv", "image,mask\nimages/a_1.png,t.csv\n", "'t.csv' is not an image"),
        ("t.yaml", "items: []\n", "no items"),
        ("t.yaml", "mask_kin: binary\nitems: []\n", "unknown key 'mask_kin'; did you mean 'mask_kind'"),
        (
            "t.yaml",
            "mask_kind: blobs\nitems: []\n",
            "mask_kind: Input should be 'binary', 'instance' or 'classes'",
        ),
        ("t.yaml", "items: [\n", "not valid YAML"),
    ],
)
def test_broken_tables(tmp_path, write_pairs, opened, name, text, message):
    with pytest.raises(MicrosegError, match=message) as caught:
        opened(write_table(tmp_path, write_pairs, text, name))
    assert "\n" not in str(caught.value)


def test_a_table_in_another_encoding(tmp_path, opened):
    (tmp_path / "t.csv").write_bytes("image,mask\nü,b\n".encode("latin-1"))
    with pytest.raises(MicrosegError, match="not UTF-8"):
        opened(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": "YZ"}, "letters of T, Z, C, Y, X"),
        ({"axes": "CCYX"}, "each once"),
        ({"group_regex": "("}, "not a valid regular expression"),
        ({"classes": ["cell"]}, "background and at least one class"),
        ({"threshold": 0}, "greater than 0"),
        ({"mask_knd": "binary"}, "did you mean 'mask_kind'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(MicrosegError, match=message):
        parse(DataOptions, options, "options")


def test_options_that_a_layout_has_no_use_for(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set")
    with pytest.raises(MicrosegError, match="masks are paired by name"):
        opened(folder, mask_column="truth")
    (folder / "t.csv").write_text(f"image,mask\n{ROW}\n")
    with pytest.raises(MicrosegError, match="channel suffixes are for folders"):
        opened(folder / "t.csv", channel_suffixes=("_a",))


def test_unchanged_files_are_read_once(tmp_path, write_pairs, opened, monkeypatch):
    folder = write_pairs(tmp_path / "set")
    first = opened(folder)
    read = []
    real = Ledger.image.__globals__["read_bytes"]
    monkeypatch.setattr("microseg.data.facts.read_bytes", lambda path: read.append(path.name) or real(path))
    assert opened(folder) == first
    assert read == []
    os.utime(folder / "masks" / "a_2.png", ns=(1, 1))
    assert opened(folder) == first
    assert read == ["a_2.png"]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", json.dumps({"version": 0, "known": {}}), json.dumps({"version": 1, "known": {"mask": {}}})],
)
def test_a_damaged_ledger_is_not_believed(tmp_path, write_pairs, opened, content):
    folder = write_pairs(tmp_path / "set")
    first = opened(folder)
    (ledger,) = (tmp_path / "cache" / "facts").iterdir()
    ledger.write_text(content)
    assert opened(folder) == first


def test_every_format_says_its_layout():
    assert all(entry.layout for entry in FORMATS.values())


REAL = {
    "afm_astrocyte": (
        {"group_regex": r"^(.+)_\d+(?=_|$)", "split_column": "split_in_repo"},
        68,
        12,
        "binary",
        1,
    ),
    "dsb2018_nuclei": ({"stratum_column": "kind"}, 106, 106, "instance", 3),
    "stardist_test2d": ({}, 1, 1, "instance", 1),
    "t98g_phase_usiigaci": ({"split_column": "split_in_repo"}, 14, 14, "instance", 1),
}


@pytest.mark.parametrize("name", REAL)
def test_real_sets_open(real_data, opened, tmp_path, name):
    options, items, groups, kind, channels = REAL[name]
    manifest = opened(real_data(name), **options)
    assert (len(manifest.items), len(manifest.groups), manifest.mask_kind, manifest.channels) == (
        items,
        groups,
        kind,
        channels,
    )
    target = target_array(manifest.items[-1], manifest, tmp_path / "cache")
    assert set(np.unique(target)) <= {0, 1}
    assert 0.0 < target.mean() < 0.6
    assert describe(manifest)["images"] == str(items)
