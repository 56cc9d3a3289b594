"""What a data set is: items of image and mask, and the facts that hold for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from microseg.config import Strict

MaskKind = Literal["binary", "instance", "classes"]
Split = Literal["train", "valid", "test"]


class Item(Strict):
    """One labelled image.

    ``images`` is one file with all channels, or one file per channel in channel order. ``group``
    (specimen, session, slide) is never split across folds; ``stratum`` is balanced over them.
    ``sha256`` is the content hash of the images and the mask, in that order.
    """

    name: str
    images: tuple[Path, ...] = Field(min_length=1)
    mask: Path
    group: str
    stratum: str = ""
    split: Split | None = None
    height: int
    width: int
    sha256: str


class Manifest(Strict):
    """A checked data set.

    ``classes`` names the foreground classes: one for binary and instance masks (a sigmoid head), or
    all classes with the background first for class masks (a softmax head). ``threshold``: mask
    values at or above it are foreground in binary masks; None where every non-zero value is.
    ``axes`` is the stated axis order of multi-page TIFF files (letters of Z, T, C, Y, X), or None.
    """

    name: str
    source: str
    items: tuple[Item, ...]
    channels: int
    classes: tuple[str, ...] = ("foreground",)
    mask_kind: MaskKind
    threshold: float | None = None
    axes: str | None = None
    pixel_size_um: float | None = None

    @property
    def digest(self) -> str:
        """Content hash (sha256 hex) of every image and mask and of how they are read."""
        raise NotImplementedError
