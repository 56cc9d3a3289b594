"""The truth and the masks of an outside tool: found, matched by name, and read with one meaning for all."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from microseg.data.entries import Entry, apply_group_regex, image_files, join_table, refuse_repeats
from microseg.data.facts import Ledger, whole_labels
from microseg.data.files import read_bytes
from microseg.data.folders import MASK_SUFFIXES
from microseg.data.images import READABLE, Array, decode_labels, is_lossy
from microseg.data.manifest import Item, Manifest
from microseg.data.masks import interpret
from microseg.data.open import FORMATS, open_dataset
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError
from microseg.storage.mirror import local

_TOOLS = ("_cp_masks", "_seg", "_pred", "_prediction", "_predictions", "_segmentation", *MASK_SUFFIXES)
_MOSTLY_WHOLE = 0.8  # of labels, in label maps: as when the masks of a data set are read


class Meaning(NamedTuple):
    """What the values of predicted masks mean: foreground at or above ``threshold``, or numbers of classes.

    ``objects`` says whether different values are different objects.
    """

    threshold: float = 1
    classes: bool = False
    objects: bool = False


def open_truth(place: str | Path, options: DataOptions, cache: Path) -> Manifest:
    """Open the truth: a data set, or a folder of masks alone, whose items then have the mask as their image.

    Parameters
    ----------
    place : str or Path
        A local path, or an ``s3://`` URI of a folder or table, which is copied to the cache.
    options : DataOptions
        What the files do not say themselves.
    cache : Path
        Folder on this machine.

    Raises
    ------
    MicrosegError
        If it is neither, or its masks cannot be used.
    """
    source = local(place, cache)
    if not source.is_dir() or any(known.recognise(source) for known in FORMATS.values()):
        return open_dataset(source, options, cache)
    files = image_files(source)
    if not files:
        raise MicrosegError(f"{source}: no masks; give a data set, or a folder of masks (PNG, TIFF)")
    refuse_repeats((file.stem for file in files), str(source))
    ledger = Ledger(cache, f"masks {source}")
    facts = {file: ledger.mask(file) for file in files}
    ledger.save()
    entries = join_table([Entry(file.stem, (file,), file) for file in files], source, options)
    items = tuple(
        Item(
            **entry._asdict() | {"group": entry.group or entry.name},
            height=facts[entry.mask].height,
            width=facts[entry.mask].width,
            hashes=(facts[entry.mask].hash,) * 2,  # as its image and as its mask
        )
        for entry in apply_group_regex(entries, options.group_regex)
    )
    reading = interpret(facts, options)._asdict()
    pixel = options.pixel_size_um
    return Manifest(
        name=source.name, source=str(source), items=items, channels=1, pixel_size_um=pixel, **reading
    )


def match(folder: Path, items: Sequence[Item], suffix: str = "") -> tuple[dict[str, Path], list[Path]]:
    """Find the predicted mask of each item by name; return them by item, and the files that belong to none.

    Parameters
    ----------
    folder : Path
        Masks as PNG, TIFF or ``.npy``, named as the image or mask, also with a usual suffix (``_cp_masks``).
    items : sequence of Item
        What is to be scored.
    suffix : str
        Ends the names of the files that count, where others lie beside them.

    Raises
    ------
    MicrosegError
        If there are no masks, two are of the same item, or one may be of several.
    """
    files = [path for path in _files(folder) if path.stem.endswith(suffix)]
    if not files:
        named = f" whose names end in '{suffix}'" if suffix else ""
        raise MicrosegError(f"{folder}: no masks{named}; PNG, TIFF and NPY files are read")
    owners, found, extra = _owners(items), dict[str, Path](), []
    for file in files:
        stem = file.stem.removesuffix(suffix)
        names = owners.get(stem) or owners.get(_bare(stem)) or set()
        if len(names) > 1:
            raise MicrosegError(f"{file}: may be of {' or '.join(sorted(names))}; name it as one of them")
        name = next(iter(names), None)
        if name is None:
            extra.append(file)
        elif name in found:
            raise MicrosegError(
                f"{file} and {found[name].name}: both are of '{name}'; keep one, or choose by --suffix"
            )
        else:
            found[name] = file
    return found, extra


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MicrosegError(f"{folder}: no such folder; give the folder of the predicted masks")
    suffixes = READABLE | {".npy"}
    paths = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in paths if path.suffix.lower() in suffixes)


def _owners(items: Iterable[Item]) -> Mapping[str, set[str]]:
    """Return which items a file name may mean: an item's own, its image's, with or without mask suffix."""
    owners: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for name in (item.name, item.images[0].stem):
            owners[name].add(item.name)
            owners[_bare(name)].add(item.name)
    return owners


def _bare(stem: str) -> str:
    return next((stem.removesuffix(suffix) for suffix in _TOOLS if stem.endswith(suffix)), stem)


def read_mask(file: Path) -> Array:
    """Read a predicted mask: integer values, shape (height, width).

    Raises
    ------
    MicrosegError
        If the file holds no such array, or is a pickle: loading one may run any code.
    """
    data = read_bytes(file)
    if file.suffix.lower() != ".npy":
        return decode_labels(data, str(file))
    try:
        array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise MicrosegError(
            f"{file}: no plain array; Cellpose's _seg.npy is a pickle, which may run any code when it is "
            "loaded and is not: save its masks as PNG or TIFF (cellpose --save_png)"
        ) from error
    if array.ndim != 2 or array.dtype.kind not in "biu" or not array.size or array.min() < 0:
        raise MicrosegError(
            f"{file}: {array.dtype} of shape {array.shape}; a mask is (height, width) of whole numbers from 0"
        )
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def meaning(files: Sequence[Path], truth: Manifest, threshold: float | None) -> Meaning:
    """Decide once for all what the values of predicted masks mean.

    What the truth tells apart is what they are read for: classes, objects, or foreground, for which every
    non-zero value counts where there is only one, or where the values are numbers of objects.

    Parameters
    ----------
    files : sequence of Path
        The predicted masks.
    truth : Manifest
        What they are scored against.
    threshold : float, optional
        Values at or above it are foreground; they then tell no objects apart.

    Raises
    ------
    MicrosegError
        If their values have no single meaning, or none that fits the truth.
    """
    blurred = next((file for file in files if is_lossy(read_bytes(file))), None)
    if blurred and threshold is None:
        raise MicrosegError(
            f"{blurred}: a JPEG, whose values are blurred; state --prediction-threshold (128)"
        )
    if truth.mask_kind == "classes":
        _check_classes(files, len(truth.classes), threshold)
        return Meaning(classes=True)
    if threshold is not None:
        return Meaning(threshold)
    values: set[int] = set()
    labels = whole = 0
    for mask in map(read_mask, files):
        own = np.unique(mask[mask > 0])
        values |= set(own[:2].tolist())
        labels, whole = labels + own.size, whole + whole_labels(mask)
    if len(values) <= 1:
        return Meaning(objects=truth.mask_kind == "instance" and whole == labels)
    if truth.mask_kind == "binary" and whole < _MOSTLY_WHOLE * labels:
        raise MicrosegError(
            f"{files[0]} and the other masks hold several values, which are no numbers of objects; state "
            "--prediction-threshold (1 takes every non-zero value)"
        )
    return Meaning(objects=truth.mask_kind == "instance")


def _check_classes(files: Sequence[Path], classes: int, threshold: float | None) -> None:
    if threshold is not None:
        raise MicrosegError("--prediction-threshold is for foreground; the truth has classes, leave it out")
    for file in files:
        highest = int(read_mask(file).max())
        if highest >= classes:
            raise MicrosegError(
                f"{file}: a value of {highest}, but the truth has the classes 0 to {classes - 1}; number the "
                "predicted classes as the truth does"
            )
