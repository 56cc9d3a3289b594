"""What a worker process is given, and what it does: one image, or one part of an image, at a time."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlflow

from microseg import runtime
from microseg.cluster import take_credentials
from microseg.data.streams import frugal
from microseg.errors import MicrosegError, of_the_system
from microseg.instances import Table
from microseg.serving.batch.cluster.attempts import ATTEMPTS
from microseg.serving.batch.image import predict_image
from microseg.serving.batch.large import Begun
from microseg.serving.batch.loading import load_segmenter
from microseg.serving.batch.opening import open_source
from microseg.serving.batch.options import Request
from microseg.serving.batch.summary import Outcome
from microseg.serving.large import Part, predict_part
from microseg.serving.segmenter import Segmenter

PAUSE = 2.0  # seconds before the second attempt, and twice that before the third
WHOLE = -1  # the part of an image that is predicted in one go


class Divided(NamedTuple):
    """A large image, how many pixels its planes have, and the parts of it that are still to do."""

    begun: Begun
    pixels: int
    parts: tuple[Part, ...]


class Unfit(NamedTuple):
    """Why a worker cannot do anything."""

    reason: str


@dataclass(frozen=True)
class Answer:
    """What became of a row: of a part that is done there is nothing to tell."""

    outcome: Outcome | Unfit | None = None
    tables: tuple[tuple[str, list[Table]], ...] = ()


@dataclass(frozen=True)
class Work:
    """What all workers know.

    Attributes
    ----------
    request : Request
        What was asked for.
    divided : dict of int to Divided
        The images that are predicted in parts, by their number.
    digest, tracking_uri : str
        Which model it is, see `Segmenter.digest`, and the MLflow that has it.
    places : tuple of Path
        What every machine must see.
    cores : int
        Of each worker.
    attempts : actor
        See `microseg.serving.batch.cluster.attempts`.
    """

    request: Request
    divided: dict[int, Divided]
    digest: str
    tracking_uri: str
    places: tuple[Path, ...]
    cores: int
    attempts: Any


class Worker:
    """Holds the model, and predicts row after row.

    Ray answers for an exception in here with a traceback of its own, so that what a person should read is
    part of the answer.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._unfit: Unfit | None = None
        try:
            self._segmenter = prepared(work)
        except MicrosegError as error:
            self._unfit = Unfit(f"machine {platform.node()} of the Ray cluster: {error}")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict an image, or a part of one."""
        import ray

        image, part = int(row["image"]), int(row["part"])
        if self._unfit:
            answer = Answer(self._unfit)
        elif ray.get(self._work.attempts.begin.remote(image, part)) > ATTEMPTS:
            answer = Answer(_deadly())
        else:
            answer = patient(lambda: self._answer(image, part))
        return {"answer": answer}

    def _answer(self, image: int, part: int) -> Answer:
        if part == WHOLE:
            return whole(self._segmenter, self._work.request, image)
        begun, _, parts = self._work.divided[image]
        with frugal(), open_source(begun.source) as stream:
            predict_part(self._segmenter, stream, begun.job, parts[part])
        return Answer()


def prepared(work: Work) -> Segmenter:
    """Return the model, once this machine is known to see all that it must.

    Raises
    ------
    MicrosegError
        If it does not, or the model cannot be loaded or is another one here.
    """
    take_credentials()
    runtime.load_tensorflow()
    runtime.threads(work.cores)
    for place in work.places:
        if not place.exists():
            raise MicrosegError(
                f"{place} is not there; images, masks and a model that has a path must be on a file system "
                "that all machines share: give such paths, or s3:// addresses"
            )
    mlflow.set_tracking_uri(work.tracking_uri)
    segmenter = load_segmenter(work.request.model_uri)
    if segmenter.digest != work.digest:
        raise MicrosegError(
            f"{work.request.model_uri} is another model there; give a version that does not change, such as "
            "models:/NAME/3"
        )
    return segmenter


def whole(segmenter: Segmenter, request: Request, image: int) -> Answer:
    """Predict an image in one go; its objects become part of the answer."""
    kept = _Kept()
    table = kept if request.options.instances else None
    written = predict_image(segmenter, request.images[image], request.target, request.options, table)
    return Answer(written, tuple(kept.tables))


class _Kept:
    """Objects in memory, until the driver has them."""

    def __init__(self) -> None:
        self.tables: list[tuple[str, list[Table]]] = []

    def add(self, image: str, tables: Iterable[Table]) -> None:
        self.tables.append((image, list(tables)))


def patient(attempt: Callable[[], Answer], sleep: Callable[[float], None] = time.sleep) -> Answer:
    """Try again where a file failed as those of a network do; what cannot be used fails at once.

    Parameters
    ----------
    attempt : callable
        May raise `OSError` or `MicrosegError`.
    sleep : callable
        Waits for so many seconds.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except (MicrosegError, OSError) as error:
            if number == ATTEMPTS or not of_the_system(error):
                return Answer(_as_failure(error))
            sleep(number * PAUSE)
    raise AssertionError("the last attempt returns")


def _as_failure(error: MicrosegError | OSError) -> MicrosegError:
    if isinstance(error, MicrosegError):
        return error
    where = f"machine {platform.node()}, {ATTEMPTS} attempts"
    return MicrosegError(f"{error.filename or 'a file'}: {error.strerror or error} ({where}); run it again")


def _deadly() -> MicrosegError:
    return MicrosegError(
        f"{ATTEMPTS} workers died at the same part of it, most likely for want of memory; what is done is "
        "kept: give --max-memory and run it again"
    )
