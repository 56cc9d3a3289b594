"""Which images an interrupted run has finished; it goes on with the others."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from microseg import storage
from microseg.data.files import identity
from microseg.data.images import READABLE
from microseg.serving.batch.options import Request
from microseg.serving.batch.summary import Written


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
        options = request.options.model_dump(mode="json", exclude={"max_memory", "ray"})
        self._run = {"digest": digest, "options": options}
        self.images: dict[str, Written] = {}
        self.table = 0
        if path.exists() and not self._read(request.images):
            self.images, self.table = {}, 0
            path.unlink()

    def _read(self, images: tuple[str, ...]) -> bool:
        """Read the list, and say whether it counts."""
        first, *lines = self._path.read_bytes().splitlines(keepends=True) or [b""]
        if not first.endswith(b"\n") or json.loads(first) != self._run:
            return False
        for line in lines:
            if not line.endswith(b"\n"):
                break  # the run was killed while it wrote this
            found = json.loads(line)
            written = Written(
                **found["written"] | {"unlike": tuple(found["written"]["unlike"]), "resumed": 1.0}
            )
            if found["image"] not in images or state(found["image"]) != found["state"]:
                return False
            if not storage.is_remote(written.mask) and not Path(written.mask).exists():
                return False
            self.images[found["image"]], self.table = written, found["table"]
        return not self.table or (self._objects.exists() and self._objects.stat().st_size >= self.table)

    def add(self, image: str, written: Written, table: int) -> None:
        """Add a finished image, and the bytes that the table of objects has now."""
        entry = {"image": image, "state": state(image), "written": written._asdict(), "table": table}
        new = not self._path.exists()
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in ([self._run, entry] if new else [entry]))

    def clear(self) -> None:
        """Forget them: the run is complete."""
        self._path.unlink(missing_ok=True)


def state(image: str) -> Any:
    """Return what tells an image from another of the same name; a remote one is not downloaded for it.

    Of a remote OME-Zarr, that is nothing: it counts as unchanged.
    """
    if not storage.is_remote(image):
        return identity(Path(image))
    return storage.size(image) if PurePosixPath(image).suffix.lower() in READABLE else None
