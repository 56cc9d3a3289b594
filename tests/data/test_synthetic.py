import hashlib

import numpy as np
import pytest
from scipy import ndimage

from microseg.config import SearchConfig
from microseg.data.audit import audit
from microseg.data.images import read_image, read_labels
from microseg.data.synthetic import draw_cells, write_demo
from microseg.errors import MicrosegError
from microseg.folds import split_holdout
from microseg.statistics import FEWEST_GROUPS


def content(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_demo_opens_without_any_option(tmp_path, opened):
    folder = write_demo(tmp_path / "demo", images=8, sessions=4, size=96)
    manifest = opened(folder)
    assert manifest.mask_kind == "instance"
    assert manifest.groups == ("sessionA", "sessionB", "sessionC", "sessionD")
    assert manifest.items[1].name == "sessionA_002"
    assert (manifest.items[0].height, manifest.items[0].width) == (96, 96)
    assert {finding.level for finding in audit(manifest, tmp_path / "cache")} == {"note"}
    assert "96 x 96" in (folder / "README.txt").read_text()


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    demos = [write_demo(tmp_path / f"{n}", images=2, sessions=2, size=48, seed=n // 2) for n in range(3)]
    one, two, other = map(content, demos)
    assert one == two
    assert one.keys() == other.keys()
    assert one["images/sessionA_001.tif"] != other["images/sessionA_001.tif"]


def test_more_images_leave_the_first_ones_as_they_are(tmp_path):
    few = content(write_demo(tmp_path / "few", images=2, sessions=2, size=48))
    more = content(write_demo(tmp_path / "more", images=6, sessions=2, size=48))
    assert few["images/sessionB_001.tif"] == more["images/sessionB_001.tif"]


def test_the_demo_has_as_many_sessions_as_a_promotion_needs(tmp_path, opened):
    manifest = opened(write_demo(tmp_path / "demo", images=12))
    _, held = split_holdout(manifest, SearchConfig.model_fields["holdout"].default, 0, tmp_path / "s.yaml")
    assert len(held.groups) >= FEWEST_GROUPS


def test_it_looks_like_fluorescence(tmp_path):
    folder = write_demo(tmp_path / "demo", images=8, sessions=8)
    touching = 0
    for path in sorted((folder / "images").iterdir()):
        image, labels = read_image([path])[..., 0], read_labels(folder / "masks" / f"{path.stem}.png")
        assert image.dtype == np.uint16
        assert image.max() < 65535, "nothing is saturated"
        cells = labels > 0
        assert 0.04 < cells.mean() < 0.6
        assert image[cells].mean() > 1.2 * image[~cells].mean(), "cells are brighter than background"
        bright = np.quantile(image[~cells], 0.99)
        assert (image[cells] < bright).mean() > 0.005, "no single threshold separates the two"
        touching += labels.max() - ndimage.label(cells, np.ones((3, 3)))[1]
    assert touching >= 8, "many cells touch another one"


def test_objects_are_numbered_without_gaps():
    _, labels = draw_cells(64, session=1, image=0, seed=5)
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert np.bincount(labels.ravel()).min() >= 12


@pytest.mark.parametrize(
    "numbers", [{"sessions": 0}, {"sessions": 27}, {"images": 3, "sessions": 4}, {"size": 16}, {"seed": -1}]
)
def test_numbers_out_of_range(tmp_path, numbers):
    with pytest.raises(MicrosegError, match="allowed are 1 to 26 sessions"):
        write_demo(tmp_path / "demo", **numbers)
    assert not (tmp_path / "demo").exists()


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(MicrosegError, match="not an empty folder"):
        write_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
