"""Which trials differ: intervals of means, the best against the others, and all pairs of the first."""

from __future__ import annotations

import math
from typing import NamedTuple

from microseg.report.leaderboard import Row, StudyView
from microseg.statistics import Comparison, Pairs, against, corrected_t, holm, pairs

LEVEL = 0.05
MOST_PAIRED = 12  # trials of which all pairs are compared: more fill the page, and Holm corrects for all


class Rival(NamedTuple):
    """A trial beside the best: by how much it is behind, and p after Holm over all such comparisons."""

    row: Row
    behind: Comparison
    corrected: float

    @property
    def differs(self) -> bool:
        """Whether it can be told apart from the best."""
        return self.corrected < LEVEL


class Matrix(NamedTuple):
    """All pairs of some trials; a positive difference favours the trial of the row."""

    rows: list[Row]
    pairs: Pairs


def interval(row: Row, study: StudyView) -> Comparison | None:
    """Return the 95 % interval of a mean over all folds by the corrected t-test; None where there is none."""
    if study.ratio is None or not _whole(row, study):
        return None
    return corrected_t(row.scores, study.ratio.value)


def rivals(study: StudyView) -> list[Rival]:
    """Compare the best trial with every other that has all folds, fold by fold, in the order of ranks."""
    rows = _compared(study)
    if study.ratio is None or len(rows) < 2 or rows[0] is not study.ranked[0]:
        return []
    found = against(_table(rows, study), 0, study.ratio.value)
    corrected = holm([one.p for one in found]).tolist()
    return [Rival(*each) for each in zip(rows[1:], found, corrected, strict=True)]


def matrix(study: StudyView, most: int = MOST_PAIRED) -> Matrix | None:
    """Compare the first trials pair by pair; None where there are fewer than three."""
    rows = _compared(study)[:most]
    if study.ratio is None or len(rows) < 3:
        return None
    return Matrix(rows, pairs(_table(rows, study), study.ratio.value))


def _compared(study: StudyView) -> list[Row]:
    """Return the ranked trials with a number in every fold."""
    return [row for row in study.ranked if _whole(row, study)]


def _whole(row: Row, study: StudyView) -> bool:
    return len(row.scores) == study.folds and all(map(math.isfinite, row.scores))


def _table(rows: list[Row], study: StudyView) -> list[list[float]]:
    """Return the fold scores by trial, larger is better."""
    return [[study.sign * score for score in row.scores] for row in rows]
