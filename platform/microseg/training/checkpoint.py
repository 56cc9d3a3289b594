"""What an interrupted training needs to go on as if nothing had happened, written whole after every epoch.

Two files of arrays are named by the epoch: the weights, and all other state (the optimizer's variables, the
generators of dropout). Then ``checkpoint.json`` is replaced, which names them; then what it names no longer
is deleted. The weights of the best epoch are the file that was written when it was the last one.
"""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from microseg.config import Strict
from microseg.data.files import content_hash, replacing
from microseg.training.callbacks import Record
from microseg.training.validation import Evaluation

FOLDER, COURSE = "checkpoint", "checkpoint.json"
NUMBERS = ConfigDict(ser_json_inf_nan="constants")  # of every model for itself; a loss may be NaN
Arrays = list[NDArray[Any]]


class Watch(Strict):
    """What a callback that waits for an improvement remembers."""

    model_config = NUMBERS

    wait: int
    best: float


class Course(Strict):
    """A training up to an epoch, without its arrays.

    ``stopped`` says that no further epoch is wanted; ``best_epoch`` counts from 1, ``evaluation`` is that of
    its network. ``watches`` are those of early stopping and, where it waits too, of the schedule.
    """

    model_config = NUMBERS

    identity: str
    stopped: bool
    seconds: float
    cpu_seconds: float = 0.0
    best_epoch: int
    watches: tuple[Watch, ...]
    history: list[dict[str, float]]
    evaluation: Evaluation


class Checkpoint(NamedTuple):
    """A training up to an epoch. ``state`` is in the order of `_state`, the weights in that of Keras."""

    course: Course
    weights: Arrays
    state: Arrays
    best_weights: Arrays


def identity(fingerprint: str, accumulation: int, model: keras.Model) -> str:
    """Return a hash of all that must be equal for a training to go on exactly, on this machine too.

    What `auto` precision means depends on the hardware, which layers a network has on the version of Keras.
    """
    shapes = [weight.shape for weight in model.weights]
    parts = (fingerprint, accumulation, keras.config.dtype_policy().name, keras.version(), shapes)
    return content_hash(str(part).encode() for part in parts)


def load(folder: Path, identity: str) -> Checkpoint | None:
    """Read the checkpoint of exactly this training; None where there is no whole one."""
    try:
        course = Course.model_validate_json((folder / COURSE).read_bytes())
        if course.identity != identity:
            return None
        last, best = len(course.history), course.best_epoch
        weights = _read(_weights_file(folder, last))
        best_weights = weights if best == last else _read(_weights_file(folder, best))
        return Checkpoint(course, weights, _read(_state_file(folder, last)), best_weights)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # absent, or torn by a machine that failed
        return None


def save(folder: Path, course: Course, model: keras.Model) -> None:
    """Write a checkpoint of a compiled model; until it is whole, the one before it is what counts."""
    last, best = len(course.history), course.best_epoch
    kept = {_weights_file(folder, last), _weights_file(folder, best), _state_file(folder, last)}
    _write(_weights_file(folder, last), model.get_weights())
    _write(_state_file(folder, last), [np.asarray(variable) for variable in _state(model)])
    with replacing(folder / COURSE) as file:
        file.write(course.model_dump_json().encode())
        _sync(file)
    for path in {*folder.glob("weights-*.npz"), *folder.glob("state-*.npz")} - kept:
        path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Delete a checkpoint, if there is one."""
    shutil.rmtree(folder, ignore_errors=True)


def discard_checkpoints(workdir: Path) -> None:
    """Delete the checkpoints of all folds of a trial that will not go on."""
    for folder in workdir.glob(f"fold-*/{FOLDER}"):
        discard(folder)


class Checkpoints(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Saves a checkpoint after every epoch, and starts from the one that an interrupted training left.

    It stands behind the callbacks whose state it keeps: they begin a training by forgetting all, and have
    seen an epoch when its checkpoint is written.

    Parameters
    ----------
    folder : Path
        Of the fold.
    identity : str
        From `identity`.
    start : float
        When the training began, by the monotonic clock.
    record : Record
        The course so far; it is filled from the checkpoint.
    schedule : keras.callbacks.Callback
        Of the learning rate.
    """

    def __init__(
        self, folder: Path, identity: str, start: float, record: Record, schedule: keras.callbacks.Callback
    ) -> None:
        super().__init__()
        self.folder, self.identity, self.record = folder / FOLDER, identity, record
        waits = isinstance(schedule, keras.callbacks.ReduceLROnPlateau)
        self._watching = [record.early, schedule] if waits else [record.early]
        self._start, self._cpu_start = start, time.process_time()
        self._found = load(self.folder, identity)
        self.stopped = False
        if self._found:
            self._start -= self._found.course.seconds
            self._cpu_start -= self._found.course.cpu_seconds
            self.stopped = self._found.course.stopped
            record.history = self._found.course.history
            record.best = self._found.course.evaluation

    @property
    def seconds(self) -> float:
        """Seconds of the training, with those before an interruption."""
        return time.monotonic() - self._start

    @property
    def cpu_seconds(self) -> float:
        """Seconds that processors worked for the training, all threads, also before an interruption."""
        return time.process_time() - self._cpu_start

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Go on from the checkpoint; the optimizer is built."""
        if self._found is None:
            return
        course, weights, state, best_weights = self._found
        self.model.set_weights(weights)
        for variable, value in zip(_state(self.model), state, strict=True):
            variable.assign(value)
        for callback, watch in zip(self._watching, course.watches, strict=True):
            callback.wait, callback.best = watch.wait, watch.best
        self.record.early.best_epoch, self.record.early.best_weights = course.best_epoch - 1, best_weights
        self._found = None  # its arrays take as much memory as the training's own

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save all."""
        course = Course(
            identity=self.identity,
            stopped=self.model.stop_training or epoch + 1 == self.params["epochs"],
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            best_epoch=self.record.early.best_epoch + 1,
            watches=tuple(Watch(wait=one.wait, best=one.best) for one in self._watching),
            history=self.record.history,
            evaluation=self.record.best,
        )
        save(self.folder, course, self.model)


def _state(model: keras.Model) -> list[keras.Variable]:
    """Return what changes in training and is no weight, in the same order each time."""
    weights = {id(weight) for weight in model.weights}
    generators = [variable for variable in model.variables if id(variable) not in weights]
    return [*model.optimizer.variables, *generators]


def _weights_file(folder: Path, epoch: int) -> Path:
    return folder / f"weights-{epoch}.npz"


def _state_file(folder: Path, epoch: int) -> Path:
    return folder / f"state-{epoch}.npz"


def _write(path: Path, arrays: Sequence[NDArray[Any]]) -> None:
    with replacing(path) as file:
        np.savez(file, *arrays)
        _sync(file)


def _sync(file: Any) -> None:
    """Bring a file to the disk: a machine that fails loses what only its memory holds."""
    file.flush()
    os.fsync(file.fileno())


def _read(path: Path) -> Arrays:
    """Read every array, which checks their sums."""
    with path.open("rb") as file, np.load(file) as arrays:  # numpy leaves a torn file open that it opened
        return [arrays[name] for name in arrays.files]
