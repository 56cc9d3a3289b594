"""What checking a file found out, remembered as long as the file does not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from microseg.config import Strict
from microseg.data.files import content_hash, file_hash, read_bytes, replacing
from microseg.data.images import Array, decode_image, decode_labels, is_lossy, join_channels
from microseg.errors import MicrosegError

MOST_VALUES = 257


class ImageFacts(Strict):
    """One image: its size in pixels, number of channels, number type and the hash of its files."""

    height: int
    width: int
    channels: int
    dtype: str
    hashes: tuple[str, ...]


class MaskFacts(Strict):
    """One mask.

    ``values`` are its distinct values in rising order, the first 257 of them; ``labels`` counts the
    distinct non-zero ones and ``whole`` those that are one connected piece (8-connected); ``lossy``:
    the file format changes values.
    """

    height: int
    width: int
    hash: str
    lossy: bool
    values: tuple[int, ...]
    maximum: int
    labels: int
    whole: int


class _Entry(Strict):
    """Facts, or the path of a derived file, and the size and modification time of the files they are from."""

    stamp: list[list[int]]
    facts: dict[str, Any] | str


class _Pages(Strict):
    version: Literal[2]  # raise it when the facts or the rules behind them change
    known: dict[str, _Entry]


F = TypeVar("F", ImageFacts, MaskFacts)


class Ledger:
    """Facts about files, kept in a cache folder and believed while size and modification time agree.

    Parameters
    ----------
    cache : Path
        Folder of this machine that may be deleted at any time.
    source : str
        The data set, each of which has a ledger of its own.
    """

    def __init__(self, cache: Path, source: str) -> None:
        self.cache = cache
        self._path = cache / "facts" / f"{content_hash([source.encode()])[:32]}.json"
        self._known = self._load()
        self._used: dict[str, _Entry] = {}

    def image(self, files: Sequence[Path], axes: str | None) -> ImageFacts:
        """Return the facts of an image, reading it only if it is new or has changed."""
        return self._facts(f"image {axes}", files, ImageFacts, lambda: examine_image(files, axes))

    def mask(self, file: Path) -> MaskFacts:
        """Return the facts of a mask, reading it only if it is new or has changed."""
        return self._facts("mask", [file], MaskFacts, lambda: examine_mask(file))

    def derived(self, role: str, files: list[Path], make: Callable[[list[Path], Path], Path]) -> Path:
        """Return a file made from others, making it only if they have changed or it is gone."""
        key, stamp = _key(role, files), _stamp(files)
        known = self._known.get(key)
        path = Path(str(known.facts)) if known and known.stamp == stamp else None
        if path is None or not path.is_file():
            path = make(files, self.cache / role)
        self._used[key] = _Entry(stamp=stamp, facts=str(path))
        return path

    def save(self) -> None:
        """Write what was used since the ledger was opened, as a whole."""
        with replacing(self._path) as handle:
            handle.write(_Pages(version=2, known=self._used).model_dump_json().encode())

    def _facts(self, role: str, files: Sequence[Path], model: type[F], examine: Callable[[], F]) -> F:
        key, stamp = _key(role, files), _stamp(files)
        known = self._known.get(key)
        facts = _believe(model, known.facts) if known and known.stamp == stamp else None
        facts = facts or examine()
        self._used[key] = _Entry(stamp=stamp, facts=facts.model_dump(mode="json"))
        return facts

    def _load(self) -> dict[str, _Entry]:
        """Read what an earlier opening found; a damaged or older ledger counts as empty."""
        try:
            return _Pages.model_validate_json(self._path.read_bytes()).known
        except (OSError, ValidationError):
            return {}


def _believe(model: type[F], facts: Any) -> F | None:
    try:
        return model.model_validate(facts)
    except ValidationError:
        return None


def _key(role: str, files: Sequence[Path]) -> str:
    return "|".join([role, *map(str, files)])


def _stamp(files: Sequence[Path]) -> list[list[int]]:
    try:
        return [[stat.st_size, stat.st_mtime_ns] for stat in (file.stat() for file in files)]
    except OSError as error:
        raise MicrosegError(f"{error.filename}: cannot be read ({error.strerror}); check the path") from error


def examine_image(files: Sequence[Path], axes: str | None) -> ImageFacts:
    """Read an image once, for its size and its hash.

    Raises
    ------
    MicrosegError
        As `microseg.data.images.read_image`.
    """
    contents = [read_bytes(file) for file in files]
    parts = [decode_image(data, str(file), axes) for data, file in zip(contents, files, strict=True)]
    height, width, channels = join_channels(parts, files).shape
    hashes = tuple(file_hash(data) for data in contents)
    return ImageFacts(height=height, width=width, channels=channels, dtype=str(parts[0].dtype), hashes=hashes)


def examine_mask(file: Path) -> MaskFacts:
    """Read a mask once, for its size, hash, values and objects.

    Raises
    ------
    MicrosegError
        As `microseg.data.images.read_labels`.
    """
    data = read_bytes(file)
    labels = decode_labels(data, str(file))
    values = np.unique(labels)
    lossy = is_lossy(data)
    return MaskFacts(
        height=labels.shape[0],
        width=labels.shape[1],
        hash=file_hash(data),
        lossy=lossy,
        values=tuple(int(value) for value in values[:MOST_VALUES]),
        maximum=int(values[-1]),
        labels=int(np.count_nonzero(values)),
        whole=0 if lossy else whole_labels(labels),
    )


def whole_labels(labels: Array) -> int:
    """Count the non-zero labels that form a single 8-connected piece."""
    from skimage import measure  # slow to import, and not needed when nothing has changed

    pieces, count = measure.label(labels, connectivity=2, background=0, return_num=True)
    first = np.zeros(count + 1, labels.dtype)
    first[pieces.ravel()] = labels.ravel()
    owners = np.unique(first[1:], return_counts=True)[1]
    return int(np.count_nonzero(owners == 1))
