"""Train one fold, from where an interrupted training of it stopped."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from microseg.augment import augmenter
from microseg.components import bind, create
from microseg.config import TrialConfig
from microseg.data.pairs import Pair, load_pairs
from microseg.data.pipeline import Sampling, epoch_steps, training_batches
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.losses import BORDER_LOSSES, LOSSES, balance
from microseg.metrics import PooledConfusion, better
from microseg.models import build_model, check_tile
from microseg.optimizers import OPTIMIZERS
from microseg.runtime import fresh_session, peak_gpu_memory_mib, peak_memory_mib
from microseg.schedules import SCHEDULES, Plan
from microseg.training.callbacks import (
    FullImageValidation,
    Record,
    Reporter,
    StopOnDivergence,
    diverged,
)
from microseg.training.checkpoint import Checkpoints, discard, identity
from microseg.training.measurement import UNMEASURED, measure
from microseg.training.network import (
    Loss,
    Networks,
    accumulating,
    build_optimizer,
    supervise,
    unfreezing,
    views,
    weights_hash,
)
from microseg.training.results import (
    MODEL,
    FoldResult,
    Progress,
    Report,
    State,
    TrainingData,
    fingerprint,
    fold_folder,
    replay,
    write_result,
)
from microseg.training.validation import draw_samples, shown


class _Concerns(NamedTuple):
    """The callbacks of a training, in the order in which they see an epoch's logs."""

    validation: FullImageValidation
    schedule: keras.callbacks.Callback
    early: keras.callbacks.EarlyStopping
    record: Record
    divergence: StopOnDivergence


def _pairs(config: TrialConfig, data: TrainingData, fold: Fold) -> tuple[list[Pair], list[Pair]]:
    """Load what trains and what validates."""
    train, valid = (
        load_pairs(
            names,
            data.manifest,
            data.cache,
            config.preprocess,
            borders=config.loss.name in BORDER_LOSSES,
        )
        for names in (fold.train, fold.valid)
    )
    return train, valid


def build_loss(config: TrialConfig, train: Sequence[Pair], maps: int) -> Loss:
    """Return the loss, with class weights from the training pixels where they are asked for."""
    return bind(balance(config.loss, lambda: class_pixels(train, max(maps, 2))), LOSSES, "loss")


def class_pixels(pairs: Sequence[Pair], classes: int) -> list[float]:
    """Return the pixels of each class, background first; those that are ignored count nowhere."""
    return [float(sum(np.count_nonzero(pair.mask == value) for pair in pairs)) for value in range(classes)]


def build_networks(config: TrialConfig, channels: int, maps: int, loss: Loss) -> Networks:
    """Build the network and compile the view of it that is trained."""
    networks = views(build_model(config.model, channels, maps))
    optimizer = create(config.optimizer, OPTIMIZERS, "optimizer")
    networks.training.compile(
        optimizer=accumulating(optimizer, config.accumulation),
        loss=supervise(loss, maps),
        metrics=[PooledConfusion(maps, config.threshold)],
        jit_compile=False,  # XLA is slower on CPUs, and it compiles again for every new shape
    )
    return networks


def draw_batches(
    config: TrialConfig, pairs: Sequence[Pair], maps: int, seed: int, first: int
) -> tuple[Any, int]:
    """Return the batches from an epoch on (from 0), or the parts of them, and how many an epoch has."""
    steps = config.steps_per_epoch or epoch_steps(pairs, config.tile, config.batch_size)
    part, parts = config.batch_size // config.accumulation, steps * config.accumulation
    sampling = Sampling(config.tile, part, parts, seed, config.foreground)
    # Where no epoch is left, Keras draws a batch all the same, and builds from it.
    epochs = range(min(first, config.epochs - 1), config.epochs)
    return training_batches(pairs, sampling, augmenter(config.augment), maps, epochs), parts


def build_schedule(config: TrialConfig, compiled: keras.Model) -> keras.callbacks.Callback:
    """Return what changes the learning rate of a compiled model, over all epochs that it may train."""
    rate = float(compiled.optimizer.learning_rate)
    plan = Plan(rate, config.epochs, config.monitor, better(config.monitor))
    return create(config.schedule, SCHEDULES, "schedule", plan)


def _concerns(config: TrialConfig, valid: Sequence[Pair], networks: Networks, loss: Loss) -> _Concerns:
    validation = FullImageValidation(networks.inference, valid, config, loss)
    early = keras.callbacks.EarlyStopping(
        config.monitor, mode=better(config.monitor), patience=config.patience, restore_best_weights=True
    )
    record = Record(validation, early)
    schedule = build_schedule(config, networks.training)
    return _Concerns(validation, schedule, early, record, StopOnDivergence(record))


