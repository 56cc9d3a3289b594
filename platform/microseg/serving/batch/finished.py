"""Which images an interrupted run has finished; it goes on with the others."""

from __future__ import annotations

from pathlib import Path

import microseg
from microseg import storage
from microseg.config import Strict
from microseg.serving.batch.files import state_of
from microseg.serving.batch.options import PredictOptions, Request
from microseg.serving.batch.summary import Written


class Run(Strict):
    """What makes the masks of two runs equal."""

    digest: str
    version: str
    options: PredictOptions


class Entry(Strict):
    """A finished image, its state before it was predicted, and the bytes of the table of objects after it."""

    image: str
    state: str
    written: Written
    table: int


class Finished:
    """A list of finished images, kept as lines of JSON beside the masks until all are finished.

    It counts as long as all images in it are unchanged, their masks are there, and the run is the same: one
    difference, and every image is predicted anew.

    Parameters
    ----------
    path : Path
        The list's file; there is none where the last run was complete.
    request : Request
        What is to be predicted.
    digest : str
        The model's, see `Segmenter.digest`.
    objects : Path
        The unfinished table of objects.

    Attributes
    ----------
    images : dict of str to Written
        The finished images.
    table : int
        Bytes of the table of objects when the last of them was finished.
    """

    def __init__(self, path: Path, request: Request, digest: str, objects: Path) -> None:
        self._path, self._objects = path, objects
        options = request.options.model_copy(update={"max_memory": None, "ray": False})
        self._run = Run(digest=digest, version=microseg.__version__, options=options)
        # Before any is predicted: what changes while it is predicted has a mask of both.
        self._states = {image: state_of(image) for image in request.images}
        self.images: dict[str, Written] = {}
        self.table = 0
        if path.exists() and not self._read():
            self.images, self.table = {}, 0
            path.unlink()

    def _read(self) -> bool:
        """Read the list, and say whether it counts."""
        first, *lines = self._path.read_bytes().splitlines(keepends=True) or [b""]
        try:
            same = Run.model_validate_json(first) == self._run
            # A run that was killed while it wrote a line has left a part of it.
            entries = [Entry.model_validate_json(line) for line in lines if line.endswith(b"\n")]
        except ValueError:
            return False
        for entry in entries:
            self.images[entry.image] = entry.written._replace(resumed=1.0)
            self.table = entry.table
        return same and all(map(self._counts, entries)) and self._has_table()

    def _counts(self, entry: Entry) -> bool:
        """Say whether an image is as it was, and its mask is there."""
        mask = entry.written.mask
        there = storage.is_remote(mask) or Path(mask).exists()
        return there and self._states.get(entry.image) == entry.state

    def _has_table(self) -> bool:
        return not self.table or (self._objects.exists() and self._objects.stat().st_size >= self.table)

    def add(self, image: str, written: Written, table: int) -> None:
        """Add a finished image, and the bytes that the table of objects has now."""
        entry = Entry(image=image, state=self._states[image], written=written, table=table)
        lines = [entry] if self._path.exists() else [self._run, entry]
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{line.model_dump_json()}\n" for line in lines)

    def clear(self) -> None:
        """Forget them: the run is complete."""
        self._path.unlink(missing_ok=True)
