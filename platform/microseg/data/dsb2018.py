"""The layout of the 2018 Data Science Bowl: one folder per image, one mask file per object.

Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from microseg.data.entries import Entry, Listing, apply_group_regex, image_files, join_table
from microseg.data.facts import Ledger
from microseg.data.files import content_hash, read_bytes
from microseg.data.images import Array, decode_labels, is_lossy, write_image
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError


def recognise(source: Path) -> bool:
    """Say whether the folders here each hold ``images`` and ``masks``."""
    return source.is_dir() and any(
        (path / "images").is_dir() and (path / "masks").is_dir() for path in _folders(source)
    )


def read(source: Path, options: DataOptions, ledger: Ledger) -> Listing:
    """Merge each image's objects into one label map, kept in the cache.

    Object k is the k-th mask file by name; where two objects overlap the earlier one stays. The name
    of an item is that of its folder.

    Raises
    ------
    MicrosegError
        If a folder lacks images or masks, or a mask does not fit the others.
    """
    if options.mask_column or options.mask_kind not in (None, "instance"):
        raise MicrosegError(
            f"{source}: one mask file per object is always read as instances; leave out mask column and mask"
            " kind"
        )
    entries = [_entry(folder, ledger) for folder in _folders(source)]
    entries = join_table(entries, source, options)
    stated = options.model_copy(update={"mask_kind": "instance"})
    return Listing(apply_group_regex(entries, options.group_regex), stated, source.name, str(source))


def _folders(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))


def _entry(folder: Path, ledger: Ledger) -> Entry:
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise MicrosegError(
                f"{folder}: no folder {part}/ in it; each image's folder needs images/ and masks/"
            )
    images, masks = image_files(folder / "images"), image_files(folder / "masks")
    if len(images) != 1 or not masks:
        raise MicrosegError(
            f"{folder}: {len(images)} images and {len(masks)} masks; each folder needs one image and a mask"
            " per object"
        )
    return Entry(name=folder.name, images=(images[0],), mask=ledger.derived("label-map", masks, _merge))


def _merge(files: list[Path], cache: Path) -> Path:
    """Merge mask files of one object each into a label map, stored under the hash of their content."""
    contents = [read_bytes(file) for file in files]
    objects = (_single(file, data) for file, data in zip(files, contents, strict=True))
    labels = next(objects).astype(np.int32)
    for number, (file, single) in enumerate(zip(files[1:], objects, strict=True), start=2):
        if single.shape != labels.shape:
            raise MicrosegError(
                f"{file}: shape {single.shape} (height, width), but {files[0].name} is {labels.shape}"
            )
        labels[single & (labels == 0)] = number
    path = cache / f"{content_hash(contents)}.tif"
    write_image(path, labels)
    return path


def _single(file: Path, data: bytes) -> Array:
    """Decode the mask of one object as booleans."""
    labels = decode_labels(data, str(file))
    if is_lossy(data):
        raise MicrosegError(f"{file}: a JPEG mask of a single object; save the objects' masks as PNG")
    return np.asarray(labels > 0)
