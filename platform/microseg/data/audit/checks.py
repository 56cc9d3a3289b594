"""The audit: every check over one look at the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microseg.data.audit import contents, duplicates, groups, neighbours
from microseg.data.audit.findings import LEVELS, Division, Finding
from microseg.data.audit.likeness import details
from microseg.data.audit.looks import foreground_classes, look_at
from microseg.data.manifest import Manifest
from microseg.folds import Fold


def audit(
    manifest: Manifest, cache: Path, folds: Sequence[Fold] = (), tile: int | None = None
) -> list[Finding]:
    """Audit a data set.

    Parameters
    ----------
    manifest : Manifest
        The whole data set, hold-out included.
    cache : Path
        Cache of decoded arrays, see `microseg.data.arrays`.
    folds : sequence of Fold
        The folds to be used; items that are in none of them are the hold-out.
    tile : int, optional
        Side of the training tile in pixels.

    Returns
    -------
    list of Finding
        The gravest first.

    Raises
    ------
    MicrosegError
        If a file has changed since the data set was checked.
    """
    looks, division = look_at(manifest, cache), Division(folds)
    fine = details(np.stack([look.thumbnail for look in looks]))
    found = [
        *duplicates.same_images(looks, division),
        *duplicates.near_images(looks, fine, division),
        *duplicates.same_masks(looks),
        *groups.split_groups(manifest, division),
        *groups.unstated_groups(manifest, division),
        *neighbours.divided_neighbours(looks, fine, division),
        *contents.masks(looks, foreground_classes(manifest), division),
        *contents.objects(looks, tile),
        *contents.sizes(looks, tile),
        *contents.grey_values(looks),
    ]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
