"""What a dataset format finds before any file is opened, and the names, splits and groups in it."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from microseg.config import did_you_mean
from microseg.data.facts import Ledger
from microseg.data.files import read_bytes
from microseg.data.images import check_suffix
from microseg.data.manifest import Split
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError

SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}


class Entry(NamedTuple):
    """One image and its mask as listed, not yet opened; an empty group stands for the item itself."""

    name: str
    images: tuple[Path, ...]
    mask: Path
    group: str = ""
    stratum: str = ""
    split: Split | None = None


class Listing(NamedTuple):
    """What a format found: the entries, the options completed by what the data set says of itself."""

    entries: list[Entry]
    options: DataOptions
    name: str
    source: str


class Format(NamedTuple):
    """A dataset format: does it recognise a path, and what does it find there."""

    recognise: Callable[[Path], bool]
    read: Callable[[Path, DataOptions, Ledger], Listing]
    layout: str


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder, sorted by name; other files are passed over.

    Raises
    ------
    MicrosegError
        If a file is an image of a format that has to be converted first.
    """
    return sorted(path for path in folder.iterdir() if path.is_file() and check_suffix(path))


def split_of(text: str, where: str) -> Split | None:
    """Read the name of a split; nothing means none.

    Raises
    ------
    MicrosegError
        For an unknown name.
    """
    if not text:
        return None
    if text.lower() not in SPLITS:
        raise MicrosegError(f"{where}: unknown split '{text}'; {did_you_mean(text.lower(), SPLITS)}")
    return SPLITS[text.lower()]


def apply_group_regex(entries: Sequence[Entry], pattern: str | None) -> list[Entry]:
    """Take each entry's group from its image's file name, see `DataOptions.group_regex`.

    Raises
    ------
    MicrosegError
        If the pattern is not found in a file name.
    """
    if pattern is None:
        return list(entries)
    return [entry._replace(group=_group(entry.images[0], pattern)) for entry in entries]


def _group(image: Path, pattern: str) -> str:
    found = re.search(pattern, image.stem)
    group = found and found.group(1 if found.re.groups else 0)
    if not group:
        raise MicrosegError(
            f"{image}: group regex '{pattern}' finds nothing in '{image.stem}'; adapt it so that every image"
            " has a group"
        )
    return group


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV table with a header; values stay text, so that '007' does.

    Raises
    ------
    MicrosegError
        If the file cannot be read, has no rows, names two columns alike, or a row does not fit the header.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MicrosegError(f"{path}: not UTF-8 text; save the table as CSV in UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    try:
        rows, names = list(reader), [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise MicrosegError(
            f"{path}: line {reader.line_num + 1} is no row of a CSV table ({error})"
        ) from error
    repeated, count = max(Counter(filter(None, names)).items(), key=lambda pair: pair[1], default=("", 0))
    if count > 1:
        raise MicrosegError(f"{path}: {count} columns are named '{repeated}'; give each a name of its own")
    if not rows:
        raise MicrosegError(f"{path}: no rows; give a header line and one line per image")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise MicrosegError(f"{path}: line {number} does not have the header's {len(names)} columns")
    return [{key.strip(): value.strip() for key, value in row.items()} for row in rows]


def column(rows: Sequence[Mapping[str, str]], stated: str | None, usual: str, path: Path) -> str | None:
    """Return the column to use: the stated one, else the usual name where the table has it.

    Raises
    ------
    MicrosegError
        If the stated column does not exist.
    """
    if stated is not None and stated not in rows[0]:
        raise MicrosegError(f"{path}: no column '{stated}'; {did_you_mean(stated, rows[0])}")
    return stated or (usual if usual in rows[0] else None)


class FactColumns(NamedTuple):
    """The columns of a table that say more about an image than where its files are."""

    group: str | None
    stratum: str | None
    split: str | None

    def add(self, entry: Entry, row: Mapping[str, str], where: str) -> Entry:
        """Return the entry with what the row says about it."""
        return entry._replace(
            group=self._value(row, self.group, where) if self.group else entry.group,
            stratum=row[self.stratum] if self.stratum else entry.stratum,
            split=split_of(row[self.split], where) if self.split else entry.split,
        )

    @staticmethod
    def _value(row: Mapping[str, str], name: str, where: str) -> str:
        if not row[name]:
            raise MicrosegError(f"{where}: no value in the group column '{name}'; give every image a group")
        return row[name]


def fact_columns(rows: Sequence[Mapping[str, str]], options: DataOptions, path: Path) -> FactColumns:
    """Find the columns of group, stratum and split; a group regex takes the place of a group column."""
    if options.group_column and options.group_regex:
        raise MicrosegError(
            f"both the group column '{options.group_column}' and a group regex are given; give one of them"
        )
    return FactColumns(
        group=None if options.group_regex else column(rows, options.group_column, "group", path),
        stratum=column(rows, options.stratum_column, "stratum", path),
        split=column(rows, options.split_column, "split", path),
    )


def join_table(entries: Sequence[Entry], folder: Path, options: DataOptions) -> list[Entry]:
    """Add what a folder's ``manifest.csv`` says about its images, matched by file name.

    Raises
    ------
    MicrosegError
        If a stated column needs the table and it, the column, or an image's row is missing.
    """
    path = folder / "manifest.csv"
    stated = options.image_column or options.group_column or options.stratum_column or options.split_column
    if not path.is_file():
        if stated:
            raise MicrosegError(
                f"{folder}: column '{stated}' is stated, but there is no manifest.csv to find it in"
            )
        return list(entries)
    rows = read_rows(path)
    facts = fact_columns(rows, options, path)
    if not any(facts):
        return list(entries)
    by_stem = _rows_by_file(rows, entries, options, path)
    return [facts.add(entry, by_stem[_stem(entry)], f"{path}, {_stem(entry)}") for entry in entries]


def _stem(entry: Entry) -> str:
    return entry.images[0].stem


def _rows_by_file(
    rows: list[dict[str, str]], entries: Sequence[Entry], options: DataOptions, path: Path
) -> dict[str, dict[str, str]]:
    """Find the column that names every image, by file name with or without suffix."""
    wanted = {_stem(entry) for entry in entries}
    stated = column(rows, options.image_column, "file", path)
    candidates = [stated] if options.image_column else list(rows[0])
    for name in candidates:
        stems = [_file_stem(row[str(name)], entries) for row in rows]
        if wanted <= set(stems):
            refuse_repeats((stem for stem in stems if stem in wanted), f"{path}, column '{name}'")
            return dict(zip(stems, rows, strict=True))
    best = stated or max(
        rows[0], key=lambda name: len(wanted & {_file_stem(row[name], entries) for row in rows})
    )
    missing = sorted(wanted - {_file_stem(row[best], entries) for row in rows})
    raise MicrosegError(
        f"{path}: no row for image '{missing[0]}' ({len(missing)} missing) in column '{best}'; add them"
    )


def _file_stem(text: str, entries: Sequence[Entry]) -> str:
    """Drop folders and an image suffix; 'plate1.2' keeps its dot."""
    name = text.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    known = {file.suffix.lower() for entry in entries for file in (*entry.images, entry.mask)}
    return stem if dot and f".{suffix.lower()}" in known else name


def refuse_repeats(names: Iterable[str], where: str) -> None:
    """Refuse a list in which a name occurs twice.

    Raises
    ------
    MicrosegError
        Naming the first that does.
    """
    name, count = max(Counter(names).items(), key=lambda pair: pair[1], default=("", 0))
    if count > 1:
        raise MicrosegError(
            f"{where}: the name '{name}' occurs {count} times; every image needs a name of its own"
        )
