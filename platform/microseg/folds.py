"""Grouped, stratified, hold-out aware folds; pure functions of a manifest."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

from microseg.config import Strict, parse, read_yaml
from microseg.data.files import replacing
from microseg.data.manifest import Item, Manifest
from microseg.errors import MicrosegError

# A hold-out of fewer groups says little about new ones; where there are enough, at least this many are kept.
_ENOUGH_HOLDOUT_GROUPS = 6
_ENOUGH_GROUPS = 12
_SINGLE_FOLD_PARTS = 5  # one fold alone validates on a fifth


class Fold(Strict):
    """One fold: the names of the items that train and of those that validate."""

    index: int
    train: tuple[str, ...]
    valid: tuple[str, ...]


T = TypeVar("T")


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Choose at most so many items, the first one and others evenly spaced: the same ones every time."""
    places = np.linspace(0, len(items), min(most, len(items)), endpoint=False).astype(int)
    return [items[place] for place in places]


class Splits(Strict):
    """The groups set aside for the final test, as a splits file keeps them.

    Groups that join the data set later are not named here and therefore train.
    """

    dataset: str
    fraction: float
    seed: int
    holdout: tuple[str, ...]


def splits_file(manifest: Manifest, home: Path) -> Path:
    """Return the file that keeps the hold-out of a data set, which all its studies share."""
    place = hashlib.sha256(manifest.source.encode()).hexdigest()[:8]
    return home / "splits" / f"{manifest.name}-{place}.yaml"


def split_holdout(manifest: Manifest, fraction: float, seed: int, file: Path) -> tuple[Manifest, Manifest]:
    """Divide a data set into what a search may see and what it may not.

    A given test split is the hold-out. Otherwise the groups in the splits file are; where there is no
    such file yet, whole groups are drawn, over all strata and group sizes, and the file is written.

    Parameters
    ----------
    manifest : Manifest
        The whole data set.
    fraction : float
        The share of groups to set aside, 0 to 1; at least 6 groups where there are 12 or more.
    seed : int
        Decides which groups are drawn.
    file : Path
        The splits file (YAML); later studies of the same data give the same one.

    Returns
    -------
    development, holdout : Manifest
        Without common groups; the hold-out has no items where the fraction is 0.

    Raises
    ------
    MicrosegError
        If a group is on both sides of a given test split, too few groups would be left, or the file
        belongs to another data set or holds out groups although the fraction is 0.
    """
    if any(item.split == "test" for item in manifest.items):
        tested = {item.group for item in manifest.items if item.split == "test"}
        _refuse_shared(tested, {item.group for item in manifest.items if item.split != "test"}, "test")
    else:
        tested = set(_read_or_draw(manifest, fraction, seed, file))
    development = tuple(item for item in manifest.items if item.group not in tested)
    held = tuple(item for item in manifest.items if item.group in tested)
    if not development:
        raise MicrosegError(f"{manifest.name}: every item is in the test split; leave some to train on")
    return manifest.model_copy(update={"items": development}), manifest.model_copy(update={"items": held})


def make_folds(manifest: Manifest, k: int, seed: int) -> list[Fold]:
    """Divide the items into folds by whole groups, balanced over strata and sizes.

    Groups are dealt out stratum by stratum, the large ones first, each to the fold that has the least
    of its strata and then the fewest items: where groups are of equal size, a stratum's counts differ
    by at most one group between folds.

    Parameters
    ----------
    manifest : Manifest
        Items of the split ``test`` take no part.
    k : int
        Number of folds; 1 gives a single fold that validates on about a fifth of the groups.
    seed : int
        Decides which of equal groups goes where. The order of the items does not matter.

    Returns
    -------
    list of Fold
        Every item validates in exactly one fold (with k of 1: at most once).

    Raises
    ------
    MicrosegError
        If there are fewer groups than folds.
    """
    items = [item for item in manifest.items if item.split != "test"]
    groups = len({item.group for item in items})
    needed = max(k, 2)
    if k < 1 or groups < needed:
        raise MicrosegError(
            f"{manifest.name}: {k} folds of {groups} groups; at least 1 fold and {needed} groups are needed:"
            " ask for fewer folds, or add groups (specimens, sessions)"
        )
    parts = _deal(items, k if k > 1 else min(_SINGLE_FOLD_PARTS, groups), seed)
    return [_fold(index, items, set(parts[index])) for index in range(k)]


