"""Images by address: what lies in the allowed folders is read, and nothing else, whatever the address says."""

import os

import pytest

from microseg import storage
from microseg.errors import MicrosegError
from microseg.serving.request import Limits
from microseg.serving.request.places import read_uri

OUTSIDE = "outside the folders that this server reads"


@pytest.fixture
def allowed(tmp_path):
    """A folder of images beside a secret, and links that lead from one to the other."""
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "images-private").mkdir()
    for name in ("images/a.png", "images/deep/b c.png", "secret", "images-private/a.png"):
        (tmp_path / name).write_bytes(name.encode())
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "near").symlink_to(root / "a.png")
    (root / "circle").symlink_to(root / "circle")
    return root


@pytest.fixture
def limits(allowed):
    return Limits(roots=(allowed.as_uri(),))


@pytest.mark.parametrize("name", ["a.png", "deep/b%20c.png", "deep/../a.png", "near"])
def test_a_file_in_an_allowed_folder_is_read(allowed, limits, name):
    assert read_uri(f"{allowed.as_uri()}/{name}", limits).startswith(b"images/")
    assert read_uri(f"file://localhost{allowed}/{name}", limits).startswith(b"images/")


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "%2e%2e/secret", "deep/../../secret", "..%2fsecret", "out", "up/secret", "up",
        "../images-private/a.png", "../no-such-file", "circle", "a%00.png",
    ],
)  # fmt: skip
def test_no_way_leads_out_of_it_and_nothing_is_told_of_what_is_there(allowed, limits, name):
    with pytest.raises(MicrosegError, match=OUTSIDE) as caught:
        read_uri(f"{allowed.as_uri()}/{name}", limits)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", "give file:///... or s3://..."),
        ("https://example.org/a.png", "give file:///... or s3://..."),
        ("ftp://example.org/a.png", "give file"),
        ("/etc/passwd", "give file"),
        ("FILE:///etc/passwd", "give file"),
        ("", "give file"),
        ("file://example.org/etc/passwd", "another machine"),
        ("file:///etc/passwd?x", "query"),
        ("file:///etc/passwd", OUTSIDE),
        ("file://", OUTSIDE),
        ("s3://bucket/a.png", OUTSIDE),
    ],
)
def test_other_addresses_are_refused_in_one_line(limits, uri, words):
    with pytest.raises(MicrosegError) as caught:
        read_uri(uri, limits)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_by_default_no_address_is_read(allowed):
    with pytest.raises(MicrosegError, match=r"reads no addresses \(MICROSEG_SERVING_ROOTS is not set\)"):
        read_uri(f"{allowed.as_uri()}/a.png", Limits())


def test_what_is_no_file_is_not_opened(allowed, limits):
    """Reading a pipe would wait for ever."""
    os.mkfifo(allowed / "pipe")
    for name in ("pipe", "deep", "gone.png", "x" * 5000):
        with pytest.raises(MicrosegError, match="no such file"):
            read_uri(f"{allowed.as_uri()}/{name}", limits)


def test_a_file_too_large_for_any_allowed_image_is_refused_before_it_is_read(allowed, limits):
    with (allowed / "large").open("wb") as file:
        file.truncate(16 * 100 + 2**20 + 1)
    with pytest.raises(MicrosegError, match=r"1050177 bytes.*more than 100 pixels.*MICROSEG_SERVING_PIXELS"):
        read_uri(f"{allowed.as_uri()}/large", limits.model_copy(update={"pixels": 100}))


@pytest.fixture
def bucket(monkeypatch):
    """Stand in for object storage: what is asked for, and a size for each object."""
    asked = []

    def fetch(uri, into):
        asked.append(uri)
        (into / "a").write_bytes(b"object")
        return into / "a"

    monkeypatch.setattr(storage, "fetch", fetch)
    monkeypatch.setattr(storage, "size", lambda uri: 10**12 if "large" in uri else 6)
    return asked


@pytest.mark.parametrize("root", ["s3://lab/plates", "s3://lab/plates/"])
def test_an_object_below_an_allowed_prefix_is_read(bucket, root):
    assert read_uri("s3://lab/plates/7/a.tif", Limits(roots=(root,))) == b"object"
    assert bucket == ["s3://lab/plates/7/a.tif"]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://lab/plates-private/a.tif", "s3://lab/a.tif", "s3://lab", "s3://other/plates/a.tif",
        "s3://lab/plates/../a.tif", "s3://lab/plates/./a.tif", "s3://lab/plates//a.tif", "s3://lab/plates/",
        "s3://lab/plates\\..\\a.tif",
    ],
)  # fmt: skip
def test_no_other_object_is_asked_for(bucket, uri):
    with pytest.raises(MicrosegError, match=OUTSIDE):
        read_uri(uri, Limits(roots=("s3://lab/plates", "file:///plates")))
    assert bucket == []


def test_a_large_object_is_not_downloaded(bucket):
    with pytest.raises(MicrosegError, match="1000000000000 bytes"):
        read_uri("s3://lab/large.tif", Limits(roots=("s3://lab",)))
    assert bucket == []
