"""The measurements of all objects of all images as one CSV file, row by row."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TextIO

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

    Parameters
    ----------
    path : Path
        The unfinished file.
    size : int
        How many bytes of it are kept from an interrupted run; what follows them was half-written.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._path = path
        self._columns: list[str] = []
        if not size:
            path.unlink(missing_ok=True)
            return
        os.truncate(path, size)
        with path.open(newline="", encoding="utf-8") as file:
            self._columns = next(csv.reader(file))[1:]

    @property
    def size(self) -> int:
        """How many bytes are written."""
        return self._path.stat().st_size if self._path.exists() else 0

    def add(self, image: str, tables: Iterable[Table]) -> None:
        """Append the objects of an image; all of them, or none if ``tables`` fails on the way."""
        before = self.size
        with self._path.open("a", newline="", encoding="utf-8") as file:
            try:
                for table in tables:
                    self._write(file, image, table)
            except BaseException:
                file.flush()
                self.shorten(before)
                raise

    def shorten(self, size: int) -> None:
        """Drop what was added after so many bytes: objects of an image whose mask could not be written."""
        if size < self.size:
            os.truncate(self._path, size)
            self._columns = self._columns if size else []

    def store(self, target: str) -> None:
        """Put a copy of the table at its place, if any image was added."""
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
