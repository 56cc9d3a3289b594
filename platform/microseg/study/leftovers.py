"""Files of this machine that nothing needs any longer: decoded images, and what a killed process left."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from microseg.storage import cache, home

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}")  # see `microseg.data.files.replacing`
_DAY = 24 * 3600


class Leftovers(NamedTuple):
    """Files and folders of one kind that were not used for a while, and their bytes."""

    kind: str
    paths: tuple[Path, ...]
    size: int


def find(days: int) -> list[Leftovers]:
    """Return what was not read or written on this machine for some days, and can be made anew or not be used.

    The hold-outs, the counts of their uses, and the folders of studies are none of it.
    """
    limit = time.time() - days * _DAY
    kinds = {
        "decoded and copied images": _below(cache()),
        "unfinished predictions": (home() / "predictions").glob("*"),
        "unfinished files": _unfinished(home()),
        "temporary folders": _own(Path(tempfile.gettempdir()).glob("microseg-*")),
    }
    found = []
    for kind, paths in kinds.items():
        old = tuple(path for path in sorted(paths) if _used(path) < limit)
        found.append(Leftovers(kind, old, sum(map(_size, old))))
    return [one for one in found if one.paths]


def remove(leftovers: Leftovers) -> None:
    """Remove what was found; what another process has removed meanwhile is no error."""
    for path in leftovers.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _below(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder and, one by one, what lies in the folders of it: each kind has its own."""
    for path in folder.glob("*"):
        if path.is_dir() and not path.is_symlink():
            yield from path.glob("*")
        else:
            yield path


def _unfinished(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob(".*") if _UNFINISHED.fullmatch(path.name) and not path.is_dir())


def _own(paths: Iterator[Path]) -> Iterator[Path]:
    """Yield the paths of this user: the system's folder of temporary files is everybody's."""
    return (path for path in paths if path.lstat().st_uid == os.getuid())


def _files(path: Path) -> Iterator[os.stat_result]:
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return (one.lstat() for one in (path, *inside))


def _used(path: Path) -> float:
    """Return when a file, or the last one of a folder, was read or written, in seconds.

    To look into a folder, or follow a link, is to read it: of those only the writing counts.
    """
    return max(max(one.st_mtime, one.st_atime * stat.S_ISREG(one.st_mode)) for one in _files(path))


def _size(path: Path) -> int:
    return sum(one.st_size for one in _files(path))
