"""The measurements of all objects of all images as one CSV file, row by row."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

from microseg import storage
from microseg.instances import IN_MICROMETRES, Table

OBJECTS = "objects.csv"


class TakesObjects(Protocol):
    """Where the measurements of objects go."""

    def add(self, image: str, tables: Iterable[Table]) -> None:
        """Take the objects of an image; all of them, or none if ``tables`` fails on the way."""


class ObjectTable:
    """A CSV file in the making; nothing of it is at its target before `store`.

    The columns in micrometres are empty where an image's pixel size is not known.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="microseg-")
        self._path = Path(self._folder.name) / OBJECTS
        self._columns: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def add(self, image: str, tables: Iterable[Table]) -> None:
        """Append the objects of an image; all of them, or none if ``tables`` fails on the way."""
        before = self._path.stat().st_size if self._path.exists() else 0
        with self._path.open("a", newline="", encoding="utf-8") as file:
            try:
                for table in tables:
                    self._write(file, image, table)
            except BaseException:
                file.truncate(before)
                self._columns = self._columns if before else []
                raise

    def store(self, target: str) -> None:
        """Put the table at its place, if any image was added."""
        if self._columns:
            storage.store(self._path, target)

    def _write(self, file: TextIO, image: str, table: Table) -> None:
        writer = csv.writer(file)
        if not self._columns:
            plain = [name for name in table if name not in IN_MICROMETRES]
            self._columns = [*plain, *IN_MICROMETRES]
            writer.writerow(["image", *self._columns])
        empty = [""] * len(table["label"])
        columns = [table.get(name, empty) for name in self._columns]
        writer.writerows((image, *row) for row in zip(*columns, strict=True))
