"""The audit as people meet it: the command, its table, its exit code and its page."""

import base64
import re
import shutil
import sys

import imagecodecs
import pytest

from microseg import cli
from microseg.data.audit import audit, page
from microseg.folds import make_folds, splits_file
from microseg.storage import home


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Return a function that runs ``microseg data audit`` here; it gives exit code, output and error text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MICROSEG_HOME", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["microseg", "data", "audit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def folder(tmp_path, write_pairs):
    return write_pairs(tmp_path / "set", names=[f"cell{letter}" for letter in "abcdefgh"])


def copy(folder, source, target):
    for part in ("images", "masks"):
        shutil.copy(folder / part / f"{source}.png", folder / part / f"{target}.png")


def test_a_set_that_passes(command, folder):
    code, out, _ = command(folder)
    assert code == 0
    assert re.search(r"note +foreground is \d", out) and out.rstrip().endswith("note")


@pytest.mark.parametrize("target", ["b", "h"])
def test_the_folds_a_search_would_make_are_audited(command, folder, opened, target):
    """With 8 folds of one image each, a copy is always on both sides; without folds it is a warning."""
    copy(folder, "cella", f"cell{target}")
    assert command(folder)[0] == 0
    code, out, _ = command(folder, "--folds", 8, "--holdout", 0)
    assert code == 2 and "in training and validation of a fold" in out and out.rstrip().endswith("note")
    assert re.search(r"1 refuse, .*\d note", out)


def test_an_audit_sets_nothing_aside_for_good(command, folder):
    command(folder, "--folds", 3, "--holdout", 0.25)
    assert not (home() / "splits").exists()


def test_the_hold_out_of_earlier_studies_is_used(command, folder, opened):
    """A kept hold-out of one half of a pair of copies is what a search would meet."""
    copy(folder, "cella", "cellb")
    file = splits_file(opened(folder), home())
    file.parent.mkdir(parents=True)
    file.write_text("dataset: set\nfraction: 0.2\nseed: 0\nholdout: [cella]\n")
    code, out, _ = command(folder, "--folds", 2, "--holdout", 0.2)
    assert code == 2 and "in the hold-out and outside it" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folds", "0"], "--folds 0 --holdout 0.2: folds are a number from 1 on or 'given'"),
        (["--folds", "many"], "folds are a number from 1 on or 'given'"),
        (["--folds", "2", "--holdout", "0.9"], "a share from 0 to below 0.9"),
        (["--folds", "given"], "has no split"),
    ],
)
def test_what_cannot_be_divided(command, folder, arguments, said):
    code, _, err = command(folder, *arguments)
    assert code == 2 and said in err and err.count("\n") == 1


def test_the_page_shows_the_pairs_and_needs_no_network(command, folder, tmp_path):
    copy(folder, "cella", "cellb")
    code, out, _ = command(folder, "--folds", 7, "--holdout", 0, "--output", "audit.html")
    html = (tmp_path / "audit.html").read_text()
    assert code == 2 and "audit.html" in out
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "http" not in html
    shown = re.findall(r'src="data:image/png;base64,([^"]+)" alt="(\w+)"', html)
    assert [name for _, name in shown] == ["cella", "cellb"]
    assert imagecodecs.png_decode(base64.b64decode(shown[0][0])).shape == (12, 16)
    assert shown[0][0] == shown[1][0]


def test_names_cannot_write_html(opened, write_pairs, tmp_path):
    folder = write_pairs(tmp_path / "<i>", names=("<b>x", "<b>y", "z"))
    copy(folder, "<b>x", "<b>y")
    manifest = opened(folder)
    html = page(manifest, tmp_path / "cache", audit(manifest, tmp_path / "cache", make_folds(manifest, 3, 0)))
    assert "&lt;b&gt;x" in html and "<b>" not in html and "<i>" not in html
