"""Network files of Keras, old and new: what they hold is made readable, or the reason why not is one line."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras

from microseg.errors import MicrosegError, one_line
from microseg.models import UNREADABLE, load_saved
from microseg.models.saved import described, nodes

SUFFIXES = (".h5", ".hdf5", ".keras")
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"


def load_network(path: Path) -> keras.Model:
    """Load a network for inference; how it was compiled, a custom loss for instance, does not matter.

    Files that run code of their own when they are loaded (Lambda layers) are refused.

    Parameters
    ----------
    path : Path
        A whole model as Keras 3 (``.keras``) or Keras 2 and 3 (``.h5``, ``.hdf5``) save it.

    Raises
    ------
    MicrosegError
        If there is no such file, or it holds only weights, a Lambda or custom layer, or no network.
    """
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        raise MicrosegError(
            f"{path}: no file that ends in {', '.join(SUFFIXES)}; give a network saved by Keras"
        )
    with path.open("rb") as file:
        start = file.read(8)
    with tempfile.TemporaryDirectory(prefix="microseg-") as folder:
        if start.startswith(_HDF5):
            copy = Path(folder, "network.h5")
            shutil.copyfile(path, copy)
            _check_layers(_repair_file(copy, path), path)
        elif start.startswith(_ZIP):
            copy = Path(folder, "network.keras")
            shutil.copyfile(path, copy)
            _check_layers(_zipped_config(copy, path), path)
        else:
            raise MicrosegError(f"{path}: neither HDF5 nor a Keras archive; save the network anew with Keras")
        return _load(copy, path)


def _load(copy: Path, path: Path) -> keras.Model:
    try:
        model = load_saved(copy)
    except UNREADABLE as error:
        raise MicrosegError(f"{path}: {_reason(str(error))}") from error
    if not isinstance(model, keras.Model) or not model.built:
        raise MicrosegError(f"{path}: no network with a stated input shape; call it once, then save it")
    # A Sequential knows neither the names of its outputs nor how to be cut.
    return model if hasattr(model, "output_names") else keras.Model(model.inputs, model.outputs)


def _reason(text: str) -> str:
    """Say in one line why Keras cannot rebuild a network."""
    if re.search(r"parent module keras\.(src\.)?engine\.", text):
        return (
            "a .keras file of Keras 2, which Keras 3 does not read; where it was made, save it as "
            "model.save('network.h5'), which it does"
        )
    unknown = re.search(
        r"(?:[Cc]ould not (?:locate|find) (?:class|object|function)|Unknown \w+:) '?([\w>.]+)", text
    )
    if unknown:
        return (
            f"it uses '{unknown[1]}', which is no part of Keras 3; where the code of the network is at hand, "
            "rebuild it from Keras's own layers, load the weights into it, and save that"
        )
    cause = " ".join(text.split("Exception encountered:")[-1].split())
    return f"not a network that Keras {keras.__version__} can rebuild ({cause[:200]})"


def _repair_file(copy: Path, path: Path) -> Any:
    """Rewrite an HDF5 file's description of its network for Keras 3, and return it."""
    try:
        with h5py.File(copy, "r+") as file:
            text = file.attrs.get("model_config")
            if text is None:
                raise MicrosegError(
                    f"{path}: it holds weights without a network; build the network, load these weights into "
                    "it, and save the whole with model.save('network.keras')"
                )
            config = _repaired(json.loads(text))
            file.attrs["model_config"] = json.dumps(config)
    except (OSError, ValueError, RecursionError) as error:
        raise MicrosegError(f"{path}: a damaged HDF5 file ({one_line(error)})") from error
    return config


def _zipped_config(copy: Path, path: Path) -> Any:
    try:
        with zipfile.ZipFile(copy) as archive:
            return described(archive)
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        raise MicrosegError(f"{path}: a damaged Keras archive; save the network anew") from error


def _check_layers(config: Any, path: Path) -> None:
    names = {str(node["class_name"]) for node in nodes(config)}
    if "Lambda" in names:
        raise MicrosegError(
            f"{path}: it has a Lambda layer, code that would run wherever it is loaded; replace that layer "
            "by one of Keras's own (Rescaling, Resizing, Activation, ...) and save the network anew"
        )


def _repaired(config: Any) -> Any:
    """Return a network's description without what Keras 2 wrote and Keras 3 refuses."""
    for node in nodes(config):
        values = node.get("config")
        layer = getattr(keras.layers, str(node["class_name"]), None)
        if node["class_name"] == "Sequential" and isinstance(values, dict):
            values["layers"] = _with_input(values["layers"])
        elif isinstance(values, dict) and isinstance(layer, type):
            node["config"] = _translated(values, set(inspect.signature(layer).parameters))
    return config


def _with_input(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the input shape that Keras 2 kept with a network's first layer into a layer of its own."""
    shape = layers[0]["config"].get("batch_input_shape") if layers else None
    if shape is None or layers[0]["class_name"] == "InputLayer":
        return layers
    return [{"class_name": "InputLayer", "config": {"batch_shape": shape, "name": "input"}}, *layers]


def _translated(values: dict[str, Any], known: set[str]) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if name in known or not _idle(name, value)}
    shape = kept.pop("batch_input_shape", None)
    if shape is not None and "batch_shape" in known:  # an InputLayer; elsewhere it repeats the input's
        kept["batch_shape"] = shape
    if "negative_slope" in known and "alpha" in kept:
        kept["negative_slope"] = kept.pop("alpha")
    if isinstance(kept.get("axis"), list) and len(kept["axis"]) == 1:  # BatchNormalization
        kept["axis"] = kept["axis"][0]
    if isinstance(kept.get("dtype"), dict) and kept["dtype"].get("class_name") == "Policy":
        kept["dtype"] = kept["dtype"]["config"]["name"]
    return kept


def _idle(name: str, value: Any) -> bool:
    """Say whether an argument that a layer no longer takes makes no difference to a trained one."""
    of_training = name.startswith("kernel_") or name in ("renorm", "fused", "virtual_batch_size")
    return of_training or (name == "groups" and value == 1)
