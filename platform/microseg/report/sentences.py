"""What a study found in words: no more than was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from microseg.errors import counted
from microseg.report.comparisons import LEVEL, Rival, rivals
from microseg.report.formats import listed, probability
from microseg.report.leaderboard import Row, StudyView
from microseg.report.replicates import repeats, resolvable

# How a trial may end, in the order of a summary, and what is said of it; others are named as they are.
ENDS = {
    "completed": "with all folds",
    "pruned": "pruned by ASHA",
    "raced_out": "raced out",
    "out_of_memory": "out of memory",
    "diverged": "diverged",
    "collapsed": "collapsed",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "running",
}
DECIDED = ("completed", "pruned", "raced_out")  # by their scores
FAULTS = ("out_of_memory", "diverged", "collapsed", "failed")


def state(row: Row) -> str:
    """Return a trial's state in plain words, with the reason unless it is completed."""
    words = row.state.replace("_", " ")
    told = row.state == "completed" or row.reason in ("", row.state)
    return words if told else f"{words} ({row.reason})"


def score(row: Row) -> str:
    """Return a trial's mean and standard deviation over folds, such as ``0.871 ± 0.012``."""
    if row.mean is None:
        return ""
    return f"{row.mean:.4f}" + (f" ± {row.std:.4f}" if row.std is not None else "")


def measured(row: Row) -> str:
    """Return the score of a ranked trial, or a mean over fewer folds, which is another quantity, as such."""
    if row.rank is not None or not row.scores:
        return score(row)
    return f"{fmean(row.scores):.4f} ({counted(len(row.scores), 'fold')})"


def summary(study: StudyView) -> str:
    """Say what became of the trials, and how many fold trainings it took; one or two lines."""
    if not study.rows:
        return "no trials yet"
    found = {row.state for row in study.rows}
    known = [name for name in ENDS if name in found] + sorted(found - set(ENDS))
    counts = ", ".join(_count([row for row in study.rows if row.state == name]) for name in known)
    lines = [f"{counted(len(study.rows), 'trial')}: {counts}", _saving(study)]
    return "\n".join(line for line in lines if line)


def _count(rows: Sequence[Row]) -> str:
    """Count the trials of one state; those with a fault are named, so that somebody looks."""
    name = rows[0].state
    text = f"{len(rows)} {ENDS.get(name, name.replace('_', ' '))}"
    if name not in FAULTS:
        return text
    names = [row.name for row in rows[:3]] + ["..."] * (len(rows) > 3)
    return f"{text} ({', '.join(names)})"


def _saving(study: StudyView) -> str:
    """Compare the fold trainings with full cross-validation of the trials that were decided by their scores.

    One that was begun counts as a whole, also where ASHA cut it short. Trials with a fault count on neither
    side: full cross-validation would have met the same fault. Empty where nothing was saved.
    """
    rows = [row for row in study.rows if row.state in DECIDED]
    used, full = sum(len(row.fold_runs) for row in rows), len(rows) * study.folds
    if used >= full:
        return ""
    return f"{used} of {full} fold trainings of full cross-validation, {100 * (1 - used / full):.0f} % saved"


def comparison(study: StudyView) -> str:
    """Say in words how the two best trials compare, fold by fold, claiming no more than was measured."""
    if len(study.ranked) < 2:
        return ""
    first, second = study.ranked[:2]
    pairs = list(zip(first.scores, second.scores, strict=False))
    better = sum(study.sign * a > study.sign * b for a, b in pairs)
    return f"{first.name} is better than {second.name} in {better} of {counted(len(pairs), 'fold')}."


def verdict(study: StudyView) -> str:
    """Say which trials cannot be told apart from the best on these data, by Holm's correction."""
    if len(study.ranked) < 2:
        return ""
    if study.folds < 2:
        return "One fold cannot say which differences are chance."
    found = rivals(study)
    if not found:
        return ""
    if len(found) == 1:
        return _alone(found[0], study.ranked[0].name)
    best, alike = study.ranked[0].name, [rival.row.name for rival in found if not rival.differs]
    if not alike:
        return f"{listed([rival.row.name for rival in found])} differ from {best} {_after(found)}."
    differ = len(found) - len(alike)
    count = f"{differ or 'None'} of {len(found)} rivals of {best}"
    text = f"{count} {'differ' if differ > 1 else 'differs'} from it {_after(found)}"
    return f"{text}: {listed(alike)} cannot be told apart from {best} on this data."


def _alone(rival: Rival, best: str) -> str:
    p = probability(rival.behind.p)
    if rival.differs:
        return f"{rival.row.name} differs from {best} at {LEVEL:g} (p {p})."
    return f"{rival.row.name} cannot be told apart from {best} on this data (p {p})."


def _after(found: Sequence[Rival]) -> str:
    return f"at {LEVEL:g} after Holm's correction over {len(found)} comparisons"


def resolution(study: StudyView) -> str:
    """Say how far apart two typical trials must be for these folds to tell them apart."""
    difference = resolvable(study)
    if difference is None:
        return ""
    return (
        f"With these {study.folds} folds a difference must exceed about {difference:.2g} "
        "to be told from chance, even where only two are compared."
    )


def repetition(study: StudyView) -> str:
    """Say how finalists score with other seeds, and how far one moves a score; empty without repeats."""
    found = [(entry.mean, entry) for entry in repeats(study) if entry.mean is not None]
    if not found:
        return ""
    mean, first = found[0]
    text = f"With other seeds {first.trial} has {mean:.4f}, in the search it had {first.chosen:.4f}"
    ahead, other = max(found, key=lambda pair: study.sign * pair[0])
    if other is not first:
        text += f"; {other.trial} is ahead of it with {ahead:.4f}"
    return (
        f"{text}. The seed alone moves a mean over folds by about {_pooled(study):.2g} (standard deviation)."
    )


def _pooled(study: StudyView) -> float:
    """Return the standard deviation between seeds within finalists, weighted by degrees of freedom."""
    known = [(entry.seeds - 1, entry.seed_sd) for entry in repeats(study) if entry.seed_sd is not None]
    return math.sqrt(sum(free * sd**2 for free, sd in known) / sum(free for free, _ in known))
