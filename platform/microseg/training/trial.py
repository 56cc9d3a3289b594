"""Train the folds of one configuration, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from microseg.config import TrialConfig
from microseg.folds import Fold
from microseg.training.checkpoint import discard_checkpoints
from microseg.training.fold import train_fold
from microseg.training.results import FoldResult, Progress, Report, TrainingData, finished_fold, replay


def run_trial(
    config: TrialConfig, data: TrainingData, folds: Sequence[Fold], workdir: Path, report: Report
) -> tuple[FoldResult, ...]:
    """Train the folds of a configuration in order; a fold that was finished here before is not trained again.

    Such a fold's epochs and result are reported as replayed. A fold that diverged or collapsed is the last:
    no mean over all folds can come of it.

    Parameters
    ----------
    config, data, workdir, report
        As in `train_fold`.
    folds : sequence of Fold
        In the order in which they are trained.

    Returns
    -------
    tuple of FoldResult
        Of the folds that were trained, now or before, in their order.
    """
    results: list[FoldResult] = []
    for fold in folds:
        done = finished_fold(config, data, fold, workdir)
        if done:
            replay(done.history, fold, report)
            report(Progress(fold.index, done.best_epoch, done.metrics, result=done, replayed=True))
        results.append(done or train_fold(config, data, fold, workdir, report))
        if results[-1].state != "completed":
            break
    discard_checkpoints(workdir)  # a kill right after a result leaves one
    return tuple(results)
