import re
import shutil

import numpy as np
import pytest
from PIL import Image

from microseg.data.arrays import image_array
from microseg.data.audit import audit, looks, session_regex
from microseg.data.images import write_image
from microseg.folds import Fold, make_folds


@pytest.fixture
def folder(tmp_path, write_pairs):
    return write_pairs(tmp_path / "set", names=("w", "x", "y", "z"))


@pytest.fixture
def findings(tmp_path, opened):
    """Return a function that audits a folder and gives (level, line) pairs."""

    def run(source, folds=(), tile=None, **options):
        found = audit(opened(source, **options), tmp_path / "cache", folds, tile)
        return [(finding.level, finding.line) for finding in found]

    return run


def having(found, text):
    return [level for level, line in found if text in line]


def facts(folder, rows):
    (folder / "manifest.csv").write_text("file,group,split\n" + rows)


def copy(folder, source, target):
    """Store the same pixels in another file format."""
    with Image.open(folder / "images" / f"{source}.png") as image:
        write_image(folder / "images" / f"{target}.tif", np.asarray(image))
    (folder / "images" / f"{target}.png").unlink()


def test_a_clean_set_has_notes_only(folder, findings):
    found = findings(folder)
    assert {level for level, _ in found} == {"note"}
    assert having(found, "foreground is ")


def test_the_same_image_on_both_sides_is_refused(folder, findings):
    copy(folder, "w", "x")
    assert having(findings(folder), "the same image 2 times, in different groups") == ["warn"]
    facts(folder, "w,g,\nx,g,\ny,h,\nz,i,\n")
    assert having(findings(folder), "the same image 2 times, in one group") == ["note"]
    facts(folder, "w,g,train\nx,h,test\ny,i,train\nz,j,test\n")
    assert having(findings(folder), "the same image 2 times, in the test split and outside it") == ["refuse"]
    facts(folder, "w,g,train\nx,h,valid\ny,i,train\nz,j,valid\n")
    assert having(findings(folder), "the same image 2 times, in both the given") == ["warn"]


def test_the_same_image_in_training_and_validation_of_a_fold(folder, findings):
    copy(folder, "w", "x")
    fold = Fold(index=0, train=("w", "y"), valid=("x", "z"))
    assert having(findings(folder, [fold]), "in training and validation of a fold") == ["refuse"]
    held = Fold(index=0, train=("w",), valid=("y", "z"))
    assert having(findings(folder, [held]), "in the hold-out and outside it") == ["refuse"]


def test_a_group_on_both_sides_of_the_test_split(folder, findings):
    facts(folder, "w,g,train\nx,g,test\ny,h,train\nz,i,valid\n")
    assert having(findings(folder), "1 groups have images in the test split and outside it: g") == ["refuse"]


def test_a_copied_mask(folder, findings):
    shutil.copy(folder / "masks" / "w.png", folder / "masks" / "z.png")
    assert having(findings(folder), "the same mask for 2 different images (w, z); was one copied?") == [
        "warn"
    ]


def test_empty_masks_are_counted_and_no_copies_of_each_other(folder, findings):
    for name in "wx":
        write_image(folder / "masks" / f"{name}.png", np.zeros((12, 16), np.uint8))
    found = findings(folder)
    assert having(found, "2 of 4 masks have no foreground") == ["note"]
    assert not having(found, "the same mask")


def test_swapped_foreground_and_background(folder, findings):
    for path in (folder / "masks").iterdir():
        mask = np.ones((12, 16), np.uint8)
        mask[0, : ord(path.stem) % 5 + 1] = 0
        write_image(path, mask)
    assert having(findings(folder), "the right way round?") == ["warn"]


def test_tiny_objects_small_images_and_mixed_types(folder, findings):
    for number, path in enumerate(sorted((folder / "masks").iterdir())):
        mask = np.zeros((12, 16), np.uint16)
        mask[1 : 6 + number, 1:5] = 1
        mask[11, 15] = 2
        write_image(path, mask)
    copy(folder, "w", "x")
    write_image(folder / "images" / "x.tif", np.zeros((12, 16), np.uint16))
    found = findings(folder, tile=14, mask_kind="instance")
    assert having(found, "4 objects have fewer than 9 pixels") == ["note"]
    assert having(found, "4 of 4 images are smaller than the tile of 14") == ["note"]
    assert having(found, "different number types: uint16, uint8") == ["note"]
    assert not having(findings(folder, tile=12, mask_kind="instance"), "smaller than the tile")


