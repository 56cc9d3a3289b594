"""What the values of masks mean: stated by the user, or taken from the masks where nothing else fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from microseg.data.facts import MOST_VALUES, MaskFacts
from microseg.data.images import Array
from microseg.data.manifest import Manifest, MaskKind
from microseg.data.options import DataOptions
from microseg.errors import MicrosegError

IGNORE = 255
_STATE = "state --mask-kind binary (with --threshold), instance or classes"
# Instances are guessed only where four labels in five are one piece, which classes rarely are, and some
# mask has more labels than there are classes in common use; or fewer, where every mask numbers its labels
# 1 to n without a gap and n differs: a set of classes has a fixed number, and gaps where one is absent.
_MOSTLY_WHOLE = 0.8
_VERY_MANY_LABELS = 32
_MANY_LABELS = 8


class Reading(NamedTuple):
    """How mask values become classes; the fields are those of a `Manifest`."""

    mask_kind: MaskKind
    threshold: float | None = None
    ignore: int | None = None
    classes: tuple[str, ...] = ("foreground",)


def interpret(masks: Mapping[Path, MaskFacts], options: DataOptions) -> Reading:
    """Decide what the values of a data set's masks mean.

    What the options state is taken. The rest is taken from the masks where only one reading fits, over
    the whole set: a single non-zero value is binary; 0, 1 and 255 together are binary with 255 ignored;
    many labels that are mostly one piece each are instances. Anything else is refused.

    Raises
    ------
    MicrosegError
        If the masks do not fit what is stated, can be read in more than one way, or have no foreground.
    """
    _check_lossy(masks, options)
    kind = options.mask_kind or _guess(masks, options)
    if options.classes and kind != "classes":
        raise MicrosegError(
            f"{len(options.classes)} classes are named, but the masks are {kind}; leave out one of the two"
        )
    if kind == "binary":
        reading = _binary(masks, options.threshold)
    elif options.threshold is not None:
        raise MicrosegError(
            f"a threshold of {options.threshold:g} is stated for {kind} masks; only binary masks have one"
        )
    else:
        reading = _classes(masks, options.classes) if kind == "classes" else Reading("instance")
    if not any(_has_foreground(facts, reading) for facts in masks.values()):
        raise MicrosegError(
            f"no foreground in any of the {len(masks)} masks, {next(iter(masks))} among them;"
            " check the masks and the threshold"
        )
    return reading


def to_target(labels: Array, manifest: Manifest) -> Array:
    """Turn mask values into class indices.

    Parameters
    ----------
    labels : ndarray of int, shape (height, width)
        Mask values as stored.
    manifest : Manifest
        How the data set's masks are read.

    Returns
    -------
    ndarray of uint8, shape (height, width)
        0 is background, 255 counts nowhere.
    """
    if manifest.mask_kind == "classes":
        target = labels.astype(np.uint8)
    else:
        target = (labels >= (manifest.threshold or 1)).astype(np.uint8)
    if manifest.ignore is not None:
        target[labels == manifest.ignore] = IGNORE
    return target


def _check_lossy(masks: Mapping[Path, MaskFacts], options: DataOptions) -> None:
    lossy = next((path for path, facts in masks.items() if facts.lossy), None)
    if lossy and (options.threshold is None or options.mask_kind not in (None, "binary")):
        raise MicrosegError(
            f"{lossy}: a JPEG mask, whose values are blurred by compression; state --threshold (128, say) to"
            " read"
            " it as binary, or save the masks as PNG"
        )


def _guess(masks: Mapping[Path, MaskFacts], options: DataOptions) -> MaskKind:
    if options.threshold is not None:
        return "binary"
    if options.classes:
        return "classes"
    values = _values(masks.values())
    if len(values - {0}) <= 1 or values <= {0, 1, IGNORE}:
        return "binary"
    if _look_like_instances(list(masks.values())):
        return "instance"
    raise MicrosegError(f"{next(iter(masks))} and the other masks hold the values {_say(values)}; {_STATE}")


def _look_like_instances(masks: Sequence[MaskFacts]) -> bool:
    counts = [facts.labels for facts in masks]
    if sum(facts.whole for facts in masks) < _MOSTLY_WHOLE * sum(counts):
        return False
    numbered = all(facts.maximum == facts.labels for facts in masks)
    return max(counts) >= _VERY_MANY_LABELS or (
        numbered and max(counts) >= _MANY_LABELS and len(set(counts)) > 1
    )


def _binary(masks: Mapping[Path, MaskFacts], threshold: float | None) -> Reading:
    values = _values(masks.values())
    if threshold is not None or len(values - {0}) <= 1:
        return Reading("binary", threshold)
    if not values <= {0, 1, IGNORE}:
        raise MicrosegError(
            f"{next(iter(masks))} and the other masks hold the values {_say(values)}; binary masks with more"
            " than one"
            " non-zero value need --threshold (1 takes every non-zero value)"
        )
    if not any({1, IGNORE} <= set(facts.values) for facts in masks.values()):
        raise MicrosegError(
            f"{next(iter(masks))} and the other masks hold 1 in some and 255 in others; state --threshold 1"
            " if both"
            " mean foreground"
        )
    return Reading("binary", ignore=IGNORE)


def _classes(masks: Mapping[Path, MaskFacts], names: Sequence[str]) -> Reading:
    values = _values(masks.values()) - {IGNORE}
    highest = max(values, default=0)
    count = len(names) or highest + 1
    outside = next((path for path, facts in masks.items() if facts.maximum > IGNORE), None)
    if outside or highest >= count:
        raise MicrosegError(
            f"{outside or next(iter(masks))}: class masks hold 0 to {count - 1} here, and 255 for pixels to"
            " ignore;"
            f" found {_say(_values(masks.values()))}; renumber them or name every class"
        )
    missing = set(range(highest)) - values
    if missing and not names:
        raise MicrosegError(
            f"{next(iter(masks))} and the other masks hold the values {_say(values)}, but never"
            f" {min(missing)};"
            " renumber them without gaps, or name every class from 0 on"
        )
    numbered = ("background", *(f"class-{index}" for index in range(1, count)))
    return Reading("classes", ignore=IGNORE, classes=tuple(names) or numbered)


def _has_foreground(facts: MaskFacts, reading: Reading) -> bool:
    if reading.ignore is None:
        return facts.maximum >= (reading.threshold or 1)
    return any(value not in (0, reading.ignore) for value in facts.values)


def _values(facts: Iterable[MaskFacts]) -> set[int]:
    return {value for one in facts for value in one.values}


def _say(values: set[int]) -> str:
    """Name a few values, and how many there are."""
    shown = sorted(values)
    if len(shown) <= 6:
        return ", ".join(map(str, shown))
    count = f"{MOST_VALUES} or more" if len(shown) >= MOST_VALUES else str(len(shown))
    return f"{shown[0]}, {shown[1]}, {shown[2]} ... {shown[-1]} ({count})"
