"""Folders of objects: known by their entity tags, copied to this machine once, and removed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from microseg.data.files import absolute, content_hash, replacing
from microseg.errors import MicrosegError
from microseg.storage import s3

TABLES = (".csv", ".yaml", ".yml")  # such a file is read with the folder that it lies in
_AT_ONCE = 8  # requests: each waits for the server more than for anything else
_BATCH = 64  # objects: what a copy that is interrupted downloads again at most
_MOST = 1000  # objects that S3 deletes in one request
_TAGS = "objects.json"


def objects(uri: str) -> dict[str, str]:
    """Return all objects below a folder, at any depth: their entity tags by their names within it.

    Raises
    ------
    MicrosegError
        If the server cannot be used.
    """
    bucket, key = s3.address(uri.rstrip("/"), needs_key=False)
    prefix = f"{key}/" if key else ""
    with s3.explained(uri):
        entries = s3.entries(bucket, prefix)
    named = ((entry["Key"].removeprefix(prefix), entry["ETag"]) for entry in entries)
    return {name: tag for name, tag in named if name and not name.endswith("/")}  # else the mark of a folder


def download(uri: str, names: Iterable[str], into: Path) -> None:
    """Copy objects below a folder to this machine, each whole or not at all.

    Raises
    ------
    MicrosegError
        If one is not there, its name leads out of the folder, or the server cannot be used.
    """
    bucket, key = s3.address(uri.rstrip("/"), needs_key=False)
    client, prefix = s3.client(), f"{key}/" if key else ""

    def one(name: str) -> None:
        target = into / name
        if not target.resolve().is_relative_to(into.resolve()):
            raise MicrosegError(f"{uri}/{name}: such a name leads out of the folder; rename the object")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with s3.explained(f"{uri}/{name}"):
                client.download_file(bucket, f"{prefix}{name}", str(target))  # boto3 renames a whole one only
        except OSError as error:
            raise MicrosegError(f"{target}: cannot be written ({error.strerror})") from error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(one, names):
            pass


def remove(uri: str, names: Collection[str]) -> None:
    """Delete objects below a folder; one that is not there is no error.

    Raises
    ------
    MicrosegError
        If the server cannot be used or refuses.
    """
    bucket, key = s3.address(uri.rstrip("/"), needs_key=True)
    keys = [{"Key": f"{key}/{name}"} for name in names]
    for first in range(0, len(keys), _MOST):
        with s3.explained(uri):
            answer = s3.client().delete_objects(
                Bucket=bucket, Delete={"Objects": keys[first : first + _MOST], "Quiet": True}
            )
        for refused in answer.get("Errors", []):
            raise MicrosegError(f"{uri}: the server did not delete {refused['Key']} ({refused['Code']})")


def mirror(uri: str, cache: Path) -> Path:
    """Return a copy on this machine of all that lies in a folder of objects, or of a table and its folder.

    An object is downloaded once, and again where its entity tag has changed; what is gone there goes here.
    Several processes may ask at the same time.

    Parameters
    ----------
    uri : str
        An ``s3://`` URI of a folder, or of a CSV or YAML file.
    cache : Path
        Folder of this machine that may be deleted at any time.

    Returns
    -------
    Path
        The folder, or the table in it, by its own name.

    Raises
    ------
    MicrosegError
        If there are no objects or the server cannot be used.
    """
    folder, table = _divided(uri.rstrip("/"))
    found = objects(folder)
    if not found or (table and table not in found):
        raise MicrosegError(f"{uri}: no objects there; check the name, upper and lower case count")
    place = cache / "remote" / content_hash([folder.encode()])[:16]
    place.mkdir(parents=True, exist_ok=True)
    copy = place / folder.rpartition("/")[2]
    with FileLock(place / "lock"):
        _renew(folder, found, place, copy)
    return copy / table


def local(place: str | Path, cache: Path) -> Path:
    """Return a folder or table of this machine: the given one, or the copy of a remote one, see `mirror`.

    Parameters
    ----------
    place : str or Path
        A local path, or an ``s3://`` URI.
    cache : Path
        Where a copy goes.

    Returns
    -------
    Path
        Absolute.

    Raises
    ------
    MicrosegError
        As `mirror`.
    """
    return mirror(str(place), cache) if s3.is_remote(str(place)) else absolute(Path(place))


def _divided(uri: str) -> tuple[str, str]:
    """Return the folder that is copied, and the name of the table in it, if the address is one's."""
    folder, _, name = uri.rpartition("/")
    return (folder, name) if uri.lower().endswith(TABLES) else (uri, "")


def _renew(uri: str, found: Mapping[str, str], place: Path, copy: Path) -> None:
    known = _known(place / _TAGS)
    for name in known.keys() - found.keys():
        (copy / name).unlink(missing_ok=True)
    new = [name for name, tag in found.items() if known.get(name) != tag or not (copy / name).is_file()]
    kept = {name: tag for name, tag in found.items() if name not in new}
    if kept != known:
        _note(place / _TAGS, kept)
    for first in range(0, len(new), _BATCH):
        batch = new[first : first + _BATCH]
        download(uri, batch, copy)
        kept |= {name: found[name] for name in batch}
        _note(place / _TAGS, kept)


def _note(path: Path, tags: Mapping[str, str]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(tags).encode())


def _known(path: Path) -> dict[str, str]:
    """Return the tags of what was downloaded; a file that is not there or torn means nothing was."""
    try:
        tags: dict[str, str] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return tags
