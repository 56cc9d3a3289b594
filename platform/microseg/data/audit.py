"""Look for what makes a score untrue: leaks between training and validation, and doubtful masks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from microseg.config import Strict
from microseg.data.arrays import image_array, instance_array, target_array
from microseg.data.files import content_hash
from microseg.data.images import Array
from microseg.data.manifest import Item, Manifest
from microseg.data.masks import IGNORE
from microseg.folds import Fold

Level = Literal["refuse", "warn", "note"]

_TINY = 9  # pixels: an object that one 3 x 3 filter covers
_SPARSE, _FULL = 0.005, 0.9  # shares of foreground that are worth a second look
_SHOWN = 3
# How microscopes and people number images; the first that divides all names into sessions is proposed.
_SESSION_PATTERNS = (r"^(.+)_\d+(?=_|$)", r"^(.+)[- ]\d+(?=[- ]|$)", r"^(.*[^\d])\d+$", r"^([^_-]+)[_-]")


class Finding(Strict):
    """Something the audit found.

    ``refuse``: a score from this data would be wrong. ``warn``: it probably would be. ``note``: worth
    knowing. ``items`` are the names concerned.
    """

    level: Level
    text: str
    items: tuple[str, ...] = ()


class _Seen(NamedTuple):
    """What one look at an item's pixels tells."""

    item: Item
    image: str
    mask: str
    foreground: int
    counted: int
    tiny: int
    dtype: str


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
    seen = [_look(item, manifest, cache) for item in manifest.items]
    found = [
        *_duplicates(seen, folds),
        *_split_groups(manifest, folds),
        *_sessions(manifest),
        *_masks(seen),
        *_sizes(seen, tile),
    ]
    order = ("refuse", "warn", "note")
    return sorted(found, key=lambda finding: order.index(finding.level))


def session_regex(names: Sequence[str]) -> str | None:
    """Propose a group regex for file names that carry a session and a running number.

    Returns
    -------
    str or None
        A pattern that divides the names into 2 sessions or more with 2 images each on average.
    """
    for pattern in _SESSION_PATTERNS:
        found = [re.search(pattern, name) for name in names]
        sessions = {match.group(1) for match in found if match}
        if all(found) and 2 <= len(sessions) <= len(names) / 2:
            return pattern
    return None


def _look(item: Item, manifest: Manifest, cache: Path) -> _Seen:
    image, target = image_array(item, manifest, cache), target_array(item, manifest, cache)
    counted = int(np.count_nonzero(target != IGNORE))
    foreground = counted - int(np.count_nonzero(target == 0))
    objects = manifest.mask_kind == "instance"
    areas = (
        np.bincount(instance_array(item, manifest, cache).ravel())[1:] if objects else np.zeros(0, np.int64)
    )
    return _Seen(
        item=item,
        image=_pixels(image),
        mask=_pixels(target) if foreground else "",
        foreground=foreground,
        counted=counted,
        tiny=int(np.count_nonzero((areas > 0) & (areas < _TINY))),
        dtype=str(image.dtype),
    )


def _pixels(array: Array) -> str:
    """Hash decoded pixels: the same image in two file formats is still the same image."""
    return content_hash([str((array.shape, array.dtype)).encode(), np.ascontiguousarray(array).tobytes()])


def _duplicates(seen: Sequence[_Seen], folds: Sequence[Fold]) -> Iterable[Finding]:
    for items in _same(seen, lambda one: one.image):
        level, where = _apart(items, folds)
        yield _finding(level, f"the same image {len(items)} times, {where}", items)
    images = {one.item.name: one.image for one in seen}
    for items in _same(seen, lambda one: one.mask):
        if len({images[item.name] for item in items}) > 1:
            yield _finding("warn", f"the same mask for {len(items)} different images; was one copied?", items)


def _same(seen: Sequence[_Seen], key: Callable[[_Seen], str]) -> list[list[Item]]:
    found: defaultdict[str, list[Item]] = defaultdict(list)
    for one in seen:
        found[key(one)].append(one.item)
    return [items for content, items in found.items() if content and len(items) > 1]


