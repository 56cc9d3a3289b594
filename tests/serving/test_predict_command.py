"""`microseg predict`: what it says, and that only a person at a terminal sees progress."""

import sys

import pytest
from numpy.testing import assert_array_equal

from microseg import cli
from microseg.data.images import read_labels, write_image
from microseg.serving.batch import folder as batch
from microseg.serving.card import Tiling
from microseg.serving.segmenter import Segmenter
from microseg.serving.unlike import appearance, differences, look


@pytest.fixture
def predicted(registered, image, tmp_path, monkeypatch, capsys):
    """Predict one image by the command; return the exit code, what it said and the error text."""
    write_image(tmp_path / "in" / "a.png", image)

    def call(*options):
        folders = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
        arguments = ["predict", "--model", "models:/cells@champion", *folders, *options]
        monkeypatch.setattr(sys, "argv", ["microseg", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def test_masks_alone_and_objects_are_told_apart_in_what_is_said(predicted, tmp_path):
    code, out, err = predicted()
    assert (code, err) == (0, "")
    assert out.startswith(f"wrote 1 masks to {tmp_path / 'out'} (")
    assert not (tmp_path / "out" / "objects.csv").exists()
    code, out, err = predicted("--instances")
    assert (code, err) == (0, "")
    count = len((tmp_path / "out" / "objects.csv").read_text().splitlines()) - 1
    assert f"wrote 1 masks with {count} objects, measured in objects.csv, to" in out


def test_progress_is_shown_on_standard_error_of_a_terminal(predicted, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # how rich is told that somebody looks
    code, out, err = predicted()
    assert code == 0
    assert "images" in err and "100%" in err
    assert "100%" not in out


def test_test_time_augmentation_is_that_of_the_segmenter(predicted, registered, image, tmp_path):
    code, _, err = predicted("--tta")
    assert (code, err) == (0, "")
    segmenter = Segmenter(registered.directory)
    mask = read_labels(tmp_path / "out" / "a.png")
    assert_array_equal(mask, segmenter.segment(image, tta=True))
    assert (mask != segmenter.segment(image)).any()


def test_what_tiles_change_is_said_where_it_was_measured(predicted, build, tmp_path, monkeypatch):
    assert "note" not in predicted()[1]
    card = build.card(tiling=Tiling(halo=4, seam_mean=0.0001, seam_worst=0.02))
    segmenter = Segmenter(build.save(tmp_path / "model", [build.network(1)], card))
    monkeypatch.setattr(batch, "load_segmenter", lambda _: segmenter)
    assert predicted()[1].splitlines()[-1] == f"note   {card.seams}"


def test_images_unlike_those_of_the_training_are_named_and_predicted(
    predicted, build, image, tmp_path, monkeypatch
):
    known = build.card(appearance=appearance([image]))
    directory = build.save(tmp_path / "model", [build.network(1)], known)
    monkeypatch.setattr(batch, "load_segmenter", lambda uri: Segmenter(directory))
    for index in range(7):
        write_image(tmp_path / "in" / f"dim{index}.png", image // 40)
    code, out, err = predicted()
    assert (code, err) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 8
    said = [line for line in out.splitlines() if line.startswith("unlike the training images")]
    sentences = "; ".join(differences(known.appearance, look(image // 40)))
    assert sentences
    assert said[:5] == [
        f"unlike the training images  {tmp_path}/in/dim{n}.png: {sentences}" for n in range(5)
    ]
    assert said[5:] == ["unlike the training images  2 more of 8"]
