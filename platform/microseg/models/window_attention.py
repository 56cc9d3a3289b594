"""Self-attention within windows of a feature map: the one layer that Keras does not have."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from microseg.models.blocks import Tensor

PADDING = 2  # the label of positions that are not in the map, see `_labels`
# Not minus infinity: a softmax over nothing but masked scores would be NaN.
MASKED = -1e9


def relative_positions(window: int) -> NDArray[np.int32]:
    """Return for every pair of positions in a window the column of the bias table for their offset.

    Parameters
    ----------
    window : int
        Side of the window, in positions.

    Returns
    -------
    ndarray of int32, shape (window ** 2, window ** 2)
        Query by key, in [0, (2 window - 1) ** 2).
    """
    row, column = np.divmod(np.arange(window**2, dtype=np.int32), window)
    down, right = (axis[:, None] - axis[None, :] + window - 1 for axis in (row, column))
    positions: NDArray[np.int32] = down * (2 * window - 1) + right
    return positions


@keras.saving.register_keras_serializable("microseg")
class WindowAttention(layers.Layer):  # type: ignore[misc]  # Keras is not typed
    """Multi-head self-attention within windows, with a learned bias per relative position.

    The input holds queries, keys and values, so that their projection stays an ordinary layer. Windows
    that are shifted wrap around the map's border; a mask keeps what meets there apart, and the padding
    that makes the map a multiple of the window out.

    Parameters
    ----------
    heads : int
        Number of attention heads; divides the channels.
    window : int
        Side of a window, in positions.
    shift : int
        By how many positions the windows are shifted to the lower right, in [0, window); along an axis
        of a single window there is no shift.

    References
    ----------
    Liu et al. 2021, Swin Transformer, DOI 10.1109/ICCV48922.2021.00986, arXiv:2103.14030.
    """

    def __init__(self, heads: int, window: int, shift: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.heads = heads
        self.window = window
        self.shift = shift

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the bias table: one row per head, one column per offset of query and key."""
        self.bias = self.add_weight(
            shape=(self.heads, (2 * self.window - 1) ** 2),
            initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            name="relative_position_bias",
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the values: a third of the input's channels."""
        *positions, channels = input_shape
        return (*positions, None if channels is None else channels // 3)

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is built from."""
        return {
            **super().get_config(),
            "heads": self.heads,
            "window": self.window,
            "shift": self.shift,
        }

    def call(self, x: Tensor) -> Tensor:
        """Attend.

        Parameters
        ----------
        x : tensor, shape (batch, height, width, 3 channels)
            Queries, keys and values, of any height and width.

        Returns
        -------
        tensor, shape (batch, height, width, channels)
            The values, weighted.
        """
        height, width = ops.shape(x)[1:3]
        # Plain arithmetic: within a TensorFlow graph these are tensors, elsewhere integers.
        across = [-(-side // self.window) for side in (height, width)]
        padded = [count * self.window for count in across]
        shifts = [self.shift * (1 - 1 // count) for count in across]
        x = ops.pad(x, [[0, 0], [0, padded[0] - height], [0, padded[1] - width], [0, 0]])
        x = ops.roll(x, [-shift for shift in shifts], axis=(1, 2))
        labels = _labels(height, padded[0], shifts[0])[:, None] * 3 + _labels(width, padded[1], shifts[1])
        windows = self._partition(x, across)
        attended = self._attend(windows, self._partition(labels[None, :, :, None], across))
        x = self._join(attended, across)
        return ops.roll(x, shifts, axis=(1, 2))[:, :height, :width]

    def _partition(self, x: Tensor, across: list[Any]) -> Tensor:
        """Cut a map into windows: (batch, windows, positions of a window, channels)."""
        side, channels = self.window, x.shape[-1]
        x = ops.reshape(x, (-1, across[0], side, across[1], side, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, across[0] * across[1], side * side, channels))

    def _join(self, x: Tensor, across: list[Any]) -> Tensor:
        """Undo `_partition`."""
        side, channels = self.window, x.shape[-1]
        x = ops.reshape(x, (-1, across[0], across[1], side, side, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, across[0] * side, across[1] * side, channels))

    def _attend(self, windows: Tensor, labels: Tensor) -> Tensor:
        """Attend within each window, between positions of the same label.

        The softmax is in float32 under every precision policy.
        """
        positions, channels = self.window**2, windows.shape[-1] // 3
        per_head = channels // self.heads
        x = ops.reshape(windows, (-1, ops.shape(windows)[1], positions, 3, self.heads, per_head))
        query, key, value = ops.unstack(ops.transpose(x, (3, 0, 1, 4, 2, 5)), 3)
        scores = ops.matmul(query * per_head**-0.5, ops.swapaxes(key, -1, -2))
        bias = ops.take(self.bias, relative_positions(self.window), axis=1)
        scores = ops.cast(scores, "float32") + ops.cast(bias, "float32")
        together = ops.equal(labels, ops.swapaxes(labels, -1, -2))[:, :, None]
        weights = ops.softmax(ops.where(together, scores, MASKED))
        attended = ops.matmul(ops.cast(weights, value.dtype), value)
        attended = ops.transpose(attended, (0, 1, 3, 2, 4))
        return ops.reshape(attended, (-1, ops.shape(windows)[1], positions, channels))


def _labels(size: Any, padded: Any, shift: Any) -> Tensor:
    """Label the positions of a padded and rolled axis: 0 the map, 1 what wrapped around, 2 padding.

    In one window only positions of the same label are neighbours in the map.
    """
    position = ops.arange(padded, dtype="int32")
    wrapped = ops.cast(position >= padded - shift, "int32")
    return ops.where((position + shift) % padded < size, wrapped, PADDING)