def _apart(items: Sequence[Item], folds: Sequence[Fold]) -> tuple[Level, str]:
    """Say which division has items on both of its sides, and how grave that is."""
    names, splits = {item.name for item in items}, {item.split for item in items}
    if "test" in splits and len(splits) > 1:
        return "refuse", "in the test split and outside it"
    if folds and 0 < len(names & {*folds[0].train, *folds[0].valid}) < len(names):
        return "refuse", "in the hold-out and outside it"
    if any(names & {*fold.train} and names & {*fold.valid} for fold in folds):
        return "refuse", "in training and validation of a fold"
    if not folds and {"train", "valid"} <= splits:
        return "warn", "in both the given train and valid splits, which only pooled folds repair"
    return (
        ("warn", "in different groups")
        if len({item.group for item in items}) > 1
        else ("note", "in one group")
    )


def _split_groups(manifest: Manifest, folds: Sequence[Fold]) -> Iterable[Finding]:
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        groups[item.group].append(item)
    divided: defaultdict[tuple[Level, str], list[str]] = defaultdict(list)
    for group, items in groups.items():
        divided[_apart(items, folds)].append(group)
    for (level, where), names in divided.items():
        if level != "note":
            text = f"{len(names)} groups have images {where}: {_shown(names)}"
            items = [item for name in names for item in groups[name]]
            yield Finding(level=level, text=text, items=tuple(item.name for item in items))


def _sessions(manifest: Manifest) -> Iterable[Finding]:
    """Report groups that the file names suggest and nobody stated."""
    if len(manifest.groups) < len(manifest.items):
        return
    pattern = session_regex([item.images[0].stem for item in manifest.items])
    if pattern is None:
        text = "every image is a group of its own; images of one specimen or session need a common group"
        yield Finding(level="note", text=text)
        return
    sessions: defaultdict[str, list[Item]] = defaultdict(list)
    for item in manifest.items:
        match = re.search(pattern, item.images[0].stem)
        sessions[match.group(1) if match else ""].append(item)
    mixed = [session for session, items in sessions.items() if len({item.split for item in items}) > 1]
    advice = f"if so, state --group-regex '{pattern}'"
    if mixed:
        items = [item for session in mixed for item in sessions[session]]
        text = f"the given split divides {len(mixed)} of the {len(sessions)} sessions that file names suggest"
        yield _finding("warn", f"{text}; {advice}", items)
    else:
        some = _shown(sorted(sessions))
        text = f"file names suggest {len(sessions)} sessions ({some}), but every image is a group of its own"
        yield Finding(level="warn", text=f"{text}; {advice}")


def _masks(seen: Sequence[_Seen]) -> Iterable[Finding]:
    empty = [one.item for one in seen if one.foreground == 0]
    if empty:
        yield _finding(
            "note", f"{len(empty)} of {len(seen)} masks have no foreground; right, or forgotten?", empty
        )
    share = sum(one.foreground for one in seen) / max(sum(one.counted for one in seen), 1)
    level: Level = "note" if _SPARSE <= share <= _FULL else "warn"
    doubt = "" if level == "note" else "; are foreground and background the right way round?"
    yield Finding(level=level, text=f"foreground is {share:.1%} of the pixels that count{doubt}")
    tiny = [one for one in seen if one.tiny]
    if tiny:
        count = sum(one.tiny for one in tiny)
        text = f"{count} objects have fewer than {_TINY} pixels; slips of the annotation?"
        yield _finding("note", text, [one.item for one in tiny])


def _sizes(seen: Sequence[_Seen], tile: int | None) -> Iterable[Finding]:
    small = [one.item for one in seen if tile and min(one.item.height, one.item.width) < tile]
    if small:
        text = f"{len(small)} of {len(seen)} images are smaller than the tile of {tile} pixels and get padded"
        yield _finding("note", text, small)
    types = sorted({one.dtype for one in seen})
    if len(types) > 1:
        yield Finding(level="note", text=f"the images have different number types: {', '.join(types)}")


def _finding(level: Level, text: str, items: Sequence[Item]) -> Finding:
    names = tuple(item.name for item in items)
    return Finding(level=level, text=f"{text} ({_shown(names)})", items=names)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
