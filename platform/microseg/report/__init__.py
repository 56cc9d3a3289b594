"""What a study found: the leaderboard for the terminal and for MLflow, and one HTML page."""

from microseg.report.comparisons import interval, matrix, rivals
from microseg.report.html import log_page, page
from microseg.report.leaderboard import Row, StudyView, find_study, view
from microseg.report.marks import mark
from microseg.report.pareto import front
from microseg.report.pictures import EXAMPLES
from microseg.report.replicates import Repeats, repeats, resolvable
from microseg.report.sentences import comparison, repetition, resolution, score, summary, verdict
from microseg.report.tables import frame, repeats_frame, repeats_table, terminal_table

__all__ = [
    "EXAMPLES",
    "Repeats",
    "Row",
    "StudyView",
    "comparison",
    "find_study",
    "frame",
    "front",
    "interval",
    "log_page",
    "mark",
    "matrix",
    "page",
    "repeats",
    "repeats_frame",
    "repeats_table",
    "repetition",
    "resolution",
    "resolvable",
    "rivals",
    "score",
    "summary",
    "terminal_table",
    "verdict",
    "view",
]
