"""A table of image and mask paths: CSV, or the YAML that `microseg data manifest` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microseg.config import Strict, parse, read_yaml
from microseg.data.entries import (
    Entry,
    Listing,
    apply_group_regex,
    column,
    fact_columns,
    read_rows,
    refuse_repeats,
)
from microseg.data.facts import Ledger
from microseg.data.files import absolute
from microseg.data.images import check_suffix
from microseg.data.manifest import MaskKind
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError

_SUFFIXES = (".csv", ".yaml", ".yml")
_IN_FOLDER = ("manifest.yaml", "manifest.yml", "manifest.csv")


class Document(Strict):
    """The YAML form: what holds for the whole data set, and the rows of the table under ``items``."""

    name: str | None = None
    source: str | None = None
    mask_kind: MaskKind | None = None
    threshold: float | None = None
    classes: tuple[str, ...] = ()
    axes: str | None = None
    pixel_size_um: float | None = None
    items: tuple[dict[str, Any], ...]


def recognise(source: Path) -> bool:
    """Say whether this is a CSV or YAML file, or a folder with a ``manifest`` of that kind in it."""
    return source.suffix.lower() in _SUFFIXES if source.is_file() else _table_in(source) is not None


def read(source: Path, options: DataOptions, _ledger: Ledger) -> Listing:
    """Read the rows of a table; paths are relative to the folder of the table.

    The columns are ``image`` and ``mask``, and where wanted ``name``, ``group``, ``split`` and
    ``stratum``; the options name others. What the options state goes before what a YAML file states.

    Raises
    ------
    MicrosegError
        If a column or path is missing, or a name occurs twice.
    """
    if options.channel_suffixes:
        raise MicrosegError(
            f"{source}: channel suffixes are for folders; give the image columns, separated by commas"
        )
    path = source if source.is_file() else _table_in(source) or source
    document = _document(path)
    rows = [_as_text(row) for row in document.items]
    if not rows:
        raise MicrosegError(f"{path}: no items; give one row per image with its image and its mask")
    entries = apply_group_regex(_entries(rows, options, path), options.group_regex)
    refuse_repeats(
        (entry.name for entry in entries), f"{path} (a column 'name' may tell equal file names apart)"
    )
    stated = options.model_dump(exclude_unset=True, exclude_none=True)
    own = document.model_dump(exclude={"items", "name", "source"}, exclude_none=True)
    merged = parse(DataOptions, {**own, **stated}, str(path))
    return Listing(entries, merged, document.name or path.stem, document.source or str(path))


def _table_in(folder: Path) -> Path | None:
    return next((folder / name for name in _IN_FOLDER if (folder / name).is_file()), None)


def _document(path: Path) -> Document:
    if path.suffix.lower() == ".csv":
        return Document(items=tuple(read_rows(path)))
    content = read_yaml(path)
    return parse(Document, {"items": content} if isinstance(content, list) else content, str(path))


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """Make every value a text, as in a CSV; a list stays one (the files of several channels)."""
    return {
        key: [str(part) for part in value] if isinstance(value, list) else "" if value is None else str(value)
        for key, value in row.items()
    }


def _entries(rows: Sequence[dict[str, Any]], options: DataOptions, path: Path) -> list[Entry]:
    every: dict[str, Any] = {key: "" for row in rows for key in row}
    rows = [every | row for row in rows]  # a YAML row may leave out what it does not have
    images = [_needed(rows, name.strip(), path) for name in (options.image_column or "image").split(",")]
    mask = _needed(rows, options.mask_column or "mask", path)
    facts = fact_columns(rows, options, path)
    entries = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        files = tuple(_file(text, path, where) for name in images for text in _listed(row[name]))
        entry = Entry(name=row.get("name") or files[0].stem, images=files, mask=_file(row[mask], path, where))
        if {"/", "\\"} & set(entry.name):
            raise MicrosegError(
                f"{where}: the name '{entry.name}' has a slash; use letters, digits, '-' and '_'"
            )
        entries.append(facts.add(entry, row, where))
    return entries


def _needed(rows: Sequence[Mapping[str, str]], name: str, path: Path) -> str:
    return column(rows, name, name, path) or name


def _listed(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


def _file(text: str, table: Path, where: str) -> Path:
    path = absolute(table.parent / text)
    if not text or not path.is_file():
        raise MicrosegError(f"{where}: no such file '{text}'; paths are relative to the folder of the table")
    if not check_suffix(path):
        raise MicrosegError(f"{where}: '{text}' is not an image; PNG, TIFF and JPEG are read")
    return path