def given_fold(manifest: Manifest) -> list[Fold]:
    """Use the data set's own train and valid splits, as a single fold.

    Raises
    ------
    MicrosegError
        If an item has no split, one of the two is empty, or a group is on both sides.
    """
    items = [item for item in manifest.items if item.split != "test"]
    unsplit = next((item.name for item in items if item.split is None), None)
    if unsplit is not None:
        raise MicrosegError(
            f"{manifest.name}: item '{unsplit}' has no split; state train or valid, or ask for k folds"
        )
    sides = {side: {item.group for item in items if item.split == side} for side in ("train", "valid")}
    empty = [side for side, groups in sides.items() if not groups]
    if empty:
        raise MicrosegError(
            f"{manifest.name}: no item has the split '{empty[0]}'; add some, or ask for k folds"
        )
    _refuse_shared(sides["valid"], sides["train"], "valid")
    return [_fold(0, items, sides["valid"])]


def _fold(index: int, items: Sequence[Item], valid: set[str]) -> Fold:
    return Fold(
        index=index,
        train=tuple(sorted(item.name for item in items if item.group not in valid)),
        valid=tuple(sorted(item.name for item in items if item.group in valid)),
    )


def _deal(items: Sequence[Item], parts: int, seed: int) -> list[list[str]]:
    """Deal groups to parts, see `make_folds`; no part stays empty where there are enough groups."""
    strata = _strata_of_groups(items)
    totals = sum(strata.values(), Counter())
    dealt: list[list[str]] = [[] for _ in range(parts)]
    loads: list[Counter[str]] = [Counter() for _ in range(parts)]

    def load(part: int, group: str) -> tuple[float, int]:
        shared = sum(
            count * loads[part][stratum] / totals[stratum] for stratum, count in strata[group].items()
        )
        return shared, loads[part].total()

    for group in _dealing_order(strata, seed):
        part = min(range(parts), key=lambda part: load(part, group))
        dealt[part].append(group)
        loads[part] += strata[group]
    return dealt


def _strata_of_groups(items: Sequence[Item]) -> dict[str, Counter[str]]:
    """Count the items of each stratum in each group."""
    strata: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item in sorted(items, key=lambda item: item.name):  # the sums below must not depend on their order
        strata[item.group][item.stratum] += 1
    return dict(strata)


def _main_stratum(counts: Counter[str]) -> str:
    return min(counts, key=lambda stratum: (-counts[stratum], stratum))


def _dealing_order(strata: dict[str, Counter[str]], seed: int) -> list[str]:
    """Order groups by main stratum and falling size; equals in an order that the seed decides."""
    shuffled = np.random.default_rng(seed).permutation(sorted(strata)).tolist()
    return sorted(shuffled, key=lambda group: (_main_stratum(strata[group]), -strata[group].total()))


def _read_or_draw(manifest: Manifest, fraction: float, seed: int, file: Path) -> tuple[str, ...]:
    if file.exists():
        return _kept(parse(Splits, read_yaml(file), str(file)), manifest, fraction, file)
    if fraction == 0:
        return ()
    splits = Splits(
        dataset=manifest.name, fraction=fraction, seed=seed, holdout=tuple(_draw(manifest, fraction, seed))
    )
    with replacing(file) as handle:
        handle.write(
            yaml.safe_dump(splits.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode()
        )
    return splits.holdout


def _kept(splits: Splits, manifest: Manifest, fraction: float, file: Path) -> tuple[str, ...]:
    """Check that a splits file fits the data set and what is asked for."""
    if fraction == 0 and splits.holdout:
        raise MicrosegError(
            f"{file}: {len(splits.holdout)} groups are set aside here, but a hold-out of 0 is asked for;"
            " name another splits file, or delete this one to give up the hold-out for good"
        )
    if splits.holdout and not set(splits.holdout) & set(manifest.groups):
        raise MicrosegError(
            f"{file}: none of its groups, '{splits.holdout[0]}' among them, is in {manifest.name};"
            f" it was written for {splits.dataset}: name another splits file"
        )
    return splits.holdout


def _draw(manifest: Manifest, fraction: float, seed: int) -> list[str]:
    """Draw groups evenly along their dealing order, so that strata and sizes are all represented."""
    strata = _strata_of_groups(manifest.items)
    least = _ENOUGH_HOLDOUT_GROUPS if len(strata) >= _ENOUGH_GROUPS else 1
    count = max(least, round(fraction * len(strata)))
    if count > len(strata) - 2:
        raise MicrosegError(
            f"{manifest.name}: setting aside {count} of {len(strata)} groups leaves fewer than 2 to train"
            " and validate;"
            " add groups, or ask for a smaller hold-out (0 for none)"
        )
    rng = np.random.default_rng(seed)
    stretches = np.array_split(np.array(_dealing_order(strata, seed), dtype=object), count)
    return sorted(str(rng.choice(stretch)) for stretch in stretches)


def _refuse_shared(one: set[str], other: set[str], split: str) -> None:
    shared = sorted(one & other)
    if shared:
        raise MicrosegError(
            f"group '{shared[0]}' is in the given {split} split and outside it ({len(shared)} such groups);"
            " a group stays on one side: mend the split, or leave the split column out"
        )
