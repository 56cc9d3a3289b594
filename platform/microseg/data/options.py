"""What a user states about a data set where its files cannot say it themselves."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from microseg.config import Strict
from microseg.data.manifest import MaskKind


class DataOptions(Strict):
    r"""How to read a data set; every field may be left out where the data is unambiguous.

    Attributes
    ----------
    image_column, mask_column
        Columns of a table with the paths of the files; several image columns, separated by commas,
        are the channels. For paired folders ``image_column`` is the column of their ``manifest.csv``
        that names the files.
    group_column, stratum_column, split_column
        Columns of a table, or of a folder's ``manifest.csv``. A column that is named ``group``,
        ``stratum`` or ``split`` is used unasked.
    group_regex
        Regular expression searched in the image's file name without suffix; the first capture group
        (or the whole match) is the group, such as ``^(.+)_\d+`` for ``sessionA_003.png``.
    mask_kind
        ``binary``, ``instance`` or ``classes``.
    threshold
        Mask values at or above it are foreground; needed for JPEG masks.
    classes
        Names of the classes, background first, of class masks with values 0, 1, 2, ...
    axes
        Axis order of multi-page TIFF files, in letters of T, Z, C, Y, X.
    channel_suffixes
        For paired folders with one file per channel: what follows the common name, in channel order,
        such as ``("_dapi", "_gfp")``.
    pixel_size_um
        Side of a pixel in micrometres.
    """

    image_column: str | None = None
    mask_column: str | None = None
    group_column: str | None = None
    group_regex: str | None = None
    stratum_column: str | None = None
    split_column: str | None = None
    mask_kind: MaskKind | None = None
    threshold: float | None = Field(default=None, gt=0.0)
    classes: tuple[str, ...] = ()
    axes: str | None = None
    channel_suffixes: tuple[str, ...] = ()
    pixel_size_um: float | None = Field(default=None, gt=0.0)

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
