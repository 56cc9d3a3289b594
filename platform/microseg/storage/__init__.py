"""Files by local path or ``s3://`` URI; the only package that speaks to object storage.

``MLFLOW_S3_ENDPOINT_URL`` (as for MLflow's own artifacts), ``AWS_ENDPOINT_URL_S3`` or
``AWS_ENDPOINT_URL`` name a server other than AWS; credentials come from boto3's usual places.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from microseg.data.files import content_hash
from microseg.errors import MicrosegError
from microseg.storage import s3
from microseg.storage.mirror import download, objects
from microseg.storage.s3 import is_remote as is_remote


def home() -> Path:
    """Return the folder of studies, splits and decoded images: ``MICROSEG_HOME``, or ``.microseg`` here."""
    return Path(os.environ.get("MICROSEG_HOME", ".microseg")).resolve()


def cache() -> Path:
    """Return the folder of decoded images, which all studies on this machine share."""
    return home() / "cache"


def normalise(uri: str) -> str:
    """Return one spelling for one place: an absolute local path without links, or the ``s3://`` URI."""
    return uri.rstrip("/") if is_remote(uri) else str(_local(uri).resolve())


def join(uri: str, name: str) -> str:
    """Return the address of a file in a folder."""
    return f"{uri.rstrip('/')}/{name}" if is_remote(uri) else str(_local(uri) / name)


def listing(uri: str) -> list[str]:
    """Return the files directly inside a folder, or the file itself, sorted by name.

    Parameters
    ----------
    uri : str
        A folder or file: a local path, ``file://`` or ``s3://`` URI.

    Returns
    -------
    list of str
        Paths or ``s3://`` URIs; folders inside the folder are left out.

    Raises
    ------
    MicrosegError
        If there is nothing under that name or the server cannot be used.
    """
    if is_remote(uri):
        return _remote_listing(uri)
    path = _local(uri)
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise MicrosegError(f"{path}: no such file or folder; give an existing one")
    return sorted(str(file) for file in path.iterdir() if file.is_file())


def folders(uri: str) -> list[str]:
    """Return the folders directly inside a remote folder, sorted by name, as ``s3://`` URIs.

    Raises
    ------
    MicrosegError
        If the server cannot be used.
    """
    bucket, key = s3.address(uri, needs_key=False)
    prefix = key.rstrip("/") + "/" if key.strip("/") else ""
    with s3.explained(uri):
        pages = list(s3.pages(bucket, prefix, "/"))
    found = sorted(entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", []))
    return [f"s3://{bucket}/{name.rstrip('/')}" for name in found]


def state(uri: str) -> str:
    """Return what tells a remote object, or a folder of them, from another under the same address.

    Parameters
    ----------
    uri : str
        An ``s3://`` URI.

    Returns
    -------
    str
        The sha256 (hex) of the keys, sizes and entity tags of all objects there.

    Raises
    ------
    MicrosegError
        If the server cannot be used.
    """
    bucket, key = s3.address(uri, needs_key=True)
    with s3.explained(uri):
        entries = s3.entries(bucket, key)
    inside = [entry for entry in entries if entry["Key"] == key or entry["Key"].startswith(f"{key}/")]
    lines = (f"{entry['Key']} {entry['Size']} {entry['ETag']}" for entry in inside)
    return content_hash(line.encode() for line in lines)


def fetch(uri: str, into: Path) -> Path:
    """Return a local path with the content of a URI; a remote object is downloaded into a folder.

    Parameters
    ----------
    uri : str
        A local path, ``file://`` or ``s3://`` URI of one file. A local file is not copied.
    into : Path
        The folder for a download, made where missing; the object keeps its name.

    Raises
    ------
    MicrosegError
        If there is no such file or object or the server cannot be used.
    """
    if not is_remote(uri):
        path = _local(uri)
        if not path.is_file():
            raise MicrosegError(f"{path}: no such file; give an existing one")
        return path
    bucket, key = s3.address(uri, needs_key=True)
    into.mkdir(parents=True, exist_ok=True)
    target = into / PurePosixPath(key).name
    with s3.explained(uri):
        s3.client().download_file(bucket, key, str(target))  # boto3 renames only a complete download
    return target


def fetch_folder(uri: str, into: Path) -> Path:
    """Download all objects under a prefix, with the folders between, and return the folder.

    Parameters
    ----------
    uri : str
        An ``s3://`` URI of a folder, which keeps its name.
    into : Path
        Where it goes.

    Raises
    ------
    MicrosegError
        If there is no such folder, a name in it leads out of it, or the server cannot be used.
    """
    folder = uri.rstrip("/")
    _, key = s3.address(folder, needs_key=True)
    names = objects(folder)
    if not names:
        raise MicrosegError(f"{uri}: no objects there; check the name, upper and lower case count")
    download(folder, names, into / PurePosixPath(key).name)
    return into / PurePosixPath(key).name


def size(uri: str) -> int:
    """Return the bytes of one object, without downloading it.

    Parameters
    ----------
    uri : str
        An ``s3://`` URI.

    Raises
    ------
    MicrosegError
        If there is no such object or the server cannot be used.
    """
    bucket, key = s3.address(uri, needs_key=True)
    with s3.explained(uri):
        return int(s3.client().head_object(Bucket=bucket, Key=key)["ContentLength"])


def store(path: Path, uri: str) -> None:
    """Copy a local file to a path or URI; the target is complete or not there.

    Parameters
    ----------
    path : Path
        The file to copy.
    uri : str
        Where to: a local path, ``file://`` or ``s3://`` URI; folders are made.

    Raises
    ------
    MicrosegError
        If the target cannot be written or the server cannot be used.
    """
    if is_remote(uri):
        bucket, key = s3.address(uri, needs_key=True)
        with s3.explained(uri), path.open("rb") as file:
            s3.client().upload_fileobj(file, bucket, key)
        return
    target = _local(uri)
    try:
        _copy(path, target)
    except OSError as error:
        raise MicrosegError(f"{target}: cannot be written ({error.strerror})") from error


def store_folder(path: Path, uri: str) -> None:
    """Upload a folder; the files directly in it come last, as they say that the rest is whole.

    Parameters
    ----------
    path : Path
        The folder to copy.
    uri : str
        An ``s3://`` URI.

    Raises
    ------
    MicrosegError
        If the server cannot be used.
    """
    files = [file for file in path.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: (file.parent == path, file)):
        store(file, f"{uri}/{file.relative_to(path).as_posix()}")


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".store-") as folder:
        partial = Path(folder) / target.name
        shutil.copyfile(path, partial)
        partial.replace(target)


def _local(uri: str) -> Path:
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme not in ("", "file"):
        raise MicrosegError(f"{scheme}://: this kind of address is not supported; give a path or s3:// URI")
    return Path(unquote(urlsplit(uri).path) if scheme else uri)


def _remote_listing(uri: str) -> list[str]:
    bucket, key = s3.address(uri, needs_key=False)
    with s3.explained(uri):
        found = s3.keys(bucket, key.rstrip("/") + "/" if key.strip("/") else "")
        if not found and key:  # not a folder: then perhaps one object
            found = [name for name in s3.keys(bucket, key) if name == key]
    if not found:
        raise MicrosegError(f"{uri}: no objects there; check the name, upper and lower case count")
    return [f"s3://{bucket}/{name}" for name in sorted(found)]
