"""Train a configuration once more, on all images: what no fold could, and nothing is left to judge it by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from microseg.config import TrialConfig
from microseg.data.pairs import Pair, load_pairs
from microseg.errors import MicrosegError
from microseg.folds import Fold, evenly
from microseg.losses import BORDER_LOSSES
from microseg.metrics import better
from microseg.models import check_tile
from microseg.runtime import fresh_session
from microseg.training.fold import build_loss, build_networks, build_schedule, draw_batches, save_network
from microseg.training.network import Loss, Networks, build_optimizer, unfreezing
from microseg.training.results import TrainingData, fingerprint
from microseg.training.validation import evaluate_images

FOLDER = "retrained"
LAST = 3  # the network is one of the last third of the epochs
_LOOKED_AT = 20  # training images that tell an unsteady epoch from the others


class KeepSteady(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Keep the weights of that of the last epochs which does best on training images, predicted whole.

    From one epoch to the next the averages of batch normalisation may lose 0.1 of Dice and win it back. Early
    stopping passes such an epoch over; without validation images, those of the training show it too.
    """

    def __init__(
        self, networks: Networks, pairs: Sequence[Pair], config: TrialConfig, loss: Loss, first: int
    ) -> None:
        super().__init__()
        self.network, self.config, self.loss, self.first = networks.inference, config, loss, first
        self.pairs = evenly(pairs, _LOOKED_AT)
        self.best, self.weights = -np.inf, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at an epoch, if it is one of the last."""
        if epoch < self.first:
            return
        metrics = evaluate_images(self.network, self.pairs, self.config, self.loss).metrics
        score = metrics[self.config.monitor] * (1 if better(self.config.monitor) == "max" else -1)
        if score > self.best:
            self.best, self.weights = score, self.network.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Return to the epoch that was kept."""
        if self.weights is not None:  # not where every score was no number
            self.network.set_weights(self.weights)


def retrain(config: TrialConfig, data: TrainingData, fold: Fold, epochs: int, workdir: Path) -> Path:
    """Train on all images of a fold for a number of epochs, without validation and early stopping.

    The learning rate follows the schedule over ``config.epochs``, as it did in the folds, and ends where they
    were best. Of the last third of the epochs the network is kept that does best on the training images.

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
    loss = build_loss(config, pairs, maps)
    networks = build_networks(config, pairs[0].image.shape[-1], maps, loss)
    batches, steps = draw_batches(config, pairs, maps, config.seed + fold.index, 0)
    unfreeze = unfreezing(networks.training, config.model)
    build_optimizer(networks.training)
    course = networks.training.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=[
            build_schedule(config, networks.training),
            KeepSteady(networks, pairs, config, loss, epochs - max(1, epochs // LAST)),
            *unfreeze,
        ],
        verbose=0,
        shuffle=False,
    )
    if not np.isfinite(course.history["loss"][-1]):
        raise MicrosegError(
            f"training on all {len(pairs)} images diverged in {epochs} epochs, where no fold did; take the "
            "ensemble of the folds: candidate: ensemble"
        )
    save_network(networks.inference, path)
