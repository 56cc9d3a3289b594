"""Train one fold, or all folds of a trial."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from microseg.augment import augmenter
from microseg.components import bind, create
from microseg.config import TrialConfig
from microseg.data.pipeline import Pair, Sampling, epoch_steps, load_pairs, training_batches
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.losses import LOSSES
from microseg.metrics import PooledConfusion
from microseg.models import build_model, stride
from microseg.optimizers import OPTIMIZERS
from microseg.runtime import fresh_session, peak_memory_mib
from microseg.training.callbacks import FullImageValidation, Reporter, StopOnDivergence
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
    early: keras.callbacks.EarlyStopping
    reporter: Reporter


def check_tile(config: TrialConfig) -> None:
    """Refuse a training tile that the network's down-sampling does not divide.

    Raises
    ------
    MicrosegError
        If it does not, or if the model does not fit its table.
    """
    step = stride(config.model)
    if config.tile % step:
        raise MicrosegError(
            f"tile is {config.tile} pixels, but model '{config.model.name}' as given needs a multiple of "
            f"{step}; use {(config.tile // step + 1) * step}, or less depth"
        )


def _compiled(config: TrialConfig, channels: int, maps: int, loss: Callable[..., Any]) -> keras.Model:
    model = build_model(config.model, channels, maps)
    model.compile(
        optimizer=create(config.optimizer, OPTIMIZERS, "optimizer"),
        loss=loss,
        metrics=[PooledConfusion(maps, config.threshold)],
        jit_compile=False,  # XLA is slower on CPUs, and it compiles again for every new shape
    )
    return model


def _batches(config: TrialConfig, pairs: Sequence[Pair], maps: int, seed: int) -> tuple[Any, int]:
    steps = config.steps_per_epoch or epoch_steps(pairs, config.tile, config.batch_size)
    sampling = Sampling(config.tile, config.batch_size, steps, seed)
    augment = augmenter(config.augment)
    return training_batches(pairs, sampling, augment, maps, range(config.epochs)), steps


def _state(concerns: _Concerns, best: int) -> State:
    if concerns.divergence.diverged:
        return "diverged"
    return "collapsed" if concerns.validation.evaluations[best].collapsed else "completed"


def _save(model: keras.Model, path: Path) -> None:
    """Save for inference only: what a model was compiled with need not exist where it is loaded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")  # Keras wants the suffix
    keras.Model(model.inputs, model.outputs, name=model.name).save(partial)
    partial.replace(path)


def train_fold(
    config: TrialConfig, data: TrainingData, fold: Fold, workdir: Path, report: Report
) -> FoldResult:
    """Train one fold with early stopping on ``val/dice`` and keep the weights of its best epoch.

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
        whole validation images.

    Raises
    ------
    MicrosegError
        If the configuration or the fold cannot be trained.
    """
    check_tile(config)
    if not fold.train or not fold.valid:
        raise MicrosegError(f"fold {fold.index} needs images to train and to validate; use fewer folds")
    with fresh_session(config.precision, config.seed + fold.index):
        return _train(config, data, fold, workdir, report)


def _train(config: TrialConfig, data: TrainingData, fold: Fold, workdir: Path, report: Report) -> FoldResult:
    start = time.monotonic()
    manifest, maps = data.manifest, len(data.manifest.classes)
    train, valid = (
        load_pairs(names, manifest, data.cache, config.preprocess) for names in (fold.train, fold.valid)
    )
    loss = bind(config.loss, LOSSES, "loss")
    model = _compiled(config, manifest.channels, maps, loss)
    batches, steps = _batches(config, train, maps, config.seed + fold.index)
    concerns = _Concerns(
        FullImageValidation(valid, config, loss),
        StopOnDivergence(),
        keras.callbacks.EarlyStopping(
            "val/dice", mode="max", patience=config.patience, restore_best_weights=True
        ),
        Reporter(fold.index, valid, config, report),
    )
    model.fit(
        batches,
        epochs=config.epochs,
        steps_per_epoch=steps,
        callbacks=list(concerns),
        verbose=0,
        shuffle=False,
    )

    best, history = concerns.early.best_epoch, concerns.reporter.history
    folder = fold_folder(workdir, fold)
    _save(model, folder / MODEL)
    result = FoldResult(
        fold=fold.index,
        state=_state(concerns, best),
        best_epoch=best + 1,
        epochs=len(history),
        metrics=history[best],
        per_image=concerns.validation.evaluations[best].per_image,
        seconds=time.monotonic() - start,
        parameters=model.count_params(),
        peak_memory_mib=peak_memory_mib(),
        model=folder / MODEL,
        history=history,
        fingerprint=fingerprint(config, data, fold),
    )
    write_result(result, folder)
    samples = draw_samples(model, concerns.reporter.shown, config)
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