def _state(record: Record) -> State:
    if diverged(record.history[-1]):
        return "diverged"
    return "collapsed" if record.best.collapsed else "completed"


def save_network(model: keras.Model, path: Path) -> None:
    """Save for inference only: what a model was compiled with need not exist where it is loaded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")  # Keras wants the suffix
    keras.Model(model.input, model.output, name=model.name).save(partial)
    partial.replace(path)


def train_fold(
    config: TrialConfig, data: TrainingData, fold: Fold, workdir: Path, report: Report
) -> FoldResult:
    """Train one fold with early stopping on ``config.monitor`` and keep the weights of its best epoch.

    Parameters
    ----------
    config : TrialConfig
        The configuration.
    data : TrainingData
        The data set and its cache.
    fold : Fold
        Names of the items that train and validate.
    workdir : Path
        ``fold-<index>`` in it receives ``model.keras`` and, last, ``result.json``, each whole or not at all,
        and meanwhile a checkpoint after every epoch. A training of exactly this fold that was interrupted
        there goes on from its last checkpoint, to the same end.
    report : callable
        Called with a `Progress` once per epoch, when its checkpoint is written, and once at the end. The
        epochs before an interruption come first, as ``replayed``. What it raises ends the training and
        passes through.

    Returns
    -------
    FoldResult
        Metrics of the best epoch: ``train/...`` pooled over the epoch's patches, ``val/...`` means over
        whole validation images, and what `measure` adds for the network that is kept.

    Raises
    ------
    MicrosegError
        If the configuration or the fold cannot be trained.
    """
    check_tile(config.model, config.tile)
    if not fold.train or not fold.valid:
        raise MicrosegError(f"fold {fold.index} needs images to train and to validate; use fewer folds")
    with fresh_session(config.precision, config.seed + fold.index):
        return _train(config, data, fold, workdir, report)


def _train(config: TrialConfig, data: TrainingData, fold: Fold, workdir: Path, report: Report) -> FoldResult:
    start, maps, folder = time.monotonic(), len(data.manifest.classes), fold_folder(workdir, fold)
    train, valid = _pairs(config, data, fold)
    loss = build_loss(config, train, maps)
    networks = build_networks(config, train[0].image.shape[-1], maps, loss)
    concerns = _concerns(config, valid, networks, loss)
    exact = identity(fingerprint(config, data, fold), config.accumulation, networks.training)
    checkpoints = Checkpoints(folder, exact, start, concerns.record, concerns.schedule)
    replay(concerns.record.history, fold, report)
    first = config.epochs if checkpoints.stopped else len(concerns.record.history)
    batches, steps = draw_batches(config, train, maps, config.seed + fold.index, first)
    draw = functools.partial(draw_samples, networks.inference, shown(valid), config)
    reporter = Reporter(fold.index, concerns.record, draw, report)
    unfreeze = unfreezing(networks.training, config.model)  # it builds the optimizer for frozen weights too
    build_optimizer(networks.training)
    networks.training.fit(
        batches,
        epochs=config.epochs,
        initial_epoch=first,
        steps_per_epoch=steps,
        callbacks=[*concerns, checkpoints, reporter, *unfreeze],
        verbose=0,
        shuffle=False,
    )
    save_network(networks.inference, folder / MODEL)
    result = _result(config, data, fold, concerns, checkpoints, folder / MODEL)
    write_result(result, folder)
    discard(checkpoints.folder)
    report(Progress(fold.index, result.best_epoch, result.metrics, draw(), result))
    return result


def _result(
    config: TrialConfig,
    data: TrainingData,
    fold: Fold,
    concerns: _Concerns,
    checkpoints: Checkpoints,
    model: Path,
) -> FoldResult:
    """Judge the network that is kept; its weights are those of the best epoch by now."""
    record, network, state = concerns.record, concerns.validation.network, _state(concerns.record)
    best = concerns.early.best_epoch
    further = (
        measure(network, concerns.validation.pairs, config, data) if state == "completed" else UNMEASURED
    )
    return FoldResult(
        fold=fold.index,
        state=state,
        best_epoch=best + 1,
        epochs=len(record.history),
        metrics=record.history[best] | further.metrics,
        per_image=record.best.per_image,
        seconds=checkpoints.seconds,
        cpu_seconds=checkpoints.cpu_seconds,
        parameters=network.count_params(),
        peak_memory_mib=peak_memory_mib(),
        gpu_memory_mib=peak_gpu_memory_mib(),
        calibration=further.calibration,
        model=model,
        history=record.history,
        fingerprint=fingerprint(config, data, fold),
        weights=weights_hash(network),
    )
