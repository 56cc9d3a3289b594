"""What a training says: progress while it runs, results of folds, and how they are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, ValidationError

from microseg.config import Strict, TrialConfig
from microseg.data.files import replacing
from microseg.data.manifest import Manifest
from microseg.folds import Fold
from microseg.metrics.calibration import Calibration

State = Literal["completed", "diverged", "collapsed"]
RESULT, MODEL = "result.json", "model.keras"


@dataclass(frozen=True)
class TrainingData:
    """A data set and the folder where its decoded arrays are kept."""

    manifest: Manifest
    cache: Path


class Sample(NamedTuple):
    """One validation image as the network sees it.

    ``image`` is preprocessed, (height, width, channels) float32; ``truth`` the class index, (height, width)
    uint8 with 255 ignored; ``probability`` (height, width, maps) float32 in [0, 1], predicted in tiles;
    ``whole`` the same predicted in one piece, None for an image too large for that.
    """

    name: str
    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    probability: NDArray[np.float32]
    whole: NDArray[np.float32] | None = None


class FoldResult(Strict):
    """The outcome of training one fold.

    ``diverged``: the loss became NaN or infinite. ``collapsed``: the best network predicts one class
    everywhere although the truth has several. ``metrics`` and ``per_image`` (validation Dice by item name)
    are those of ``best_epoch`` (from 1), whose weights ``model`` holds. ``fingerprint`` identifies what
    was trained: configuration, data and fold; ``weights`` is a hash of the weights. ``seconds`` passed
    meanwhile, ``cpu_seconds`` are those that processors worked, all threads together. ``gpu_memory_mib`` is 0
    where no GPU was used. ``calibration`` is that of all validation images together, None where the fold was
    not completed.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")  # a diverged fold has NaN among its metrics

    fold: int
    state: State
    best_epoch: int
    epochs: int
    metrics: dict[str, float]
    per_image: dict[str, float]
    seconds: float
    cpu_seconds: float = 0.0
    parameters: int
    peak_memory_mib: float
    gpu_memory_mib: float = 0.0
    calibration: Calibration | None = None
    model: Path
    history: list[dict[str, float]]
    fingerprint: str
    weights: str = ""


@dataclass(frozen=True)
class Progress:
    """One event: an epoch (counted from 1) that ended or, with ``result``, the end of the fold.

    ``replayed`` events happened before an interruption. They are told again, in order and without samples,
    because who listens now, or then, may not have heard them.
    """

    fold: int
    epoch: int
    metrics: dict[str, float]
    samples: tuple[Sample, ...] = ()
    result: FoldResult | None = None
    replayed: bool = False


Report = Callable[[Progress], None]


def replay(history: Sequence[dict[str, float]], fold: Fold, report: Report) -> None:
    """Report epochs that an earlier process trained."""
    for epoch, metrics in enumerate(history, 1):
        report(Progress(fold.index, epoch, metrics, replayed=True))


def fold_folder(workdir: Path, fold: Fold) -> Path:
    """Return where a fold keeps its model and result."""
    return workdir / f"fold-{fold.index}"


def fingerprint(config: TrialConfig, data: TrainingData, fold: Fold) -> str:
    """Return a hash (sha256 hex) of all that defines the training of a fold.

    A batch that was accumulated of parts trains as the whole batch does, so ``accumulation`` is left out.
    """
    hashes = {item.name: item.sha256 for item in data.manifest.items}  # a name may come to mean another image
    parts = (config.model_dump_json(exclude={"accumulation"}), data.manifest.digest, fold.model_dump_json())
    images = (hashes[name] for name in (*fold.train, *fold.valid))
    contents = _contents(config.model.params)
    return hashlib.sha256("\n".join((*parts, *images, *contents)).encode()).hexdigest()


def _contents(params: dict[str, Any]) -> Iterator[str]:
    """Hash the files that parameters name, such as weights to start from: a path may come to hold others."""
    for value in params.values():
        if isinstance(value, str) and Path(value).is_absolute() and Path(value).is_file():
            with Path(value).open("rb") as file:
                yield hashlib.file_digest(file, "sha256").hexdigest()


def write_result(result: FoldResult, folder: Path) -> None:
    """Write ``result.json``; it comes last, so that whoever finds it finds the model too."""
    with replacing(folder / RESULT) as file:
        file.write(result.model_dump_json(indent=1).encode())


def finished_fold(config: TrialConfig, data: TrainingData, fold: Fold, workdir: Path) -> FoldResult | None:
    """Return the result that an earlier training of exactly this fold left in the folder, if any."""
    folder = fold_folder(workdir, fold)
    try:
        result = FoldResult.model_validate_json((folder / RESULT).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    if result.fingerprint != fingerprint(config, data, fold) or not (folder / MODEL).is_file():
        return None
    return result.model_copy(update={"model": folder / MODEL})  # the folder may have moved
