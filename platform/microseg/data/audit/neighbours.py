"""Neighbouring slices or frames, which are nearly the same image, on both sides of a division."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from microseg.data.audit.findings import Division, Finding, Level, Pair, shown
from microseg.data.audit.groups import AXIS_WORDS, session_regex
from microseg.data.audit.likeness import correlations
from microseg.data.audit.looks import Look
from microseg.data.images import Array

_RANDOM_PAIRS = 2000
_ENOUGH = 5  # pairs: the median of fewer says little
_SHOWN_PAIRS = 12


class Neighbours(NamedTuple):
    """Pairs of consecutive images, by their positions; ``stated``: names say that they are of one stack."""

    pairs: list[tuple[int, int]]
    stacks: int
    stated: bool


def neighbouring(names: Sequence[str]) -> Neighbours:
    """Find the images that follow each other in a stack, movie or session, by their file names.

    Names that number slices, frames or fields (``z012``, ``_t034``, ``slice-17``) say so; a running number
    only may mean it. Numbers may be missing: what follows next in the set is the neighbour.
    """
    slices = re.compile(rf"^(.*?)(?:^|[ _.-])(?:{AXIS_WORDS})[ _-]?\d+(?=[ _.-]|$)", re.IGNORECASE)
    stated = [found.group(1) if (found := slices.search(name)) else None for name in names]
    if any(stack is not None for stack in stated):
        return _consecutive(names, stated, True)
    session = session_regex(names) or r"^(.*?)\d+$"
    running = [found.group(1) if (found := re.search(session, name)) else None for name in names]
    return _consecutive(names, running, False)


def _consecutive(names: Sequence[str], stacks: Sequence[str | None], stated: bool) -> Neighbours:
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, stack in enumerate(stacks):
        if stack is not None:
            members[stack].append(index)
    pairs = []
    for stack, indices in members.items():
        rest = {index: _numbers(names[index][len(stack) :]) for index in indices}
        order = sorted(indices, key=lambda index: (rest[index], names[index]))
        pairs += list(pairwise(order))
    return Neighbours(pairs, sum(len(indices) > 1 for indices in members.values()), stated)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def divided_neighbours(looks: Sequence[Look], fine: Array, division: Division) -> Iterator[Finding]:
    """Report neighbours that a division has on both sides, and whether their pixels are alike.

    Parameters
    ----------
    looks : sequence of Look
    fine : ndarray, shape (images, 64, 64)
        The `microseg.data.audit.likeness.details` of their thumbnails.
    division : Division
        How the images are divided.
    """
    names = [look.item.images[0].stem for look in looks]
    found = neighbouring(names)
    places: defaultdict[tuple[Level, str], list[tuple[int, int]]] = defaultdict(list)
    for pair in found.pairs:
        level, where = division.apart([looks[index].item for index in pair])
        if level != "note":
            places[level, where].append(pair)
    if not places:
        return
    near, usual, alike = _compare(fine, found.pairs)
    for (_, where), pairs in places.items():
        if alike or found.stated:
            measured = (
                f"they correlate by {near:.2f}, random pairs by {usual:.2f} (medians)"
                if alike
                else f"yet they are no more alike ({near:.2f}) than random pairs ({usual:.2f})"
            )
            text = f"{len(pairs)} pairs of neighbouring images of {found.stacks} stacks lie {where}"
            yield _finding(looks, fine, pairs, f"{text}; {measured}", "warn" if alike else "note")


def _compare(fine: Array, pairs: Sequence[tuple[int, int]]) -> tuple[float, float, bool]:
    """Return the median correlations of neighbours and random pairs, and whether neighbours stand out."""
    near = correlations(*fine[np.array(pairs).T])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(fine), (2, _RANDOM_PAIRS))
    drawn = drawn[:, np.abs(drawn[0] - drawn[1]) > 1]  # in the order of names, most neighbours are left out
    usual = correlations(*fine[drawn]) if drawn.size else np.zeros(1)
    middle = float(np.median(near))
    stands_out = len(near) >= _ENOUGH and middle > np.quantile(usual, 0.95)
    return middle, float(np.median(usual)), bool(stands_out)


def _finding(
    looks: Sequence[Look], fine: Array, pairs: Sequence[tuple[int, int]], text: str, level: Level
) -> Finding:
    values = correlations(*fine[np.array(pairs).T])
    order = np.argsort(-values)[:_SHOWN_PAIRS].tolist()
    names = [(looks[one].item.name, looks[other].item.name) for one, other in pairs]
    shown_pairs = [
        Pair(one=names[index][0], other=names[index][1], correlation=round(float(values[index]), 4))
        for index in order
    ]
    pattern = session_regex([look.item.images[0].stem for look in looks])
    advice = (
        f"keep each stack in one group: --group-regex '{pattern}'"
        if pattern
        else "keep each stack in one group, and validate on other stacks than those trained on"
    )
    examples = shown([f"{pair.one} and {pair.other}" for pair in shown_pairs])
    return Finding(
        level=level,
        check="neighbours",
        text=f"{text} ({examples})",
        advice=advice,
        items=tuple(dict.fromkeys(name for pair in names for name in pair)),
        pairs=tuple(shown_pairs),
    )
