"""Networks from files that anybody may have made: they run no code and take no more than the file holds."""

from __future__ import annotations

import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import keras

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
LONGEST = 64 * 2**20  # bytes of a description; that of a network with a thousand layers has one million
# What the many classes of Keras raise for a description or weights that they do not understand.
UNREADABLE = (
    ValueError,
    TypeError,
    OSError,
    LookupError,
    AttributeError,
    ImportError,
    NotImplementedError,
    MemoryError,
    RecursionError,
    zipfile.BadZipFile,
)
# Layers that run what a file brings along, or names: code, a SavedModel, another framework's pickle.
_CODE = ("Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer")
_PACKAGES = ("keras", "microseg", "builtins")


def load_saved(path: Path) -> keras.Model:
    """Load a saved network for inference; importing `microseg.models` registers the layers that it may hold.

    Nothing in the file is run. Its weights are created only after every one of them was found in the file in
    the shape that the description asks for, so that a file costs memory in proportion to its own size.
    Without compilation no loss needs to be known.

    Parameters
    ----------
    path : Path
        A ``.keras`` archive, or an HDF5 file of Keras 2 or 3 (``.h5``, ``.hdf5``).

    Returns
    -------
    keras.Model
        With its weights, not compiled.

    Raises
    ------
    UNREADABLE
        If the file is damaged, hostile, or no network that this Keras knows; the text says which.
    """
    check_file(path)
    # Variables that wait for their values are listed per thread: those of a refused file end with it.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_load, path).result()


def check_file(path: Path) -> None:
    """Refuse a file of a network, or of weights alone, that is not what Keras writes.

    Parameters
    ----------
    path : Path
        See `load_saved`.

    Raises
    ------
    UNREADABLE
        If it brings code, refers to other files, or asks for more than it stores; the text says which.
    """
    if path.suffix == ".keras":
        _check_archive(path)
    else:
        _check_hdf5(path)


def nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that a network's description holds, nested ones included."""
    children = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    if isinstance(config, dict) and "class_name" in config:
        yield config
    for child in children:
        yield from nodes(child)


def _load(path: Path) -> keras.Model:
    """Load a network whose weights exist only after they were read; Keras itself would create them first."""
    with keras.StatelessScope(initialize_variables=False) as scope, warnings.catch_warnings():
        # It says that layers keep weights by chance; here they are absent, which is refused.
        warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    values = [(weight, scope.get_current_value(weight)) for weight in model.weights]
    absent = next((weight.path for weight, value in values if value is None), None)
    if absent is not None:
        raise ValueError(f"the file holds no values for the weight '{absent}'")
    with keras.StatelessScope():  # leaving it creates the variables
        pass
    for weight, value in values:
        weight.assign(value)
    return model


def _check_archive(path: Path) -> None:
    """Refuse an archive that holds other than the files of one network, or compressed weights."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())
        if names != sorted((CONFIG, METADATA, WEIGHTS)):
            raise ValueError(
                f"it holds {', '.join(map(repr, names[:5]))}, not the three files that Keras writes"
            )
        check_description(described(archive))
        weights = archive.getinfo(WEIGHTS)
        if weights.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its weights are compressed, which Keras never does")
        # HDF5 jumps about, and an archive reads its member anew for each jump back: a minute, else a second.
        _check_hdf5(io.BytesIO(archive.read(weights)))


def described(archive: zipfile.ZipFile) -> Any:
    """Return what an archive says of its network.

    Raises
    ------
    ValueError
        If it says nothing, no JSON, or more than any network needs.
    """
    if archive.getinfo(CONFIG).file_size > LONGEST:
        raise ValueError(f"its {CONFIG} has more than {LONGEST >> 20} MiB")
    return json.loads(archive.read(CONFIG))


def check_description(config: Any) -> None:
    """Refuse a description that brings code, or names any but a class of Keras or of this package.

    Raises
    ------
    ValueError
        With the name of the first such object.
    """
    for node in nodes(config):
        name, module = str(node["class_name"]), str(node.get("module") or "keras")
        if name in _CODE:
            raise ValueError(f"it holds '{name}', code that would run wherever it is loaded")
        if module.split(".")[0] not in _PACKAGES:
            raise ValueError(f"it asks for '{module}.{name}', which is no part of Keras")


def _check_hdf5(file: Any) -> None:
    """Refuse weights that are larger than what is stored of them, or lie in another file."""
    size = file.stat().st_size if isinstance(file, Path) else file.seek(0, os.SEEK_END)
    stored = 0

    def check(name: str, item: Any) -> None:
        nonlocal stored
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"its weights '{name}' lie in another file")
            if item.id.get_storage_size() < item.nbytes:
                raise ValueError(f"it stores less than the {item.nbytes} bytes of its weights '{name}'")
            stored += item.nbytes  # of several that share one place each counts

    def outside(name: str, link: Any) -> str | None:
        return name if isinstance(link, h5py.ExternalLink) else None

    with h5py.File(file) as opened:
        found = opened.visititems_links(outside)
        if found is not None:
            raise ValueError(f"its weights '{found}' lie in another file")
        opened.visititems(check)
        if stored > size:
            raise ValueError(f"it has {size} bytes, but asks for {stored} bytes of weights")
        check_description(json.loads(opened.attrs.get("model_config", "{}")))
