"""Files by path and by s3:// URI; the S3 half against a real server (SeaweedFS) on loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from services import free_ports

from microseg import storage
from microseg.errors import MicrosegError


@pytest.fixture
def server(s3_server):
    return s3_server.endpoint


@pytest.fixture
def clean(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_S3"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # boto3 would ask the network for credentials
    return monkeypatch


@pytest.fixture
def s3(s3_server, clean):
    clean.setenv("MLFLOW_S3_ENDPOINT_URL", s3_server.endpoint)
    clean.setenv("AWS_ACCESS_KEY_ID", "test-key")
    clean.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    s3_server.bucket("lab")
    return clean


def test_a_file_goes_to_the_server_and_comes_back(s3, tmp_path):
    source = tmp_path / "cells 1.png"
    source.write_bytes(os.urandom(1000))
    storage.store(source, "s3://lab/set one/cells 1.png")
    fetched = storage.fetch("s3://lab/set one/cells 1.png", tmp_path / "new" / "folder")
    assert fetched == tmp_path / "new" / "folder" / "cells 1.png"
    assert storage.size("s3://lab/set one/cells 1.png") == source.stat().st_size
    assert fetched.read_bytes() == source.read_bytes()


def test_a_multipart_upload_is_complete(s3, tmp_path):
    source = tmp_path / "large.bin"
    source.write_bytes(os.urandom(9 * 2**20))  # boto3 divides from 8 MiB on
    storage.store(source, "s3://lab/large.bin")
    assert storage.fetch("s3://lab/large.bin", tmp_path / "back").read_bytes() == source.read_bytes()


def test_a_folder_goes_with_all_below_it_and_its_own_files_come_last(s3, tmp_path, monkeypatch):
    folder = tmp_path / "mask.ome.zarr"
    for name in ("zarr.json", "0/zarr.json", "0/c/1/2"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    stored, store = [], storage.store
    monkeypatch.setattr(storage, "store", lambda path, uri: stored.append(uri) or store(path, uri))
    storage.store_folder(folder, "s3://lab/masks/mask.ome.zarr")
    assert stored[-1] == "s3://lab/masks/mask.ome.zarr/zarr.json"
    back = storage.fetch_folder("s3://lab/masks/mask.ome.zarr", tmp_path / "back")
    assert back == tmp_path / "back" / "mask.ome.zarr"
    files = {
        path.relative_to(back).as_posix(): path.read_text() for path in back.rglob("*") if path.is_file()
    }
    assert files == {name: name for name in ("zarr.json", "0/zarr.json", "0/c/1/2")}
    assert storage.folders("s3://lab/masks") == ["s3://lab/masks/mask.ome.zarr"]
    first = storage.state("s3://lab/masks/mask.ome.zarr")
    assert storage.state("s3://lab/masks/mask.ome.zarr") == first
    storage.store(folder / "zarr.json", "s3://lab/masks/mask.ome.zarr-other")
    assert storage.state("s3://lab/masks/mask.ome.zarr") == first
    storage.store(folder / "zarr.json", "s3://lab/masks/mask.ome.zarr/0/c/1/2")
    assert storage.state("s3://lab/masks/mask.ome.zarr") != first
    with pytest.raises(MicrosegError, match=r"s3://lab/masks/none: no objects there"):
        storage.fetch_folder("s3://lab/masks/none", tmp_path / "back")


def test_listing_gives_the_files_of_one_folder_only(s3, tmp_path):
    source = tmp_path / "x"
    source.write_bytes(b"1")
    for key in ("list/b.png", "list/a.png", "list/deeper/c.png", "list2/d.png"):
        storage.store(source, f"s3://lab/{key}")
    expected = ["s3://lab/list/a.png", "s3://lab/list/b.png"]
    assert storage.listing("s3://lab/list") == expected
    assert storage.listing("s3://lab/list/") == expected
    assert storage.listing("s3://lab/list/a.png") == expected[:1]
    with pytest.raises(MicrosegError, match="no objects there"):
        storage.listing("s3://lab/lis")


def test_the_aws_variable_names_the_server_too(s3, server, tmp_path):
    s3.delenv("MLFLOW_S3_ENDPOINT_URL")
    s3.setenv("AWS_ENDPOINT_URL_S3", server)
    source = tmp_path / "y"
    source.write_bytes(b"2")
    storage.store(source, "s3://lab/y")
    assert storage.listing("s3://lab/y") == ["s3://lab/y"]


@pytest.mark.parametrize(
    ("key", "secret", "uri", "words"),
    [
        ("test-key", "test-secret", "s3://lab/absent.png", "no such (bucket or )?object"),
        ("test-key", "not-the-secret", "s3://lab/absent.png", "the secret key is wrong"),
        ("unknown-key", "test-secret", "s3://lab/absent.png", "access key is unknown"),
        ("guest-key", "guest-secret", "s3://secret/absent.png", "access denied"),
    ],
)
def test_a_refused_download_says_why_and_leaves_nothing(s3, tmp_path, key, secret, uri, words):
    s3.setenv("AWS_ACCESS_KEY_ID", key)
    s3.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(MicrosegError, match=words) as caught:
        storage.fetch(uri, tmp_path / "into")
    assert str(caught.value).startswith(uri)
    assert secret not in str(caught.value)
    assert list((tmp_path / "into").iterdir()) == []


def test_the_size_of_an_object_that_is_not_there_is_refused(s3):
    with pytest.raises(MicrosegError, match="s3://lab/absent: no such bucket or object"):
        storage.size("s3://lab/absent")


def test_a_refused_listing_names_the_cause(s3):
    with pytest.raises(MicrosegError, match="no such bucket; create it"):
        storage.listing("s3://no-such-bucket/z")
    s3.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(MicrosegError, match="the secret key is wrong; check AWS_SECRET_ACCESS_KEY"):
        storage.listing("s3://lab/list")


def test_missing_credentials_are_one_clear_line(clean, tmp_path):
    clean.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(MicrosegError, match="no complete credentials; set AWS_ACCESS_KEY_ID"):
        storage.fetch("s3://lab/a.png", tmp_path)


def test_an_unreachable_server_is_named_without_what_the_address_hides(clean, tmp_path):
    clean.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://user:hidden@127.0.0.1:{free_ports(1)[0]}")
    clean.setenv("AWS_ACCESS_KEY_ID", "test-key")
    clean.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    with pytest.raises(MicrosegError, match=r"storage server 127\.0\.0\.1 cannot be used") as caught:
        storage.listing("s3://lab/a")
    assert "hidden" not in str(caught.value)
    assert "test-" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://", "s3://lab", "s3://lab/folder/"])
def test_an_incomplete_address_is_refused_before_any_connection(uri, tmp_path):
    with pytest.raises(MicrosegError, match="expected s3://BUCKET/KEY"):
        storage.fetch(uri, tmp_path)


def test_local_files_are_listed_fetched_in_place_and_stored_whole(tmp_path):
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "folder").mkdir()
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert storage.listing(str(tmp_path)) == paths
    assert storage.listing(f"file://{tmp_path}/a.png") == paths[:1]
    assert storage.fetch(paths[0], tmp_path / "unused") == tmp_path / "a.png"
    assert not (tmp_path / "unused").exists()
    target = tmp_path / "new" / "c.png"
    storage.store(tmp_path / "a.png", str(target))
    assert target.read_bytes() == b"a.png"
    assert [path.name for path in target.parent.iterdir()] == ["c.png"]


def test_local_mistakes_are_one_clear_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MicrosegError, match="absent: no such file or folder"):
        storage.listing(str(tmp_path / "absent"))
    with pytest.raises(MicrosegError, match="absent: no such file; give"):
        storage.fetch(str(tmp_path / "absent"), tmp_path)
    with pytest.raises(MicrosegError, match="cannot be written"):
        storage.store(tmp_path / "file", str(tmp_path / "file" / "below"))
    with pytest.raises(MicrosegError, match="gs://: this kind of address is not supported"):
        storage.listing("gs://bucket/a")


def test_join_follows_the_kind_of_folder():
    assert storage.join("s3://lab/out/", "a.png") == "s3://lab/out/a.png"
    assert storage.join("out", "a.png") == str(Path("out") / "a.png")
    assert storage.join("file:///data/out", "a.png") == "/data/out/a.png"


def test_one_place_has_one_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    spellings = ("images", "./images/", "images/../images", f"file://{tmp_path}/images", "link")
    assert {storage.normalise(spelling) for spelling in spellings} == {str(tmp_path.resolve() / "images")}
    assert storage.normalise("s3://lab/images/") == storage.normalise("s3://lab/images") == "s3://lab/images"


def test_boto3_is_not_imported_for_local_files():
    code = "import sys; from microseg import storage; storage.listing('.'); sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(storage.__file__).parents[1]).returncode == 0