@pytest.mark.parametrize(
    ("names", "session"),
    [
        (["dish1_day2_001_h", "dish1_day2_002_h", "dish2_day9_001_h", "dish2_day9_002_h"], "dish1_day2"),
        (["A-1", "A-2", "B-1", "B-2"], "A"),
        (["left1", "left2", "right1", "right2"], "left"),
    ],
)
def test_sessions_in_file_names(names, session):
    pattern = session_regex(names)
    assert re.search(pattern, names[0]).group(1) == session


@pytest.mark.parametrize(
    "names", [["set01", "set02", "set03"], ["0a1f", "77bc", "e001"], ["a_1", "b_1", "c_1"], []]
)
def test_no_sessions_in_file_names(names):
    assert session_regex(names) is None


def test_the_published_split_of_the_afm_images_mixes_11_sessions(real_data, findings, opened):
    """It is flagged, with a regex that works and the folds that it makes: groups, and images in brackets."""
    folder = real_data("afm_astrocyte")
    found = findings(folder, split_column="split_in_repo")
    (line,) = [line for level, line in found if level == "warn"]
    assert "the given split divides 6 of the 11 sessions" in line
    pattern = line.partition("--group-regex '")[2].partition("'")[0]
    preview = re.findall(r"(\d+) \((\d+)\)", line.partition("5 folds then validate on ")[2])
    grouped = findings(folder, group_regex=pattern)
    assert not having(grouped, "sessions")
    manifest = opened(folder, group_regex=pattern, split_column="split_in_repo")
    groups = {item.name: item.group for item in manifest.items}
    folds = make_folds(manifest, 5, 0)
    made = [(str(len({groups[name] for name in fold.valid})), str(len(fold.valid))) for fold in folds]
    assert preview == made
    assert sum(int(count) for count, _ in made) == 11  # the 8 images of the test split stay outside


def test_copies_that_no_fold_divides_are_worth_a_note_only(folder, findings):
    copy(folder, "w", "x")
    fold = Fold(index=0, train=("w", "x"), valid=("y", "z"))
    assert having(findings(folder, [fold]), "but on one side of every fold") == ["note"]


def test_several_copies_on_the_same_sides_are_one_finding(folder, findings):
    copy(folder, "w", "x")
    copy(folder, "y", "z")
    assert having(findings(folder), "4 images are copies of 2, in different groups (w, x, y, ...)") == [
        "warn"
    ]


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        (1, "4 folds then validate on 1 (2), 1 (2), 1 (2), 1 (2) groups"),
        (2, "2 folds then validate on 2 (4), 2 (4) groups"),
    ],
)
def test_the_folds_that_sessions_would_make(tmp_path, write_pairs, opened, folds, said):
    """As many as are asked for, and the usual number in place of a given split, as far as there are sessions."""
    folder = write_pairs(tmp_path / "set", names=[f"{dish}_{number}" for dish in "abcd" for number in "12"])
    manifest = opened(folder)
    found = audit(manifest, tmp_path / "cache", make_folds(manifest, folds, 0))
    assert said in next(finding.advice for finding in found if finding.check == "unstated_groups")


def test_groups_in_a_column_that_nobody_stated(folder, findings):
    (folder / "manifest.csv").write_text("file,Patient\nw,1\nx,1\ny,2\nz,2\n")
    assert having(findings(folder), "state --group-column 'Patient'") == ["warn"]
    assert not having(findings(folder, group_column="Patient"), "group-column")


@pytest.mark.parametrize("column", ["kind", "operating", "patient_name"])
def test_columns_that_are_no_groups(folder, findings, column):
    """Another word, or a value of its own for every image."""
    values = "abcd" if column == "patient_name" else "aabb"
    rows = "".join(f"{name},{value}\n" for name, value in zip("wxyz", values, strict=True))
    (folder / "manifest.csv").write_text(f"file,{column}\n{rows}")
    assert not having(findings(folder), "group-column")


def test_one_look_at_each_image(folder, opened, tmp_path, monkeypatch):
    """The pixels are mapped once, whatever the number of checks."""
    read = []
    monkeypatch.setattr(
        looks, "image_array", lambda item, *given: read.append(item.name) or image_array(item, *given)
    )
    audit(opened(folder), tmp_path / "cache", (), 8)
    assert sorted(read) == ["w", "x", "y", "z"]


def test_every_finding_has_a_stable_name_and_the_gravest_comes_first(folder, opened, tmp_path):
    copy(folder, "w", "x")
    facts(folder, "w,g,train\nx,h,test\ny,i,train\nz,j,test\n")
    found = audit(opened(folder), tmp_path / "cache", (), 20)
    assert [finding.check for finding in found][:1] == ["same_image"]
    assert {finding.check for finding in found} == {
        "same_image",
        "unstated_groups",
        "class_balance",
        "image_size",
    }
    assert [finding.level for finding in found] == sorted(
        (finding.level for finding in found), key=("refuse", "warn", "note").index
    )
