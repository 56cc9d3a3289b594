"""An object store that answers with hostile names: what is downloaded stays in its folder."""

from pathlib import Path

import pytest

from microseg import storage
from microseg.errors import MicrosegError
from microseg.storage import s3
from microseg.storage.mirror import download, mirror

LEADING_OUT = ["../../escaped.png", "a/../../../escaped.png", "/escaped.png", "..", "a/.."]


class Hostile:
    """A client of a server that lists what it likes, whatever was asked, and gives each name a content."""

    def __init__(self, *names, prefix="set/"):
        self.names = [prefix + name for name in names]

    def get_paginator(self, _operation):
        return self

    def paginate(self, **_asked):
        entries = [{"Key": name, "Size": 1, "ETag": name} for name in self.names]
        return [{"Contents": entries}]

    def download_file(self, _bucket, _key, target):
        Path(target).write_bytes(b"x")


@pytest.fixture
def answering(monkeypatch):
    return lambda *names, **how: monkeypatch.setattr(s3, "client", lambda: Hostile(*names, **how))


@pytest.fixture
def inside(tmp_path):
    """A folder for downloads, deep enough that what leaves it is still seen."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    yield folder
    strays = [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents]
    assert strays == [] and not Path("/escaped.png").exists()


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_folder_is_downloaded_into_its_own_or_not_at_all(answering, inside, name):
    answering(name)
    with pytest.raises(MicrosegError, match=r"leads out of the folder; rename the object|cannot be written"):
        storage.fetch_folder("s3://lab/set", inside)


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_mirror_stays_in_its_folder(answering, inside, name):
    answering(name)
    with pytest.raises(MicrosegError, match=r"leads out of the folder; rename the object|cannot be written"):
        mirror("s3://lab/set", inside)


def test_a_link_that_lies_in_the_folder_leads_nowhere(answering, inside):
    (inside / "link").symlink_to(inside.parent)
    answering("link/escaped.png")
    with pytest.raises(MicrosegError, match="leads out of the folder"):
        download("s3://lab/set", ["link/escaped.png"], inside)


def test_what_is_listed_and_fetched_one_by_one_keeps_only_its_last_name(answering, inside):
    answering("../../escaped.png", "b.png", "../..//etc/c.png")
    fetched = [storage.fetch(uri, inside) for uri in storage.listing("s3://lab/set")]
    assert sorted(path.relative_to(inside).as_posix() for path in fetched) == [
        "b.png",
        "c.png",
        "escaped.png",
    ]


def test_a_name_that_is_a_file_and_a_folder_is_one_line(answering, inside):
    answering("a", "a/b")
    with pytest.raises(MicrosegError, match="cannot be written"):
        storage.fetch_folder("s3://lab/set", inside)
    with pytest.raises(MicrosegError, match="cannot be written"):
        mirror("s3://lab/set", inside / "cache")


def test_keys_outside_the_folder_that_was_asked_for_do_not_become_its_own(answering, inside):
    answering("secret.png", prefix="another/")
    storage.fetch_folder("s3://lab/set", inside)
    assert [path.relative_to(inside).as_posix() for path in inside.rglob("*.png")] == [
        "set/another/secret.png"
    ]
