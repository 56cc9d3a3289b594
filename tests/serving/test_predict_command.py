"""`microseg predict`: what it says, and that only a person at a terminal sees progress."""

import sys

import pytest

from microseg import cli
from microseg.data.images import write_image


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
