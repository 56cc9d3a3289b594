import hashlib

import numpy as np
import pytest

from microseg.data.manifest import describe, write_manifest
from microseg.errors import MicrosegError


@pytest.fixture
def manifest(tmp_path, write_pairs, opened):
    folder = write_pairs(tmp_path / "set")
    (folder / "manifest.csv").write_text("file,split,stratum\na_1,train,x\na_2,test,x\nb_1,valid,y\n")
    return opened(folder, group_regex="^(.)_", pixel_size_um=0.25)


def test_a_written_manifest_reads_back_equal(tmp_path, manifest, opened):
    write_manifest(manifest, tmp_path / "deep" / "set.yaml")
    back = opened(tmp_path / "deep" / "set.yaml")
    assert back == manifest
    assert back.digest == manifest.digest
    assert str(tmp_path) not in (tmp_path / "deep" / "set.yaml").read_text().partition("items:")[2]


def test_class_masks_read_back_with_their_names(tmp_path, write_pairs, opened):
    mask = np.zeros((12, 16), np.uint8)
    mask[2:5] = 1
    folder = write_pairs(tmp_path / "set", names=("a",), masks={"a": mask})
    named = opened(folder, classes=("c0", "c1", "c2"))
    write_manifest(named, tmp_path / "set.yaml")
    assert opened(tmp_path / "set.yaml") == named
    assert named.classes == ("c0", "c1", "c2")


def test_a_manifest_is_yaml(tmp_path, manifest):
    with pytest.raises(MicrosegError, match=r"give a name that ends in \.yaml"):
        write_manifest(manifest, tmp_path / "set.csv")


def test_the_digest_is_of_content_not_of_place_or_order(tmp_path, write_pairs, opened, manifest):
    elsewhere = opened(write_pairs(tmp_path / "elsewhere"))
    assert elsewhere.digest == manifest.digest
    reverse = manifest.model_copy(update={"items": manifest.items[::-1], "name": "other"})
    assert reverse.digest == manifest.digest


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 7.0},
        {"mask_kind": "instance"},
        {"axes": "CYX"},
        {"channels": 2},
        {"ignore": 255},
        {"classes": ("a",)},
    ],
    ids=str,
)
def test_the_digest_knows_how_the_data_is_read(manifest, change):
    assert manifest.model_copy(update=change).digest != manifest.digest


def test_the_digest_knows_every_image_and_mask(manifest):
    assert manifest.model_copy(update={"items": manifest.items[1:]}).digest != manifest.digest
    swapped = manifest.items[0].model_copy(update={"hashes": manifest.items[1].hashes})
    assert manifest.model_copy(update={"items": (swapped, *manifest.items[1:])}).digest != manifest.digest


def test_files_are_known_by_the_hashes_that_other_programs_print(manifest):
    for item in manifest.items:
        contents = [path.read_bytes() for path in (*item.images, item.mask)]
        assert item.hashes == tuple(hashlib.sha256(content).hexdigest() for content in contents)


def test_a_description_names_what_matters(manifest):
    lines = describe(manifest)
    assert lines["images"] == "3"
    assert lines["sizes (width x height)"] == "16 x 12 (3)"
    assert lines["strata"] == "x (2), y (1)"
    assert lines["groups"] == "2"
    assert lines["pixel size"] == "0.25 um"
    assert lines["masks"] == "binary, foreground is every non-zero value"
    assert all(isinstance(text, str) and text for text in lines.values())
