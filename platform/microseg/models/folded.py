"""Batch normalisation as a part of the convolution before it: an equal network, faster in prediction.

In prediction the normalisation is a factor and a shift for each channel, which the kernel and the bias take
in. What is left out is a pass over every activation, in float32 even where all else has 16 bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

# The axis of the kernel that counts the convolution's output channels.
_OUTPUT_AXIS = {keras.layers.Conv2D: -1, keras.layers.Conv2DTranspose: -2}


class _Couple(NamedTuple):
    """A convolution and the normalisation of what it gives to nobody else."""

    convolution: keras.Layer
    normalisation: keras.Layer

    def weights(self) -> list[NDArray[np.float32]]:
        """Return kernel and bias that do the work of both."""
        kernel, *bias = self.convolution.get_weights()
        norm = self.normalisation
        mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
        factor = 1.0 / np.sqrt(variance.astype(np.float64) + norm.epsilon)
        factor = factor * np.asarray(norm.gamma) if norm.scale else factor
        shift = (bias[0] if bias else 0.0) - mean.astype(np.float64)
        shift = shift * factor + (np.asarray(norm.beta) if norm.center else 0.0)
        along = np.expand_dims(factor, -1) if _OUTPUT_AXIS[type(self.convolution)] == -2 else factor
        return [(kernel * along).astype(np.float32), shift.astype(np.float32)]


def folded(network: keras.Model) -> keras.Model:
    """Return a network for prediction in which convolutions do the work of the normalisation behind them.

    Its probabilities are those of the given one but for rounding. Normalisation behind anything else, or of
    what others read too, stays.

    Parameters
    ----------
    network : keras.Model
        It is left as it is. A ``Sequential`` one, as some import, is returned.

    References
    ----------
    Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference, arXiv:1712.05877, section 3.2.
    """
    if isinstance(network, keras.Sequential):
        return network
    couples = [couple for layer in network.layers if (couple := _couple(layer, network)) is not None]
    convolutions = {couple.convolution.name: couple for couple in couples}
    normalisations = {couple.normalisation.name for couple in couples}

    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.Model):
            return folded(layer)
        config = layer.get_config()
        return type(layer).from_config(config | {"use_bias": True} if layer.name in convolutions else config)

    def call(layer: keras.Layer, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if layer.name in normalisations else layer(*inputs, **options)

    result = keras.models.clone_model(network, clone_function=clone, call_function=call)
    for layer in network.layers:
        if layer.name in convolutions:
            result.get_layer(layer.name).set_weights(convolutions[layer.name].weights())
        elif layer.weights and layer.name not in normalisations and not isinstance(layer, keras.Model):
            result.get_layer(layer.name).set_weights(layer.get_weights())
    return result


def _couple(layer: keras.Layer, network: keras.Model) -> _Couple | None:
    """Return a normalisation with the convolution that only it follows, or None."""
    if not isinstance(layer, keras.layers.BatchNormalization) or len(layer._inbound_nodes) != 1:
        return None
    before: Any = layer.input._keras_history.operation
    foldable = (
        type(before) in _OUTPUT_AXIS
        and before.activation is keras.activations.linear
        and len(before._inbound_nodes) == len(before._outbound_nodes) == 1
        and all(before.output is not output for output in network.outputs)
        and layer.axis in (-1, 3)
    )
    return _Couple(before, layer) if foldable else None
