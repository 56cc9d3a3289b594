"""The members of an ensemble as one network in float32, which any runtime can take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

REDUCED = ("mixed_bfloat16", "mixed_float16")


class Mean(keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """The mean of what several networks say of the same image."""

    def __init__(self, members: Sequence[keras.Model], **options: Any) -> None:
        super().__init__(**options)
        self.members = list(members)

    def call(self, image: Any) -> Any:
        """Return the mean of the members' probabilities."""
        return sum(member(image, training=False) for member in self.members) / len(self.members)


def in_float32(model: keras.Model) -> keras.Model:
    """Return a network with the same weights that computes in float32, as ONNX and other runtimes want."""
    text = json.dumps(keras.saving.serialize_keras_object(model))
    if not any(policy in text for policy in REDUCED):
        return model
    for policy in REDUCED:
        text = text.replace(f'"{policy}"', '"float32"')
    plain = keras.saving.deserialize_keras_object(json.loads(text), safe_mode=True)
    plain.set_weights(model.get_weights())
    return plain


def one_network(members: Sequence[keras.Model]) -> keras.Model:
    """Return the mean of several networks as one, from ``image`` to ``probability``.

    Parameters
    ----------
    members : sequence of keras.Model
        From (batch, height, width, channels) to (batch, height, width, maps).
    """
    image = keras.Input(members[0].inputs[0].shape[1:], name="image")
    mean = Mean([in_float32(member) for member in members], dtype="float32", name="probability")
    return keras.Model(image, mean(image), name="microseg")


def sample(network: keras.Model, tile: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a made-up preprocessed image, (1, side, side, channels): smooth, so that a network sees objects.

    The side is the tile, or the only one that the network takes.
    """
    _, height, width, channels = network.inputs[0].shape
    rng = np.random.default_rng(seed)
    coarse = rng.random((1, 8, 8, channels), np.float32)
    blurred = keras.ops.image.resize(coarse, (height or tile, width or tile), interpolation="bicubic")
    return np.clip(np.asarray(blurred, np.float32), 0.0, 1.0)
