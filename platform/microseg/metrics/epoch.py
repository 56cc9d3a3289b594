"""The metric that Keras accumulates over the training patches of an epoch."""

from __future__ import annotations

import keras
from keras import ops

from microseg.metrics.counts import METRICS, Counts, Tensor


class PooledConfusion(keras.metrics.Metric):  # type: ignore[misc] # Keras has no types
    """All metrics from the confusion counts pooled over an epoch's training patches.

    Negative targets are ignored. The mean over the foreground classes is reported. Counts are float32:
    past 16.7 million pixels a batch's count is rounded to some pixels, which no metric shows.
    """

    def __init__(self, maps: int, threshold: float) -> None:
        super().__init__(name="pooled", dtype="float32")
        self.maps, self.threshold = maps, threshold
        shape = (4, max(maps - 1, 1))
        self.counts = self.add_variable(shape, initializer="zeros", name="counts")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Add a batch of targets and probabilities, shape (batch, height, width, at least maps).

        Channels beyond the maps, such as the distances of a border loss, are not read.
        """
        y_true, y_pred = y_true[..., : self.maps], y_pred[..., : self.maps]
        valid = ops.cast(y_true[..., :1] >= 0, "float32")
        if self.maps == 1:
            truth = ops.cast(y_true > 0.5, "float32")
            found = ops.cast(y_pred >= self.threshold, "float32")
        else:
            truth = ops.cast(y_true[..., 1:] > 0.5, "float32")
            found = ops.one_hot(ops.argmax(y_pred, axis=-1), self.maps, dtype="float32")[..., 1:]
        truth, found = truth * valid, found * valid
        total, true, positive, tp = (ops.sum(x, axis=(0, 1, 2)) for x in (valid, truth, found, truth * found))
        self.counts.assign_add(ops.stack([tp, positive - tp, true - tp, total - true - positive + tp]))

    def result(self) -> dict[str, Tensor]:
        """Return every metric of ``METRICS`` by name."""
        counts = Counts(*ops.unstack(ops.convert_to_tensor(self.counts), 4))
        return {name: ops.mean(score(counts)) for name, score in METRICS.items()}
