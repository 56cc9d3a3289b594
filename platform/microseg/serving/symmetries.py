"""Predictions averaged over the symmetries of a square; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microseg.tiling import Predict


def over_symmetries(predict: Predict) -> Predict:
    """Return what predicts the mean over the 8 symmetries of a square: turned and mirrored, and turned back.

    Each batch goes through ``predict`` eight times. The result turns with the image, whatever ``predict``
    does.

    References
    ----------
    Test-time augmentation: Ronneberger et al. 2015, arXiv:1505.04597; Moshkov et al. 2020,
    DOI 10.1038/s41598-020-61808-3.
    """

    def mean(batch: NDArray[np.generic]) -> NDArray[np.floating]:
        answers = []
        for turns in range(4):
            turned = np.rot90(batch, turns, axes=(1, 2))
            plain = np.asarray(predict(np.ascontiguousarray(turned)), np.float32)
            mirrored = np.asarray(predict(np.ascontiguousarray(turned[:, :, ::-1])), np.float32)
            answers.append(np.rot90(plain + mirrored[:, :, ::-1], -turns, axes=(1, 2)))
        return np.asarray(np.sum(answers, axis=0) / np.float32(8))

    return mean
