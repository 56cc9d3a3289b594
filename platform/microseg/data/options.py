"""What a user states about a data set where its files cannot say it themselves."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from microseg.config import Strict
from microseg.data.manifest import MaskKind


class DataOptions(Strict):
    """How to read a data set; every field may be left out where the data is unambiguous."""

    image_column: str | None = Field(
        default=None,
        description="Column with the image's file; several, separated by commas, are its channels.",
    )
    mask_column: str | None = Field(default=None, description="Column with the mask's file.")
    group_column: str | None = Field(
        default=None, description="Column of the group (specimen, session, slide) that folds never split."
    )
    group_regex: str | None = Field(
        default=None,
        description="Regular expression searched in the image's name; its first capture group is the group.",
    )
    stratum_column: str | None = Field(default=None, description="Column of the stratum that folds balance.")
    split_column: str | None = Field(
        default=None, description="Column of the given split: train, valid or test."
    )
    mask_kind: MaskKind | None = Field(
        default=None, description="What masks hold: binary, instance or classes."
    )
    threshold: float | None = Field(
        default=None, gt=0.0, description="Mask values at or above it are foreground; JPEG masks need it."
    )
    classes: tuple[str, ...] = Field(
        default=(), description="Names of the classes 0, 1, 2 ... of class masks, the background first."
    )
    axes: str | None = Field(
        default=None, description="Axis order of multi-page TIFF files, in letters of T, Z, C, Y, X."
    )
    channel_suffixes: tuple[str, ...] = Field(
        default=(), description="For one file per channel: what follows the common name, such as _dapi,_gfp."
    )
    pixel_size_um: float | None = Field(default=None, gt=0.0, description="Side of a pixel in micrometres.")

    @field_validator("axes")
    @classmethod
    def _known_axes(cls, axes: str | None) -> str | None:
        if axes is None:
            return None
        letters = axes.upper()
        if set(letters) - set("TZCYX") or len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters):
            raise ValueError(
                "axes are letters of T, Z, C, Y, X, each once, with Y and X among them, such as CYX"
            )
        return letters

    @field_validator("group_regex")
    @classmethod
    def _valid_regex(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a valid regular expression ({error})") from error
        return pattern

    @field_validator("classes")
    @classmethod
    def _background_and_more(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if classes and (len(classes) < 2 or len(set(classes)) < len(classes)):
            raise ValueError("name the background and at least one class, each once")
        return classes
