"""Slices and frames that follow each other: found by name, judged by their pixels, mended by a group regex."""

import re

import numpy as np
import pytest
from scipy import ndimage

from microseg.data.audit import audit, session_regex
from microseg.data.audit.neighbours import neighbouring
from microseg.data.images import write_image
from microseg.folds import Fold, make_folds


def pairs(names):
    found = neighbouring(names)
    return [(names[one], names[other]) for one, other in found.pairs], found.stacks, found.stated


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a_z001", "a_z002", "a_z010", "b_z1"], [("a_z001", "a_z002"), ("a_z002", "a_z010")]),
        (["t034", "t035"], [("t034", "t035")]),
        (["x_slice-9", "x_slice-17"], [("x_slice-9", "x_slice-17")]),
        (["m frame_0005", "m frame_0004"], [("m frame_0004", "m frame_0005")]),
        (["p_s3_raw", "p_s2_raw"], [("p_s2_raw", "p_s3_raw")]),
        (["p_T1_Z2", "p_T2_Z1", "p_T1_Z1"], [("p_T1_Z1", "p_T1_Z2"), ("p_T1_Z2", "p_T2_Z1")]),
    ],
)
def test_names_that_number_slices_and_frames(names, expected):
    found, stacks, stated = pairs(names)
    assert (found, stacks, stated) == (expected, 1, True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["set3", "set11", "set2"], [("set2", "set3"), ("set3", "set11")]),
        (
            ["d1_001_h", "d1_002_h", "d2_001_h", "d2_002_h"],
            [("d1_001_h", "d1_002_h"), ("d2_001_h", "d2_002_h")],
        ),
    ],
)
def test_running_numbers_may_be_frames(names, expected):
    found, _, stated = pairs(names)
    assert (found, stated) == (expected, False)


@pytest.mark.parametrize("names", [["0a1f", "77bc"], ["liver", "heart"], ["24h_x", "48h_y"], ["text", "zoo"]])
def test_names_without_a_number_at_the_end_have_no_neighbours(names):
    assert pairs(names)[0] == []


@pytest.mark.parametrize("word", ["z", "Z", "t", "slice", "frame"])
def test_the_group_regex_keeps_a_stack_together(word):
    names = [f"dish{d}_{word}{n:02d}_raw" for d in (1, 2) for n in range(3)]
    pattern = session_regex(names)
    assert [re.search(pattern, name).group(1) for name in names] == ["dish1"] * 3 + ["dish2"] * 3


def write_stacks(folder, pattern, drift, stacks=3, slices=5):
    """Stacks of smooth random texture; it moves by some pixels from slice to slice, or is new each time."""
    rng = np.random.default_rng(0)
    for stack in range(stacks):
        texture = ndimage.gaussian_filter(rng.normal(size=(200, 200)), 6)
        for number in range(slices):
            if drift is None:
                texture = ndimage.gaussian_filter(rng.normal(size=(200, 200)), 6)
            window = texture[(drift or 0) * number :][:128, :128]
            grey = np.clip(128 + 400 * window, 0, 255).astype(np.uint8)
            name = pattern.format(stack=stack, number=number)
            write_image(folder / "images" / f"{name}.png", grey)
            write_image(folder / "masks" / f"{name}.png", (grey > 140).astype(np.uint8))
    return folder


@pytest.fixture
def neighbours(tmp_path, opened):
    """Return a function that audits stacks divided as given, and gives what it finds of neighbours."""

    def run(pattern, drift, *, group_regex=None, folds=True):
        folder = write_stacks(tmp_path / "set", pattern, drift)
        manifest = opened(folder, group_regex=group_regex)
        divided = make_folds(manifest, 3, 0) if folds else []
        found = audit(manifest, tmp_path / "cache", divided)
        return [finding for finding in found if finding.check == "neighbours"]

    return run


def test_neighbours_in_training_and_validation_are_warned_of_with_what_the_pixels_say(neighbours):
    (finding,) = neighbours("dish{stack}_z{number:02d}", 4)
    assert finding.level == "warn" and "in training and validation of a fold" in finding.text
    near, usual = map(
        float, re.search(r"correlate by ([\d.]+), random pairs by (-?[\d.]+)", finding.text).groups()
    )
    assert near > 0.3 > usual
    assert finding.pairs[0].correlation >= near
    pattern = re.search("--group-regex '(.*)'", finding.advice)[1]
    assert neighbours("dish{stack}_z{number:02d}", 4, group_regex=pattern) == []


def test_slices_that_are_no_more_alike_than_others_are_a_note(neighbours):
    (finding,) = neighbours("dish{stack}_z{number:02d}", None)
    assert finding.level == "note" and "no more alike" in finding.text


def test_a_running_number_is_believed_where_the_pixels_say_the_same(neighbours):
    (finding,) = neighbours("dish{stack}_{number:02d}", 4, folds=False)
    assert (finding.level, "in different groups" in finding.text) == ("warn", True)


def test_a_running_number_of_unrelated_images_is_none(neighbours):
    assert neighbours("dish{stack}_{number:02d}", None) == []


def test_one_stack_alone_cannot_be_mended_by_a_regex(tmp_path, opened):
    manifest = opened(write_stacks(tmp_path / "set", "z{number}", 4, stacks=1, slices=7))
    names = [item.name for item in manifest.items]
    fold = Fold(index=0, train=tuple(names[::2]), valid=tuple(names[1::2]))
    (finding,) = [
        found for found in audit(manifest, tmp_path / "cache", [fold]) if found.check == "neighbours"
    ]
    assert "validate on other stacks" in finding.advice and len(finding.items) == 7
