"""Folders of objects and their copies here; the server is a dictionary, tests/integration has a real one."""

import hashlib
import io
import json
import threading
from pathlib import Path

import boto3.exceptions
import pytest

from microseg.data.open import DataOptions, open_dataset
from microseg.data.synthetic import write_demo
from microseg.errors import MicrosegError
from microseg.storage import mirror, s3


class Bucket:
    """What boto3's client does with a bucket, and how often each object was downloaded."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.downloads: list[str] = []
        self.refused: set[str] = set()
        self.lock = threading.Lock()

    def put(self, folder: Path, prefix: str) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                self.held[f"{prefix}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()

    def get_paginator(self, _name):
        return self

    def paginate(self, Bucket, Prefix, Delimiter):  # noqa: N803 - boto3's names
        found = sorted(key for key in self.held if key.startswith(Prefix))
        tags = [(key, hashlib.md5(self.held[key]).hexdigest()) for key in found]
        for first in range(0, max(1, len(tags)), 5):
            yield {"Contents": [{"Key": key, "ETag": tag} for key, tag in tags[first : first + 5]]}

    def download_file(self, _bucket, key, target):
        with self.lock:
            self.downloads.append(key)
        Path(target).write_bytes(self.held[key])

    def upload_fileobj(self, file, _bucket, key):
        self.held[key] = file.read()

    def delete_objects(self, Bucket, Delete):  # noqa: N803 - boto3's names
        asked = [one["Key"] for one in Delete["Objects"]]
        assert 0 < len(asked) <= 1000
        for key in set(asked) - self.refused:
            self.held.pop(key, None)
        return {"Errors": [{"Key": key, "Code": "AccessDenied"} for key in asked if key in self.refused]}


@pytest.fixture
def bucket(monkeypatch):
    made = Bucket()
    monkeypatch.setattr(s3, "client", lambda: made)
    return made


@pytest.fixture
def cells(tmp_path, bucket):
    folder = write_demo(tmp_path / "cells", images=8, sessions=2)
    bucket.put(folder, "sets/cells")
    return folder


def test_a_data_set_on_s3_is_the_one_that_lies_here(cells, tmp_path):
    here = open_dataset(cells, DataOptions(), tmp_path / "cache")
    there = open_dataset("s3://lab/sets/cells", DataOptions(), tmp_path / "other")
    assert there.digest == here.digest and there.name == here.name
    assert [(item.name, item.group) for item in there.items] == [
        (item.name, item.group) for item in here.items
    ]


def test_an_object_is_downloaded_once_until_it_changes(cells, bucket, tmp_path):
    first = mirror.mirror("s3://lab/sets/cells/", tmp_path / "cache")
    assert sorted(bucket.downloads) == sorted(bucket.held)
    bucket.downloads.clear()
    changed = next(iter(bucket.held))
    bucket.held[changed] += b" "
    gone = list(bucket.held)[1]
    del bucket.held[gone]
    assert mirror.mirror("s3://lab/sets/cells", tmp_path / "cache") == first
    assert bucket.downloads == [changed]
    kept = {f"sets/cells/{file.relative_to(first).as_posix()}" for file in first.rglob("*") if file.is_file()}
    assert kept == bucket.held.keys()


def test_a_copy_that_was_interrupted_goes_on(cells, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "_BATCH", 3)
    download, batches = mirror.download, []

    def torn(uri, names, into):
        batches.append(names)
        if len(batches) == 3:
            raise MicrosegError("the server is away")
        download(uri, names, into)

    monkeypatch.setattr(mirror, "download", torn)
    with pytest.raises(MicrosegError, match="away"):
        mirror.mirror("s3://lab/sets/cells", tmp_path)
    copy = mirror.mirror("s3://lab/sets/cells", tmp_path)
    assert sorted(bucket.downloads) == sorted(bucket.held)
    assert len([file for file in copy.rglob("*") if file.is_file()]) == len(bucket.held)


def test_processes_that_ask_at_once_download_once(cells, bucket, tmp_path):
    asking = [
        threading.Thread(target=mirror.mirror, args=("s3://lab/sets/cells", tmp_path)) for _ in range(3)
    ]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert sorted(bucket.downloads) == sorted(bucket.held)


def test_a_table_brings_the_folder_it_lies_in(bucket, tmp_path):
    bucket.held |= {"lab/a.csv": b"image,mask\n", "lab/images/1.png": b"1"}
    copy = mirror.mirror("s3://lab/lab/a.csv", tmp_path)
    assert copy.name == "a.csv" and (copy.parent / "images" / "1.png").read_bytes() == b"1"


@pytest.mark.parametrize("uri", ["s3://lab/cell", "s3://lab/sets/cells/none.csv"])
def test_nothing_there_is_one_line(cells, tmp_path, uri):
    with pytest.raises(MicrosegError, match=f"^{uri}: no objects there; check the name"):
        mirror.mirror(uri, tmp_path)


def test_a_name_that_leads_out_of_the_folder_is_refused(bucket, tmp_path):
    bucket.held["sets/../../out.png"] = b"1"
    with pytest.raises(MicrosegError, match="leads out of the folder; rename"):
        mirror.mirror("s3://lab/sets", tmp_path / "cache")
    assert not list(tmp_path.rglob("out.png"))


def test_a_name_that_a_file_system_cannot_hold_is_one_line(bucket, tmp_path):
    bucket.held |= {"sets/a": b"1", "sets/a/b": b"2"}  # fetched side by side: either may come first
    with pytest.raises(MicrosegError, match=r"/a(/b)?: cannot be written \("):
        mirror.mirror("s3://lab/sets", tmp_path)


def test_a_torn_list_of_what_is_here_means_nothing_is(cells, bucket, tmp_path):
    mirror.mirror("s3://lab/sets/cells", tmp_path)
    (tags,) = tmp_path.glob("remote/*/objects.json")
    assert json.loads(tags.read_bytes()).keys() == mirror.objects("s3://lab/sets/cells").keys()
    tags.write_bytes(b"{")
    mirror.mirror("s3://lab/sets/cells", tmp_path)
    assert len(bucket.downloads) == 2 * len(bucket.held)


def test_objects_are_removed_and_a_refusal_is_told(bucket):
    bucket.held |= {f"a/{number}": b"" for number in range(1200)}
    mirror.remove("s3://lab/a", [str(number) for number in range(1150)])
    assert len(bucket.held) == 50
    mirror.remove("s3://lab/a", [])
    bucket.refused = {"a/1199"}
    with pytest.raises(MicrosegError, match=r"s3://lab/a: the server did not delete a/1199 \(AccessDenied\)"):
        mirror.remove("s3://lab/a", ["1199"])


def test_the_mark_of_a_folder_is_no_object(bucket):
    bucket.upload_fileobj(io.BytesIO(b""), "lab", "a/")
    bucket.upload_fileobj(io.BytesIO(b"1"), "lab", "a/b")
    assert mirror.objects("s3://lab/a").keys() == {"b"}


def test_a_transfer_that_breaks_again_and_again_is_one_line(bucket, tmp_path, monkeypatch):
    def broken(*given):
        raise boto3.exceptions.RetriesExceededError(OSError("reset"))

    bucket.held["sets/a.png"] = b"1"
    monkeypatch.setattr(bucket, "download_file", broken)
    refused = r"^s3://lab/sets/a.png: the storage server .* cannot be used \(RetriesExceededError\)"
    with pytest.raises(MicrosegError, match=refused):
        mirror.mirror("s3://lab/sets", tmp_path)
