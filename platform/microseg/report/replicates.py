"""Finalists trained again with other seeds, and the smallest difference that the folds can resolve."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from microseg.report.leaderboard import Row, StudyView, complete
from microseg.statistics import seed_spread, smallest_difference


@dataclass(frozen=True)
class Repeats:
    """One finalist and its repeats with other seeds.

    ``chosen`` is the mean over folds by which the search chose it, ``mean`` that over the repeats alone:
    the best of many trials owes some of its score to its seed, the repeats do not. ``seed_sd`` is between
    all seeds, the first one too, of the mean over folds; ``fold_sd`` is between folds, of the mean over
    seeds. ``incomplete`` are repeats that lack a fold and do not enter.
    """

    trial: str
    chosen: float
    mean: float | None
    seed_sd: float | None
    fold_sd: float | None
    seeds: int
    incomplete: tuple[Row, ...]


def repeats(study: StudyView) -> list[Repeats]:
    """Return what the repeats of each finalist say, the best finalist first; empty without repeats."""
    again = {row.replicate_of for row in study.replicates}
    return [_of(row, study) for row in study.ranked if row.name in again]


def _of(finalist: Row, study: StudyView) -> Repeats:
    own = [row for row in study.replicates if row.replicate_of == finalist.name]
    done = [row for row in own if complete(row) and len(row.scores) == len(finalist.scores)]
    spread = seed_spread([row.scores for row in (finalist, *done)])
    return Repeats(
        trial=finalist.name,
        chosen=fmean(finalist.scores),
        mean=fmean(fmean(row.scores) for row in done) if done else None,
        seed_sd=spread.seeds,
        fold_sd=spread.folds,
        seeds=1 + len(done),
        incomplete=tuple(row for row in own if row not in done),
    )


def resolvable(study: StudyView) -> float | None:
    """Return the smallest difference of two trials' means that these folds can tell from chance.

    It is None with one fold or fewer than two ranked trials (see `microseg.statistics.smallest_difference`).
    """
    if study.ratio is None:
        return None
    return smallest_difference([row.scores for row in study.ranked], study.ratio.value)
