"""Files: written whole or not at all, and known by their content."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from microseg.errors import MicrosegError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only once it is complete.

    Parameters
    ----------
    path : Path
        The file to write or replace; its folder is made where it is missing.

    Yields
    ------
    binary file
        A hidden file in the same folder; it is removed if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as handle:
            yield handle
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_bytes(path: Path) -> bytes:
    """Read a whole file.

    Raises
    ------
    MicrosegError
        If it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MicrosegError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise MicrosegError(f"{path}: cannot be read ({error.strerror})") from error


def file_hash(content: bytes) -> str:
    """Return the sha256 (hex) of a file's content."""
    return hashlib.sha256(content).hexdigest()


def content_hash(parts: Iterable[bytes]) -> str:
    """Return the sha256 (hex) of a sequence of byte strings, each hashed on its own first.

    Hashing the hashes keeps apart what plain concatenation would not: ``ab, c`` and ``a, bc``.
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def identity(path: Path) -> str:
    """Return what tells a file, or a folder of files, from another of the same name.

    Returns
    -------
    str
        The sha256 (hex) of names, sizes and times of change: the content may be larger than the memory.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    lines = (
        f"{file.relative_to(path).as_posix()} {stat.st_size} {stat.st_mtime_ns}"
        for file, stat in ((file, file.stat()) for file in files)
    )
    return content_hash(line.encode() for line in lines)


def absolute(path: Path) -> Path:
    """Make a path absolute and free of ``..`` without following links, whose targets may lack the suffix."""
    return Path(os.path.abspath(path))  # noqa: PTH100
