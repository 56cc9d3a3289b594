"""Train one fold, or all folds of a trial."""

from __future__ import annotations

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
from microseg.data.masks import IGNORE
from microseg.data.pairs import Pair, load_pairs
from microseg.data.pipeline import Sampling, epoch_steps, training_batches
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.losses import BORDER_LOSSES, LOSSES, balance
from microseg.metrics import PooledConfusion, better
from microseg.models import build_model, check_tile
from microseg.optimizers import OPTIMIZERS
from microseg.runtime import fresh_session, peak_memory_mib
from microseg.schedules import SCHEDULES, Plan
from microseg.training.callbacks import FullImageValidation, Reporter, StopOnDivergence
from microseg.training.measurement import measure
from microseg.training.network import Loss, Networks, supervise, unfreezing, views
from microseg.training.results import (
    MODEL,
    FoldResult,
    Progress,
    Report,
    State,
    TrainingData,
    TrialResult,
    fingerprint,
    finished_fold,
    fold_folder,
    write_result,
)
from microseg.training.validation import draw_samples


class _Concerns(NamedTuple):
    """The callbacks of a training, in the order in which they see an epoch's logs."""

    validation: FullImageValidation
    divergence: StopOnDivergence
    schedule: keras.callbacks.Callback
    early: keras.callbacks.EarlyStopping
    reporter: Reporter


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


def _loss(config: TrialConfig, train: Sequence[Pair], maps: int) -> Loss:
    """Return the loss, with class weights from the training pixels where they are asked for."""
    counts = sum(np.bincount(pair.mask.ravel(), minlength=IGNORE + 1) for pair in train)
    frequency = np.asarray(counts)[: max(maps, 2)] / max(1, np.sum(np.asarray(counts)[:IGNORE]))
    return bind(balance(config.loss, frequency.tolist()), LOSSES, "loss")


def _networks(config: TrialConfig, channels: int, maps: int, loss: Loss) -> Networks:
    """Build the network and compile the view of it that is trained."""
    networks = views(build_model(config.model, channels, maps))
    networks.training.compile(
        optimizer=create(config.optimizer, OPTIMIZERS, "optimizer"),
        loss=supervise(loss, maps),
        metrics=[PooledConfusion(maps, config.threshold)],
        jit_compile=False,  # XLA is slower on CPUs, and it compiles again for every new shape
    )
    return networks


def _batches(config: TrialConfig, pairs: Sequence[Pair], maps: int, seed: int) -> tuple[Any, int]:
    steps = config.steps_per_epoch or epoch_steps(pairs, config.tile, config.batch_size)
    sampling = Sampling(config.tile, config.batch_size, steps, seed, config.foreground)
    augment = augmenter(config.augment)
    return training_batches(pairs, sampling, augment, maps, range(config.epochs)), steps


def _schedule(config: TrialConfig, compiled: keras.Model) -> keras.callbacks.Callback:
    rate = float(compiled.optimizer.learning_rate)
    plan = Plan(rate, config.epochs, config.monitor, better(config.monitor))
    return create(config.schedule, SCHEDULES, "schedule", plan)


def _concerns(
    config: TrialConfig, fold: Fold, valid: Sequence[Pair], networks: Networks, loss: Loss, report: Report
) -> _Concerns:
    return _Concerns(
        FullImageValidation(networks.inference, valid, config, loss),
        StopOnDivergence(),
        _schedule(config, networks.training),
        keras.callbacks.EarlyStopping(
            config.monitor,
            mode=better(config.monitor),
            patience=config.patience,
            restore_best_weights=True,
        ),
        Reporter(networks.inference, fold.index, valid, config, report),
    )


def _state(concerns: _Concerns, best: int) -> State:
    if concerns.divergence.diverged:
        return "diverged"
    return "collapsed" if concerns.validation.evaluations[best].collapsed else "completed"


def _save(model: keras.Model, path: Path) -> None:
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
        ``fold-<index>`` in it receives ``model.keras`` and, last, ``result.json``, each whole or not at all.
    report : callable
        Called with a `Progress` once per epoch and once at the end. What it raises ends the training
        and passes through.

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
    start = time.monotonic()
    maps = len(data.manifest.classes)
    train, valid = _pairs(config, data, fold)
    loss = _loss(config, train, maps)
    networks = _networks(config, train[0].image.shape[-1], maps, loss)
    batches, steps = _batches(config, train, maps, config.seed + fold.index)
    concerns = _concerns(config, fold, valid, networks, loss, report)
    networks.training.fit(
        batches,
        epochs=config.epochs,
        steps_per_epoch=steps,
        callbacks=[*concerns, *unfreezing(networks.training, config.model)],
        verbose=0,
        shuffle=False,
    )

    best, history = concerns.early.best_epoch, concerns.reporter.history
    network, folder, state = networks.inference, fold_folder(workdir, fold), _state(concerns, best)
    _save(network, folder / MODEL)
    further = measure(network, valid, config, data) if state == "completed" else {}
    result = FoldResult(
        fold=fold.index,
        state=state,
        best_epoch=best + 1,
        epochs=len(history),
        metrics=history[best] | further,
        per_image=concerns.validation.evaluations[best].per_image,
        seconds=time.monotonic() - start,
        parameters=network.count_params(),
        peak_memory_mib=peak_memory_mib(),
        model=folder / MODEL,
        history=history,
        fingerprint=fingerprint(config, data, fold),
    )
    write_result(result, folder)
    samples = draw_samples(network, concerns.reporter.shown, config)
    report(Progress(fold.index, result.best_epoch, result.metrics, samples, result))
    return result


def run_trial(
    config: TrialConfig, data: TrainingData, folds: Sequence[Fold], workdir: Path, report: Report
) -> TrialResult:
    """Train the folds of a configuration in order; a fold that was finished here before is not trained again.

    Such a fold is reported once, with its result and without samples. A fold that diverged or
    collapsed is the last: no mean over all folds can come of it.

    Parameters
    ----------
    config, data, workdir, report
        As in `train_fold`.
    folds : sequence of Fold
        In the order in which they are trained.
    """
    results = []
    for fold in folds:
        done = finished_fold(config, data, fold, workdir)
        if done:
            report(Progress(fold.index, done.best_epoch, done.metrics, (), done))
        results.append(done or train_fold(config, data, fold, workdir, report))
        if results[-1].state != "completed":
            break
    return TrialResult(folds=tuple(results))
