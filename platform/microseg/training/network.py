"""A network as it is trained: a loss on every supervised head, an encoder that may be frozen at first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from microseg.components import check
from microseg.config import Component
from microseg.models import ARCHITECTURES

Loss = Callable[[Any, Any], Any]


class Networks(NamedTuple):
    """One set of weights, two views.

    ``inference`` gives the prediction, (batch, height, width, maps). ``training`` gives it too and, where
    the network has supervised heads, those behind it along the last axis.
    """

    training: keras.Model
    inference: keras.Model


def views(model: keras.Model) -> Networks:
    """Return the two views of a network from `microseg.models.build_model`."""
    if len(model.outputs) == 1:
        return Networks(model, model)
    heads = keras.layers.Concatenate(dtype="float32", name="heads")(model.outputs)
    return Networks(
        keras.Model(model.input, heads, name=model.name),
        keras.Model(model.input, model.outputs[0], name=model.name),
    )


def weights_hash(model: keras.Model) -> str:
    """Return a hash (sha256 hex) of a network's weights: equal where all of them are, bit for bit."""
    total = hashlib.sha256()
    for values in model.get_weights():
        total.update(f"{values.shape} {values.dtype} ".encode() + values.tobytes())
    return total.hexdigest()


def supervise(loss: Loss, maps: int) -> Loss:
    """Return the mean of a loss over the supervised heads, or the loss of the prediction without any.

    References
    ----------
    Lee et al. 2015, Deeply-Supervised Nets, arXiv:1409.5185.
    """

    def over_heads(y_true: Any, y_pred: Any) -> Any:
        prediction, *heads = ops.split(y_pred, y_pred.shape[-1] // maps, axis=-1)
        losses = [loss(y_true, head) for head in heads or [prediction]]
        return sum(losses[1:], losses[0]) / len(losses)

    return over_heads


def accumulating(optimizer: keras.optimizers.Optimizer, parts: int) -> keras.optimizers.Optimizer:
    """Return an optimizer that changes the weights once per some batches, by the mean of their gradients.

    Its steps, its moments and their bias correction count changes of the weights. The mean over equal parts
    is the gradient of the whole batch where the loss is a mean over samples. Where it is not, it is that of
    the mean of the parts' losses: a Dice over all pixels of a batch becomes one over those of a part,
    and a mean over the pixels that are not ignored weighs the parts equally. In float16, a part whose
    gradient overflows is left out, and the next one takes its place.
    """
    if parts == 1:
        return optimizer
    return type(optimizer).from_config(optimizer.get_config() | {"gradient_accumulation_steps": parts})


def build_optimizer(compiled: keras.Model) -> None:
    """Make the optimizer's variables, unless they are there, before the training step is traced.

    A step that makes them is traced twice, and tracing is most of what a training takes to its first step.
    """
    if not compiled.optimizer.built:
        compiled.optimizer.build(compiled.trainable_variables)


def unfreezing(compiled: keras.Model, component: Component) -> list[keras.callbacks.Callback]:
    """Return what trains an encoder along after a number of epochs, where the component asks for that.

    Its ``freeze`` is false (it trains from the start), true (never) or the number of epochs.
    """
    freeze = check(component, ARCHITECTURES, "model").get("freeze", False)  # YAML may say "true" in quotes
    return [] if isinstance(freeze, bool) else [Unfreeze(compiled, freeze)]


def _frozen(model: keras.Model) -> list[keras.Model]:
    return [layer for layer in model.layers if isinstance(layer, keras.Model) and not layer.trainable]


def _set_trainable(encoders: list[keras.Model], trainable: bool) -> None:
    for encoder in encoders:
        encoder.trainable = trainable


class Unfreeze(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Train a frozen encoder along after a number of epochs.

    The optimizer is built for all weights from the start, so that its moments for the decoder survive;
    it refuses weights that it meets later.
    """

    def __init__(self, compiled: keras.Model, epochs: int) -> None:
        super().__init__()
        self.encoders, self.epochs = _frozen(compiled), epochs
        _set_trainable(self.encoders, True)
        compiled.optimizer.build(compiled.trainable_variables)
        _set_trainable(self.encoders, False)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Unfreeze when it is time, or was before; the compiled training step has the old list of weights."""
        if epoch >= self.epochs and not all(encoder.trainable for encoder in self.encoders):
            _set_trainable(self.encoders, True)
            self.model.make_train_function(force=True)
