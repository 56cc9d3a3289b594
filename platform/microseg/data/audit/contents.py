"""Doubtful masks and images: classes, objects, sizes, number types, grey values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from microseg.data.audit.findings import Division, Finding, named, shown
from microseg.data.audit.looks import Look
from microseg.data.images import Array

_TINY = 9  # pixels: an object that one 3 x 3 filter covers
_SPARSE, _FULL = 0.005, 0.9  # shares of foreground that are worth a second look
_DEEPEST = 16  # pixels that one pixel of the deepest level covers, after the usual four halvings
_CLIPPED = 0.01  # a share of pixels at the highest value that no small highlight reaches
_OUTLYING = 3.5  # robust z-score, Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers
_ENOUGH_GROUPS = 5
# The measures of a look, and the smallest standard deviation between groups that counts, in their own units
_MEASURES = {"brightness": 0.01, "spread": 0.01, "contrast": 0.1}


def masks(looks: Sequence[Look], classes: Sequence[str], division: Division) -> Iterator[Finding]:
    """Report empty masks, and how rare each class is."""
    empty = [look.item for look in looks if look.foreground == 0]
    if empty:
        text = f"{len(empty)} of {len(looks)} masks have no foreground"
        yield named("note", "empty_mask", text, empty, "right, or forgotten?")
    pixels = np.stack([look.counts for look in looks])
    parts = pixels[:, 1:].sum(axis=0) / max(int(pixels.sum()), 1)
    share, images = float(parts.sum()), np.count_nonzero(pixels[:, 1:], axis=0)
    text = f"foreground is {share:.1%} of the pixels that count"
    if len(classes) > 1:
        rows = zip(classes, parts, images, strict=True)
        text += ": " + ", ".join(f"{name} {part:.1%} in {count} images" for name, part, count in rows)
    sound = _SPARSE <= share <= _FULL
    advice = "" if sound else "are foreground and background the right way round?"
    yield Finding(level="note" if sound else "warn", check="class_balance", text=text, advice=advice)
    yield from _rare(looks, pixels, classes, division)


def _rare(
    looks: Sequence[Look], pixels: Array, classes: Sequence[str], division: Division
) -> Iterator[Finding]:
    """Report classes that are in fewer groups than there are folds: some fold cannot judge them."""
    for index, name in enumerate(classes, 1):
        having = [look.item for look, counts in zip(looks, pixels, strict=True) if counts[index]]
        groups = {item.group for item in having}
        if having and len(groups) < min(max(division.folds, 2), len({look.item.group for look in looks})):
            where = f"{len(having)} images of {len(groups)} groups"
            advice = "folds without it cannot judge it: add images, or ask for fewer folds"
            yield named("warn", "rare_class", f"class {name} is in {where} only", having, advice)


def objects(looks: Sequence[Look], tile: int | None) -> Iterator[Finding]:
    """Report objects that are too small to be meant, too small for a deep network, or wider than a tile."""
    tiny = [look for look in looks if (look.areas < _TINY).any()]
    if tiny:
        count = sum(int(np.count_nonzero(look.areas < _TINY)) for look in tiny)
        text = f"{count} objects have fewer than {_TINY} pixels"
        yield named("note", "tiny_object", text, [look.item for look in tiny], "slips of the annotation?")
    extents = np.concatenate([look.extents for look in looks])
    if not extents.size:
        return
    middle, largest = float(np.median(extents)), int(extents.max())
    if middle < _DEEPEST / 4:
        text = (
            f"half of the {len(extents)} objects are at most {middle:g} pixels long,"
            f" a quarter of a pixel after four halvings ({_DEEPEST} pixels)"
        )
        yield Finding(
            level="warn",
            check="object_size",
            text=text,
            advice="enlarge the images, or search depths of 2 and 3",
        )
    wide = [look.item for look in looks if tile and (look.extents > tile).any()]
    if wide:
        count = int(np.count_nonzero(extents > (tile or 0)))
        text = (
            f"{count} of {len(extents)} objects are longer than the tile of {tile} pixels (up to {largest})"
        )
        yield named("note", "object_size", text, wide, "no tile shows one whole: a larger tile may help")


def sizes(looks: Sequence[Look], tile: int | None) -> Iterator[Finding]:
    """Report images smaller than the tile, and number types that differ."""
    small = [look.item for look in looks if tile and min(look.item.height, look.item.width) < tile]
    if small:
        text = f"{len(small)} of {len(looks)} images are smaller than the tile of {tile} pixels"
        yield named("note", "image_size", text, small, "they get padded")
    types = sorted({look.dtype for look in looks})
    if len(types) > 1:
        text = f"the images have different number types: {', '.join(types)}"
        yield Finding(level="note", check="number_type", text=text, advice="were some converted on the way?")


def grey_values(looks: Sequence[Look]) -> Iterator[Finding]:
    """Report images that are clipped, and groups whose grey values lie far from those of the others."""
    clipped = [look.item for look in looks if look.clipped > _CLIPPED]
    if clipped:
        share = f"over {_CLIPPED:.0%} of their pixels at their highest value"
        text = f"{len(clipped)} of {len(looks)} images have {share}"
        yield named("note", "clipped", text, clipped, "overexposed, or a stretched contrast?")
    groups: defaultdict[str, list[Look]] = defaultdict(list)
    for look in looks:
        groups[look.item.group].append(look)
    if len(groups) < _ENOUGH_GROUPS:
        return
    values = np.array([_means(members) for members in groups.values()])
    values[:, np.isnan(values).all(axis=0)] = 0.0  # no image has both foreground and background
    scores = robust_scores(values, [*_MEASURES.values()])
    worst = np.nan_to_num(np.abs(scores)).max(axis=1)
    order = [index for index in np.argsort(-worst).tolist() if worst[index] > _OUTLYING]
    if order:
        names = list(groups)
        told = [_outlier(names[index], values, scores, index) for index in order]
        items = tuple(look.item.name for index in order for look in groups[names[index]])
        kind = "groups" if len(groups) < len(looks) else "images"
        text = f"{len(order)} of {len(groups)} {kind} have grey values unlike the others: {shown(told)}"
        advice = "another instrument, stain or exposure? then give it as the stratum, so that folds share it"
        yield Finding(level="note", check="group_statistics", text=text, advice=advice, items=items)


def robust_scores(values: Array, least: Sequence[float]) -> Array:
    """Return each value's distance from its column's median in robust standard deviations.

    Parameters
    ----------
    values : ndarray of float, shape (groups, measures)
        NaN where a group has no value.
    least : sequence of float
        The smallest standard deviation of each measure that counts: groups which are all but equal are not
        told apart.

    Returns
    -------
    ndarray of float, shape (groups, measures)
        (x - median) / (1.4826 MAD).
    """
    middle = np.nanmedian(values, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    scores: Array = (values - middle) / np.maximum(spread, least)
    return scores


def _means(looks: Sequence[Look]) -> list[float]:
    """Average a group's measures; those of empty masks have no contrast."""
    values = np.array([[look.brightness, look.spread, look.contrast] for look in looks])
    known = ~np.isnan(values)
    sums = np.where(known, values, 0.0).sum(axis=0)
    means: list[float] = np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), np.nan).tolist()
    return means


def _outlier(name: str, values: Array, scores: Array, index: int) -> str:
    column = int(np.nan_to_num(np.abs(scores[index])).argmax())
    usual = np.nanmedian(values[:, column])
    return f"{name} ({[*_MEASURES][column]} {values[index, column]:.2f} against {usual:.2f})"
