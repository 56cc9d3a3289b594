"""How long a study will take on this machine: its space, its data set, and the speed that was measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from microseg import runtime
from microseg.bench.training import Trainer
from microseg.config import SearchConfig, Strict, TrialConfig, parse
from microseg.data.manifest import Manifest
from microseg.data.pairs import Pair
from microseg.data.pipeline import tile_count
from microseg.data.preprocess import output_channels
from microseg.losses import BORDER_LOSSES
from microseg.models import build_model, grid_of
from microseg.search.scheduler import rungs
from microseg.space import RandomSuggest, Space

DRAWN = 8  # configurations that stand for the space
BACKWARD = 3.0  # operations of a training step by those of a prediction: its gradients take twice as many


class Speeds(NamedTuple):
    """What was measured: operations a second in training and prediction, and seconds of all else.

    ``search`` is what the command takes before its first trial and after its last, ``trial`` is from a
    trial's proposal to its worker's first image, ``network`` what building and tracing takes, once a fold.
    """

    training: float
    prediction: float
    search: float
    trial: float
    network: float


class Projection(Strict):
    """What a study takes, in seconds.

    ``whole`` trains every fold of every trial for all of its epochs; ``searched`` is with ASHA, if it ends
    the share of trials at each rung that it is to end; neither has early stopping by patience, or the race
    over folds. ``measured`` says whether steps of the drawn configurations were timed, or only their
    operations counted.
    """

    data: str
    images: int
    trials: int
    folds: int
    drawn: int
    measured: bool
    fold: float
    whole: float
    searched: float


class _Pace(NamedTuple):
    """Seconds of a patch in training, and of a tile in prediction."""

    patch: float
    tile: float


class _Work(NamedTuple):
    """Patches that are trained in an epoch of a fold, and tiles that are predicted after it."""

    patches: int
    tiles: int


def project(
    config: SearchConfig, space: Space, manifest: Manifest, speeds: Speeds, measured: bool
) -> Projection:
    """Return what a study takes, by the mean of some configurations that are drawn from its space.

    Parameters
    ----------
    config : SearchConfig
        Trials, folds, hold-out, ASHA.
    space : Space
        Its space.
    manifest : Manifest
        The data set.
    speeds : Speeds
        Of this machine.
    measured : bool
        Whether to time training steps of each configuration, which takes minutes.
    """
    drawn = list(draw(space, DRAWN, config.seed))
    folds = config.folds if isinstance(config.folds, int) else 1
    paces = {_of_speed(one): one for one in drawn}  # others of the same pace are not timed again
    each = {key: _pace(one, manifest, speeds, measured) for key, one in paces.items()}
    costs = [_epoch_seconds(each[_of_speed(one)], _work(one, manifest, config)) for one in drawn]
    longest = max(one.epochs for one in drawn)
    pairs = list(zip(costs, drawn, strict=True))
    fold = float(np.mean([speeds.network + cost * one.epochs for cost, one in pairs]))
    first = float(np.mean([speeds.network + cost * asha_epochs(config, one.epochs) for cost, one in pairs]))
    survivors = asha_survivors(config, longest)
    return Projection(
        data=manifest.name,
        images=len(manifest.items),
        trials=config.trials,
        folds=folds,
        drawn=len(drawn),
        measured=measured,
        fold=fold,
        whole=speeds.search + config.trials * (speeds.trial + folds * fold),
        searched=speeds.search + config.trials * (speeds.trial + first + survivors * (folds - 1) * fold),
    )


def draw(space: Space, count: int, seed: int) -> Iterator[TrialConfig]:
    """Yield configurations drawn at random, that the constraints allow, in less than 1,000 attempts."""
    suggest, found = RandomSuggest(seed), 0
    for _ in range(1000):
        values: Mapping[str, Any] = space.sample(suggest)
        if space.violated(values) is None:
            yield parse(TrialConfig, values, "space")
            found += 1
        if found == count:
            return


def asha_survivors(config: SearchConfig, epochs: int) -> float:
    """Return the share of trials that pass every rung of ASHA."""
    return float(config.asha.reduction ** -len(rungs(config, epochs))) if config.asha else 1.0


def asha_epochs(config: SearchConfig, epochs: int) -> float:
    """Return the epochs that a first fold has on average, where each rung ends its share of the trials."""
    if config.asha is None:
        return float(epochs)
    places = (0, *rungs(config, epochs), epochs)
    lengths = (after - before for before, after in itertools.pairwise(places))
    return float(sum(length * config.asha.reduction**-rung for rung, length in enumerate(lengths)))


def _work(config: TrialConfig, manifest: Manifest, search: SearchConfig) -> _Work:
    """Return the work of an epoch, where all folds are as large."""
    developed = 1.0 - search.holdout
    valid = 1.0 / max(2, search.folds) if isinstance(search.folds, int) else 0.2
    every = sum(tile_count((item.height, item.width), config.tile) for item in manifest.items)
    steps = config.steps_per_epoch or math.ceil(every * developed * (1.0 - valid) / config.batch_size)
    grid = grid_of(config)
    tiles = sum(grid.tiles(item.height, item.width) for item in manifest.items)
    return _Work(steps * config.batch_size, math.ceil(tiles * developed * valid))


def _of_speed(config: TrialConfig) -> str:
    """Return what the pace of a configuration depends on."""
    parts = config.model_dump_json(include={"model", "tile", "batch_size", "preprocess", "precision"})
    return f"{parts} {config.loss.name} {config.optimizer.name}"


def _epoch_seconds(pace: _Pace, work: _Work) -> float:
    return work.patches * pace.patch + work.tiles * pace.tile


def _pace(config: TrialConfig, manifest: Manifest, speeds: Speeds, measured: bool) -> _Pace:
    channels, maps = output_channels(config.preprocess, manifest.channels), len(manifest.classes)
    plain = _without_weights(config)
    with runtime.fresh_session(config.precision, config.seed):
        network = build_model(plain.model, channels, maps)
        each = runtime.operations(network, (1, config.tile, config.tile, channels))
        patch = BACKWARD * each / speeds.training
        if measured:
            trainer = Trainer(plain, _noise(plain, channels, maps), seconds=2.0, maps=maps)
            patch = trainer.bare() / trainer.images
    return _Pace(patch, each / speeds.prediction)


def _without_weights(config: TrialConfig) -> TrialConfig:
    """Leave out what is downloaded or read: weights change no speed."""
    if "weights" not in config.model.params:
        return config
    model = config.model.model_copy(update={"params": config.model.params | {"weights": "none"}})
    return config.model_copy(update={"model": model})


def _noise(config: TrialConfig, channels: int, maps: int) -> list[Pair]:
    """Return an image of noise that is larger than a tile, and labels of all classes."""
    rng, side = np.random.default_rng(0), 2 * config.tile
    image = rng.random((side, side, channels), np.float32)
    mask = rng.integers(0, max(maps, 2), (side, side), np.uint8)
    return [Pair("noise", image, mask, mask if config.loss.name in BORDER_LOSSES else None)]
