"""Images by address, from the folders that a server allows and from nowhere else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

from microseg import storage
from microseg.data.files import read_bytes
from microseg.errors import MicrosegError
from microseg.serving.request.limits import ROOTS, Limits

_OUTSIDE = "the address lies outside the folders that this server reads"


def read_uri(uri: str, limits: Limits) -> bytes:
    """Return the content of a file in one of the allowed folders.

    Links are followed before the folder is compared, so neither ``..`` nor a symbolic link leads out of it.
    What an address outside the folders holds, and whether there is anything, is not told.

    Parameters
    ----------
    uri : str
        A ``file:///...`` or ``s3://...`` address. There is no fetching over http(s): a server that fetches
        any address can be sent into the network behind it.
    limits : Limits
        The folders, and the largest file.

    Raises
    ------
    MicrosegError
        If addresses are not allowed, or not this one; if there is no such file, or it is too large.
    """
    scheme = uri.partition("://")[0]
    if scheme not in ("file", "s3"):
        raise MicrosegError(f"the address starts with '{scheme[:20]}'; give file:///... or s3://...")
    if not limits.roots:
        raise MicrosegError(f"this server reads no addresses ({ROOTS} is not set); send the image itself")
    return _read_object(uri, limits) if scheme == "s3" else _read_file(uri, limits)


def _read_file(uri: str, limits: Limits) -> bytes:
    path = _path(uri)
    if not any(path.is_relative_to(_path(root)) for root in limits.roots if root.startswith("file:")):
        raise MicrosegError(_OUTSIDE)
    if not _is_file(path):
        raise MicrosegError(f"{uri}: no such file")
    _check_size(uri, path.stat().st_size, limits)
    return read_bytes(path)


def _is_file(path: Path) -> bool:
    """Tell a file from a folder, or from a pipe, which would be read for ever."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _path(uri: str) -> Path:
    """Return the place that an address leads to once all links are followed."""
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise MicrosegError("the address names another machine, or has a query; give file:///FOLDER/FILE")
    try:
        return Path(unquote(parts.path)).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, links in a circle
        raise MicrosegError(_OUTSIDE) from error


def _read_object(uri: str, limits: Limits) -> bytes:
    key = uri.removeprefix("s3://")
    inside = any(uri.startswith(f"{root.rstrip('/')}/") for root in limits.roots if root.startswith("s3:"))
    # To S3 a key is text, but servers that keep objects as files take ".." for the folder above.
    if not inside or {"", ".", ".."} & set(key.replace("\\", "/").split("/")):
        raise MicrosegError(_OUTSIDE)
    _check_size(uri, storage.size(uri), limits)
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        return read_bytes(storage.fetch(uri, Path(folder)))


def _check_size(uri: str, size: int, limits: Limits) -> None:
    if size > limits.bytes:
        raise MicrosegError(
            f"{uri}: the file has {size} bytes, at most {limits.bytes} can hold an image of the "
            f"size that is allowed: {limits.exceeded}"
        )
