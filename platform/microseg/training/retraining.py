"""Train a configuration once more, on all images: what no fold could, and nothing is left to judge it by."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from microseg.config import TrialConfig
from microseg.data.pairs import load_pairs
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.losses import BORDER_LOSSES
from microseg.models import check_tile
from microseg.runtime import fresh_session
from microseg.training.fold import build_loss, build_networks, build_schedule, draw_batches, save_network
from microseg.training.network import unfreezing
from microseg.training.results import TrainingData, fingerprint

FOLDER = "retrained"


def retrain(config: TrialConfig, data: TrainingData, fold: Fold, epochs: int, workdir: Path) -> Path:
    """Train on all images of a fold for a number of epochs, without validation and early stopping.

    The learning rate follows the schedule over ``config.epochs``, as it did in the folds, and ends where they
    were best.

    Parameters
    ----------
    config : TrialConfig
        The configuration; its schedule must not wait for a validation score.
    data : TrainingData
        The data set and its cache.
    fold : Fold
        Names of the items that train; none validate. Its index tells the seed from those of the other folds.
    epochs : int
        How long, at most ``config.epochs``.
    workdir : Path
        Of the trial; ``retrained`` in it receives the network, whole or not at all. One that is there of
        exactly this training is not trained again.

    Returns
    -------
    Path
        The ``.keras`` file.

    Raises
    ------
    MicrosegError
        If the loss ends as no finite number.
    """
    path = workdir / FOLDER / f"{fingerprint(config, data, fold)[:12]}-{epochs}.keras"
    if path.is_file():
        return path
    check_tile(config.model, config.tile)
    with fresh_session(config.precision, config.seed + fold.index):
        _train(config, data, fold, epochs, path)
    return path


def _train(config: TrialConfig, data: TrainingData, fold: Fold, epochs: int, path: Path) -> None:
    maps = len(data.manifest.classes)
    borders = config.loss.name in BORDER_LOSSES
    pairs = load_pairs(fold.train, data.manifest, data.cache, config.preprocess, borders=borders)
    networks = build_networks(config, pairs[0].image.shape[-1], maps, build_loss(config, pairs, maps))
    batches, steps = draw_batches(config, pairs, maps, config.seed + fold.index, 0)
    course = networks.training.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[build_schedule(config, networks.training), *unfreezing(networks.training, config.model)],
        verbose=0,
        shuffle=False,
    )
    if not np.isfinite(course.history["loss"][-1]):
        raise MicrosegError(
            f"training on all {len(pairs)} images diverged in {epochs} epochs, where no fold did; take the "
            "ensemble of the folds: candidate: ensemble"
        )
    save_network(networks.inference, path)
