"""Images and masks that occur more than once, exactly or nearly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from microseg.data.audit.findings import Division, Finding, Level, Pair, named, shown
from microseg.data.audit.likeness import NEAR, SAME, Alike, alike
from microseg.data.audit.looks import Look
from microseg.data.images import Array
from microseg.data.manifest import Item

_SHOWN_PAIRS = 12
_LOWER: dict[Level, Level] = {"refuse": "warn", "warn": "note"}
_ADVICE = "leave out all but one of each, or put them in one group"


def same_images(looks: Sequence[Look], division: Division) -> Iterator[Finding]:
    """Report images with the same pixels, by which division has them on both sides."""
    places: defaultdict[tuple[Level, str], list[list[Item]]] = defaultdict(list)
    for items in _same(looks, lambda look: look.image):
        places[division.apart(items)].append(items)
    for (level, where), sets in places.items():
        items = [item for one in sets for item in one]
        what = f"{len(items)} images are copies of {len(sets)}" if len(sets) > 1 else "the same image"
        times = "" if len(sets) > 1 else f" {len(items)} times"
        found = named(level, "same_image", f"{what}{times}, {where}", items, _ADVICE)
        pairs = [Pair(one=one[0].name, other=one[1].name, correlation=1.0) for one in sets]
        yield found.model_copy(update={"pairs": tuple(pairs[:_SHOWN_PAIRS])})


def same_masks(looks: Sequence[Look]) -> Iterator[Finding]:
    """Report masks that belong to more than one image."""
    images = {look.item.name: look.image for look in looks}
    for items in _same(looks, lambda look: look.mask):
        if len({images[item.name] for item in items}) > 1:
            text = f"the same mask for {len(items)} different images"
            yield named("warn", "same_mask", text, items, "was one copied? then draw it anew")


def near_images(looks: Sequence[Look], fine: Array, division: Division) -> Iterator[Finding]:
    """Report images that are alike but for compression, size, contrast, orientation or a small crop.

    Nearly identical ones are graded like copies, since a network sees no difference; those that are only
    alike, such as two frames of a movie, one level lower, and not at all within a group.
    """
    different = [*{look.image: index for index, look in enumerate(looks)}.values()]  # copies are known
    chosen = np.array(sorted(different), np.int64)
    thumbnails = np.stack([looks[index].thumbnail for index in chosen])
    pairs = [
        pair._replace(first=int(chosen[pair.first]), second=int(chosen[pair.second]))
        for pair in alike(thumbnails, fine[chosen])
    ]
    same = [pair for pair in pairs if pair.correlation >= SAME]
    yield from _near(looks, same, division, "nearly_identical")
    told = _sets(len(looks), same)
    rest = [pair for pair in pairs if told[pair.first] != told[pair.second]]
    yield from _near(looks, rest, division, "near_duplicate")


def _near(looks: Sequence[Look], pairs: Sequence[Alike], division: Division, check: str) -> Iterator[Finding]:
    """Report sets of images that pairs connect: where a set is on both sides, so is one of its pairs."""
    sets = _sets(len(looks), pairs)
    members: defaultdict[int, list[Item]] = defaultdict(list)
    for index in sorted({index for pair in pairs for index in pair[:2]}):
        members[sets[index]].append(looks[index].item)
    places = {number: division.apart(items) for number, items in members.items()}
    for place in sorted(set(places.values())):
        level = place[0] if check == "nearly_identical" else _LOWER.get(place[0])
        here = [number for number in members if places[number] == place]
        if level:
            items = [item for number in here for item in members[number]]
            across = [pair for pair in pairs if places[sets[pair.first]] == place]
            telling = sorted(
                across[: 50 * _SHOWN_PAIRS], key=lambda pair: not _divided(looks, pair, division)
            )
            yield _near_finding(level, check, items, [_pair(looks, pair) for pair in telling], place[1])


def _near_finding(
    level: Level, check: str, items: Sequence[Item], pairs: Sequence[Pair], where: str
) -> Finding:
    alike = (
        f"nearly identical (correlation {SAME:g} or more)"
        if check == "nearly_identical"
        else f"much alike (correlation {NEAR:g} or more)"
    )
    examples = [
        f"{pair.one} ~ {pair.other} {pair.correlation:.2f}{' turned' * pair.turned}" for pair in pairs
    ]
    return Finding(
        level=level,
        check=check,
        text=f"{len(items)} images are {alike} to another one, {where} ({shown(examples)})",
        advice=_ADVICE,
        items=tuple(item.name for item in items),
        pairs=tuple(pairs[:_SHOWN_PAIRS]),
    )


def _divided(looks: Sequence[Look], pair: Alike, division: Division) -> bool:
    return division.apart([looks[pair.first].item, looks[pair.second].item])[0] == "refuse"


def _pair(looks: Sequence[Look], pair: Alike) -> Pair:
    one, other = looks[pair.first].item.name, looks[pair.second].item.name
    return Pair(one=one, other=other, correlation=round(min(pair.correlation, 1.0), 4), turned=pair.turn != 0)


def _sets(count: int, pairs: Sequence[Alike]) -> list[int]:
    """Return the number of the set that each image is in; pairs connect sets."""
    ends = np.array([pair[:2] for pair in pairs], np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs), bool), (ends[0], ends[1])), shape=(count, count))
    numbers: list[int] = connected_components(graph, directed=False)[1].tolist()
    return numbers


def _same(looks: Sequence[Look], key: Callable[[Look], str]) -> list[list[Item]]:
    found: defaultdict[str, list[Item]] = defaultdict(list)
    for look in looks:
        found[key(look)].append(look.item)
    return [items for content, items in found.items() if content and len(items) > 1]
