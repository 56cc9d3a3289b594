"""What this machine can do: all that is measured, one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from microseg import __version__, runtime
from microseg.bench.inference import Prediction, saved
from microseg.bench.machine import product
from microseg.bench.networks import cells, timed_config
from microseg.bench.projection import BACKWARD, Projection, Speeds, project
from microseg.bench.start import Search, start_once
from microseg.bench.training import Trainer
from microseg.bench.turns import Spread, ratio, spread, take_turns
from microseg.config import SearchConfig, Strict, TrialConfig
from microseg.data.manifest import Manifest
from microseg.space import Space

Say = Callable[[str], None]


class Length(NamedTuple):
    """How thoroughly is measured.

    ``turn`` and ``turns`` are seconds of a turn and of all turns, ``side`` is that of the image,
    ``batch_size`` is that of a processor: small batches are as fast there, and short; a GPU gets `BATCH`.
    """

    turn: float
    turns: float
    side: int
    batch_size: int


BATCH = 8
QUICK = Length(turn=3.0, turns=0.0, side=512, batch_size=2)
FULL = Length(turn=10.0, turns=120.0, side=1536, batch_size=BATCH)


class Study(NamedTuple):
    """The study whose time is projected."""

    config: SearchConfig
    space: Space
    manifest: Manifest


class Rate(Strict):
    """What the platform reaches beside the bare network, the same work in the same turns.

    ``platform`` and ``bare`` are patches, or tiles, a second; ``share`` is their ratio; ``gflops`` are 10^9
    operations a second of the platform, and ``peak`` is their share of those of the product of two matrices.
    """

    platform: Spread
    bare: Spread
    share: Spread
    gflops: float
    peak: float


class Bench(Strict):
    """What was measured, and the time of a study that follows from it."""

    version: str
    machine: dict[str, Any]
    config: TrialConfig
    parameters: int
    gflop: float
    product: Spread
    training: Rate
    prediction: Rate
    start: dict[str, float]
    start_seconds: float
    projection: Projection


def bench(study: Study, quick: bool, say: Say) -> Bench:
    """Measure this machine, with as many threads as `runtime.threads` was given.

    Parameters
    ----------
    study : Study
        What to project the time of.
    quick : bool
        Whether to end in less than three minutes on two cores: fewer and shorter turns, and the projection by
        counted operations instead of timed steps.
    say : callable
        Is told in a line what is measured next.

    Raises
    ------
    MicrosegError
        If the tiny search that is timed fails; the message holds what it said.
    """
    length = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="microseg-bench-") as scratch:
        say("a tiny search in a process of its own, from its command to its candidate")
        start = start_once(Path(scratch))
        machine = runtime.hardware()
        config = timed_config(batch_size=BATCH if machine["gpus"] else length.batch_size)
        say("the network in training, beside bare steps and the product of two matrices")
        trained = _training(config, length)
        say("the network in tiled prediction, beside the network alone")
        predicted = _prediction(config, length, Path(scratch))
    peak = spread([trained.operations / seconds / 1e9 for seconds in trained.seconds["product"]])
    training = _rate(trained.seconds, "fold", trained.images, BACKWARD * trained.gflop, peak)
    prediction = _rate(predicted.seconds, "tiled", predicted.images, trained.gflop, peak)
    say(f"the time of a study on {study.manifest.name}")
    speeds = Speeds(training.gflops * 1e9, prediction.gflops * 1e9, *_starts(start))
    return Bench(
        version=__version__,
        machine=machine,
        config=config,
        parameters=trained.parameters,
        gflop=trained.gflop,
        product=peak,
        training=training,
        prediction=prediction,
        start=start.phases,
        start_seconds=start.measured.wall,
        projection=project(*study, speeds, measured=not quick),
    )


class _Turns(NamedTuple):
    """Seconds by way; ``images`` are those of a turn, ``operations`` those of a product."""

    seconds: Mapping[str, Sequence[float]]
    images: int
    gflop: float = 0.0
    parameters: int = 0
    operations: float = 0.0


def _training(config: TrialConfig, length: Length) -> _Turns:
    with runtime.fresh_session(config.precision, config.seed):
        trainer = Trainer(config, cells(2 * config.tile), length.turn)
        multiply, operations = product(keras.config.dtype_policy().compute_dtype)
        gflop = runtime.operations(trainer.network, (1, config.tile, config.tile, 1)) / 1e9
        seconds = take_turns(trainer.ways | {"product": multiply}, length.turns)
        return _Turns(seconds, trainer.images, gflop, trainer.network.count_params(), operations)


def _prediction(config: TrialConfig, length: Length, folder: Path) -> _Turns:
    prediction = Prediction(saved(config, folder / "model"), length.side)
    return _Turns(take_turns(prediction.ways, length.turns / 2), prediction.tiles)


def _rate(seconds: Mapping[str, Sequence[float]], way: str, images: int, gflop: float, peak: Spread) -> Rate:
    ours = spread([images / one for one in seconds[way]])
    return Rate(
        platform=ours,
        bare=spread([images / one for one in seconds["bare"]]),
        share=ratio(seconds["bare"], seconds[way]),
        gflops=ours.median * gflop,
        peak=ours.median * gflop / peak.median,
    )


def _starts(start: Search) -> tuple[float, float, float]:
    """Return the seconds of a search around its trials, of a trial's start, and until a network is traced."""
    times = start.measured
    around = start.proposed - times.start + times.end - times.saved
    return around, times.training - start.proposed, max(0.0, times.first_epoch - times.epoch)
