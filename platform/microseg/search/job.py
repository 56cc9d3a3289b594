"""What all trials of a study have in common, and where they are kept."""

from __future__ import annotations

import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from microseg.config import Cost, Keep, Strict
from microseg.data.manifest import Manifest
from microseg.data.options import DataOptions
from microseg.folds import Fold
from microseg.search import machines, state
from microseg.search.state import Attempt
from microseg.storage import is_remote


class Job(Strict):
    """All that the trials of a study have in common.

    ``epochs`` is the most that any trial may train a fold, ``rungs`` the epochs of the first at which a trial
    may be stopped, ``workdir`` holds a folder per trial, ``origin`` says where the study comes from. With
    ``store`` machines need not see these folders: that is where trials keep their state, see
    `microseg.search.state`, and the images are read from ``data``, if that is an ``s3://`` URI. ``session``
    tells the trials that this process started from those of one that was killed.
    """

    manifest: Manifest
    folds: tuple[Fold, ...]
    metric: str
    mode: Literal["max", "min"]
    epochs: int
    rungs: tuple[int, ...] = ()
    workdir: Path
    cache: Path
    against: Cost | None = None
    curves: Literal["all", "brief"] = "all"
    keep: Keep = "models"
    origin: dict[str, Any] = Field(default_factory=dict)
    data: str = ""
    options: DataOptions = DataOptions()
    store: str = ""
    session: str = Field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def mark(self) -> Path:
        """A file of the driver, by which a machine knows that it sees the same folders."""
        return self.workdir / "ray" / self.session

    @property
    def seen(self) -> bool:
        """Whether this machine sees the folders of the driver; without a store all must."""
        return not self.store or self.mark.is_file()

    def attempt(self, trial: str) -> AbstractContextManager[Attempt]:
        """Hold a trial by name, to train it in this process."""
        if not self.store:
            return state.shared(self.workdir / trial)
        home = self.workdir if self.seen else machines.own_home()
        return state.taken_over(f"{self.store}/{trial}", self.session, home / "work")

    def images(self) -> tuple[Manifest, Path]:
        """Return the data set with paths that this machine sees, and where it keeps decoded images."""
        if self.seen:
            return self.manifest, self.cache
        cache = machines.own_home() / "cache"
        if not is_remote(self.data):
            return self.manifest, cache
        return machines.own_copy(self.manifest, self.data, self.options, cache), cache
