"""Make a loaded network what the platform serves: one image in, one map of probabilities per class out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from microseg.config import TrialConfig, did_you_mean
from microseg.errors import MicrosegError
from microseg.training import predict_image

DEFAULT_TILE = 256
_ROUNDING = 1e-3  # by which a probability may leave 0..1, in 16-bit precision for instance


def one_output(model: keras.Model, name: str, path: Path) -> keras.Model:
    """Return the network from its only image to one of its outputs.

    Parameters
    ----------
    model : keras.Model
        As loaded.
    name : str
        Of the output; empty for the only one.
    path : Path
        Named in errors.

    Raises
    ------
    MicrosegError
        If there are several inputs, several outputs and no name, no output of that name, or if one of the
        two is no image of shape (height, width, channels), channels last.
    """
    outputs = dict(zip(model.output_names, model.outputs, strict=True))
    if not name and len(outputs) > 1:
        raise MicrosegError(
            f"{path}: it has {len(outputs)} outputs; choose by --output: {', '.join(outputs)}"
        )
    if name and name not in outputs:
        raise MicrosegError(f"{path}: no output '{name}'; {did_you_mean(name, outputs)}")
    output = outputs[name] if name else model.outputs[0]
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, output)]
    if len(shapes) != 2 or any(len(shape) != 4 or shape[-1] is None for shape in shapes):
        raise MicrosegError(
            f"{path}: inputs and output of shapes {', '.join(map(str, shapes))}; only networks from one "
            "image (batch, height, width, channels) to one map per class (the same, channels last) are taken"
        )
    return keras.Model(model.inputs[0], output, name=model.name)


def tile_of(model: keras.Model, asked: int | None, path: Path) -> int:
    """Return the side of the tiles in which a network predicts: its own, else what is asked for, else 256.

    Raises
    ------
    MicrosegError
        If the network takes another size, none that is square, or answers in another size than the tile's.
    """
    sides = {side for side in model.inputs[0].shape[1:3] if side is not None}
    if len(sides) > 1:
        raise MicrosegError(f"{path}: it takes images of {_by(sides)} pixels; only square ones can be tiled")
    tile = asked or next(iter(sides), DEFAULT_TILE)
    if sides and sides != {tile}:
        raise MicrosegError(
            f"{path}: tile is {tile} pixels, but the network takes only {_by(sides)}; leave it out"
        )
    shape = (1, tile, tile, model.inputs[0].shape[-1])
    # A new graph is traced for this very size: layers that join maps do not compare sizes before that.
    traced = keras.Model(model.inputs[0], model.outputs[0])
    try:
        answer = traced.predict_on_batch(np.zeros(shape, np.float32)).shape[1:3]
    except (ValueError, TypeError, RuntimeError) as error:
        raise MicrosegError(
            f"{path}: it cannot take tiles of {tile} pixels; give --tile a multiple of its down-sampling, "
            "which often is 32"
        ) from error
    if answer != (tile, tile):
        raise MicrosegError(
            f"{path}: tiles of {tile} pixels give maps of {' x '.join(map(str, answer))}; only networks "
            "that keep the size are taken: give --tile a multiple of the down-sampling, or use 'same' padding"
        )
    return tile


def _by(sides: set[int]) -> str:
    return " x ".join(str(side) for side in sorted(sides))


@dataclass(frozen=True)
class Network:
    """A network, the file it came from, how its images are prepared and predicted, and what was noticed."""

    file: Path
    model: keras.Model
    config: TrialConfig
    notes: tuple[str, ...] = ()

    def changed(self, note: str, model: keras.Model | None = None) -> Network:
        """Return the network with another model, or the same, and one more note."""
        return replace(self, model=model or self.model, notes=(*self.notes, note))


def with_probabilities(network: Network, images: Sequence[NDArray[np.float32]]) -> Network:
    """Add the sigmoid (one map) or softmax (several) to a network whose answers leave 0..1: its logits.

    Parameters
    ----------
    network : Network
        As loaded.
    images : sequence of ndarray of float32, shape (height, width, channels)
        What it is tried on, preprocessed.

    Raises
    ------
    MicrosegError
        If an answer is no finite number.
    """
    model = network.model
    answers = [predict_image(model, image, network.config) for image in images]
    if not all(np.isfinite(answer).all() for answer in answers):
        raise MicrosegError(f"{network.file}: it answers NaN or infinite values; its weights are damaged")
    if all(answer.min() >= -_ROUNDING and answer.max() <= 1 + _ROUNDING for answer in answers):
        return network
    kind = "sigmoid" if model.outputs[0].shape[-1] == 1 else "softmax"
    outputs = keras.layers.Activation(kind, dtype="float32", name="probability")(model.outputs[0])
    note = f"its answers leave 0..1, so they are taken as logits: a {kind} was added"
    return network.changed(note, keras.Model(model.inputs[0], outputs, name=model.name))


def with_maps_of(network: Network, classes: Sequence[str]) -> Network:
    """Return a network with one map per class of the data; foreground alone may come with its background.

    Raises
    ------
    MicrosegError
        If it has another number of maps.
    """
    maps, allowed = network.model.outputs[0].shape[-1], {1, 2} if len(classes) == 1 else {len(classes)}
    if maps not in allowed:
        raise MicrosegError(
            f"{network.file}: it gives {maps} map(s), the data has {len(classes)} class(es), "
            f"{', '.join(classes)}, and needs {' or '.join(map(str, sorted(allowed)))}; "
            "give other --data, or state --mask-kind"
        )
    if maps == len(classes):
        return network
    outputs = network.model.outputs[0][..., 1:]
    note = "of its two maps, background and foreground, the second is used"
    return network.changed(note, keras.Model(network.model.inputs[0], outputs, name=network.model.name))


def noise(tile: int, channels: int) -> list[NDArray[np.float32]]:
    """Return images to try a network on where there are no real ones: empty, full, and noise, in 0..1."""
    shape = (tile, tile, channels)
    random = np.random.default_rng(0).random(shape, np.float32)
    return [np.zeros(shape, np.float32), np.ones(shape, np.float32), random]
