"""What a machine of a cluster has and sees, asked on this one."""

import pytest

import microseg
from microseg.data.open import open_dataset
from microseg.data.options import DataOptions
from microseg.data.synthetic import write_demo
from microseg.errors import MicrosegError
from microseg.search import machines
from microseg.search.machines import Need, Needs, own_copy, own_home, unfit


@pytest.fixture
def writes(monkeypatch, tmp_path):
    """Return what was done on the store, as calls; the machine has a folder of its own."""
    done = []
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(machines, "store", lambda path, uri: done.append(("put", uri)))
    monkeypatch.setattr(machines, "download", lambda uri, names, into: done.append(("get", uri, *names)))
    monkeypatch.setattr(machines, "remove", lambda uri, names: done.append(("remove", uri, *names)))
    return done


def test_a_machine_that_has_all_is_fit(tmp_path, writes):
    assert unfit(Needs((Need(tmp_path, "share it"),)), microseg.__version__) == ""
    assert not writes
    assert unfit(Needs(store="s3://lab/studies"), microseg.__version__) == ""
    assert [call[0] for call in writes] == ["put", "get", "remove"]
    (_, put), (_, uri, got), (_, _, gone) = writes
    assert put == f"{uri}/{got}" and got == gone


def test_what_a_machine_lacks_is_said_with_what_to_do(tmp_path, writes, monkeypatch):
    needs = Needs((Need(tmp_path, ""), Need(tmp_path / "cells", "give --data s3://...")), "s3://lab/studies")
    assert unfit(needs, "0.0") == (
        f"has microseg {microseg.__version__}, this one 0.0; install the same on all machines"
    )
    assert unfit(needs, microseg.__version__) == f"does not see {tmp_path}/cells; give --data s3://..."

    def refuse(path, uri):
        raise MicrosegError("s3://lab/studies: access denied")

    monkeypatch.setattr(machines, "store", refuse)
    text = unfit(Needs(store="s3://lab/studies"), microseg.__version__)
    assert text == "cannot keep what it trains: s3://lab/studies: access denied"


def test_a_folder_of_its_own_that_cannot_be_written_is_said(tmp_path, writes, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path / "file"))
    assert unfit(Needs(store="s3://lab/studies"), microseg.__version__).startswith(
        "cannot keep what it trains: [Errno 20] Not a directory"
    )


def test_the_folder_of_a_machine_is_what_it_was_told_or_a_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MICROSEG_HOME", str(tmp_path))
    assert own_home() == tmp_path
    monkeypatch.delenv("MICROSEG_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert own_home() == tmp_path / "cache" / "microseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "lab"))
    assert own_home() == tmp_path / "lab" / ".cache" / "microseg"


@pytest.fixture
def copies(tmp_path):
    """The same data set at two places, opened at the first."""
    for place in ("driver", "worker"):
        write_demo(tmp_path / place / "cells", images=8, sessions=2)
    manifest = open_dataset(tmp_path / "driver" / "cells", DataOptions(), tmp_path / "driver" / "cache")
    development = manifest.model_copy(update={"items": manifest.items[2:]})
    return development, tmp_path / "worker"


def test_a_machine_reads_its_own_copy_of_the_same_images(copies):
    manifest, worker = copies
    own = own_copy(manifest, str(worker / "cells"), DataOptions(), worker / "cache")
    assert own.digest == manifest.digest
    assert [item.name for item in own.items] == [item.name for item in manifest.items]
    paths = [path for item in own.items for path in (*item.images, item.mask)]
    assert all(path.is_relative_to(worker) for path in paths)
    assert [item.group for item in own.items] == [item.group for item in manifest.items]


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_images_that_are_not_those_of_the_study_are_refused(copies, how):
    manifest, worker = copies
    item, other = manifest.items[:2]
    image, mask = (
        worker / path.relative_to(worker.parent / "driver") for path in (item.images[0], item.mask)
    )
    if how == "changed":
        image.write_bytes(other.images[0].read_bytes())
    else:
        table = worker / "cells" / "manifest.csv"
        rows = [row for row in table.read_text().splitlines() if image.name not in row]
        table.write_text("\n".join(rows))
        image.unlink()
        mask.unlink()
    refused = f"'{item.name}' or its mask is gone or has changed since the study began; restore it"
    with pytest.raises(MicrosegError, match=refused):
        own_copy(manifest, str(worker / "cells"), DataOptions(), worker / "cache")
