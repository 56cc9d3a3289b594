"""Statistics of comparison: pure functions of arrays, each with its reference.

A larger score is better: whoever minimises negates.
"""

from microseg.statistics.comparison import Comparison, Pairs, against, corrected_t, holm, pairs
from microseg.statistics.hold_out import FEWEST_GROUPS, LEAST, Gate, gate, group_means, half_width, level
from microseg.statistics.racing import Verdict, decide, incumbent, noise, race
from microseg.statistics.repeats import Interval, SeedSpread, next_score, seed_spread, smallest_difference

__all__ = [
    "FEWEST_GROUPS",
    "LEAST",
    "Comparison",
    "Gate",
    "Interval",
    "Pairs",
    "SeedSpread",
    "Verdict",
    "against",
    "corrected_t",
    "decide",
    "gate",
    "group_means",
    "half_width",
    "holm",
    "incumbent",
    "level",
    "next_score",
    "noise",
    "pairs",
    "race",
    "seed_spread",
    "smallest_difference",
]
