"""What a data set is: items of image and mask, and the facts that hold for all of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from microseg.config import Strict
from microseg.data.files import absolute, content_hash, replacing
from microseg.errors import MicrosegError

MaskKind = Literal["binary", "instance", "classes"]
Split = Literal["train", "valid", "test"]


class Item(Strict):
    """One labelled image.

    ``images`` is one file with all channels, or one file per channel in channel order. ``group``
    (specimen, session, slide) is never split across folds; ``stratum`` is balanced over them.
    ``hashes`` are the sha256 (hex) of each of its files, the images in their order and then the mask, as
    ``sha256sum`` prints them.
    """

    name: str
    images: tuple[Path, ...] = Field(min_length=1)
    mask: Path
    group: str
    stratum: str = ""
    split: Split | None = None
    height: int
    width: int
    hashes: tuple[str, ...] = Field(min_length=2)

    @property
    def sha256(self) -> str:
        """Content hash (sha256 hex) of the images and the mask."""
        return content_hash(part.encode() for part in self.hashes)


class Manifest(Strict):
    """A checked data set.

    ``classes`` names the foreground classes: one for binary and instance masks (a sigmoid head), or
    all classes with the background first for class masks (a softmax head). ``threshold``: mask
    values at or above it are foreground in binary masks; None where every non-zero value is.
    ``ignore`` is the mask value of pixels that count nowhere, or None. ``axes`` is the stated axis
    order of multi-page TIFF files (letters of Z, T, C, Y, X), or None. ``pixel_size_um`` is the side
    of a pixel in micrometres, where known.
    """

    name: str
    source: str
    items: tuple[Item, ...]
    channels: int
    classes: tuple[str, ...] = ("foreground",)
    mask_kind: MaskKind
    threshold: float | None = None
    ignore: int | None = None
    axes: str | None = None
    pixel_size_um: float | None = None

    @property
    def digest(self) -> str:
        """Content hash (sha256 hex) of every image and mask and of how they are read.

        It depends neither on where the files lie, nor on their names, order or grouping.
        """
        reading = (self.channels, self.classes, self.mask_kind, self.threshold, self.ignore, self.axes)
        content = sorted(item.sha256 for item in self.items)
        return hashlib.sha256(json.dumps([reading, content]).encode()).hexdigest()

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of all groups, sorted."""
        return tuple(sorted({item.group for item in self.items}))


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a data set as YAML that `microseg.data.open.open_dataset` reads back to an equal one.

    Paths are written relative to the file's own folder.

    Raises
    ------
    MicrosegError
        If the path does not end in ``.yaml`` or ``.yml``.
    """
    if path.suffix.lower() not in {".yaml", ".yml"}:
        raise MicrosegError(f"{path}: a manifest is written as YAML; give a name that ends in .yaml")
    folder = absolute(path).parent
    derived = {"items", "channels", "ignore"} | (set() if manifest.mask_kind == "classes" else {"classes"})
    head = manifest.model_dump(mode="json", exclude=derived, exclude_none=True)
    rows = [_row(item, folder) for item in manifest.items]
    text = yaml.safe_dump({**head, "items": rows}, sort_keys=False, allow_unicode=True, width=1000)
    with replacing(path) as handle:
        handle.write(text.encode())


def _row(item: Item, folder: Path) -> dict[str, Any]:
    files = [os.path.relpath(image, folder) for image in item.images]
    row = {
        "name": item.name,
        "image": files[0] if len(files) == 1 else files,
        "mask": os.path.relpath(item.mask, folder),
        "group": item.group,
        "stratum": item.stratum,
        "split": item.split,
    }
    return {key: value for key, value in row.items() if value}


def describe(manifest: Manifest) -> dict[str, str]:
    """Say what a data set is, as label and text, in the order to print."""
    sizes = Counter(f"{item.width} x {item.height}" for item in manifest.items)
    strata = Counter(item.stratum for item in manifest.items if item.stratum)
    splits: Counter[str] = Counter(item.split or "not given" for item in manifest.items)
    threshold = (
        "every non-zero value" if manifest.threshold is None else f"values from {manifest.threshold:g}"
    )
    kinds = {"binary": f"binary, foreground is {threshold}", "instance": "instance (one number per object)"}
    return {
        "name": manifest.name,
        "source": manifest.source,
        "images": str(len(manifest.items)),
        "sizes (width x height)": _counts(sizes),
        "channels": str(manifest.channels),
        "masks": kinds.get(manifest.mask_kind, "classes: " + ", ".join(manifest.classes)),
        "ignored mask value": "none" if manifest.ignore is None else str(manifest.ignore),
        "groups": str(len(manifest.groups)),
        "strata": _counts(strata) or "none",
        "split": _counts(splits),
        "pixel size": f"{manifest.pixel_size_um:g} um" if manifest.pixel_size_um else "not given",
        "digest": manifest.digest,
    }


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in counter.most_common())
