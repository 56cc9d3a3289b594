"""What a study keeps of networks and pictures once it has ended, and how large that is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import get_args

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.report import Row, StudyView
from microseg.search.records import TrialRecord
from microseg.tracking import fold as tracked
from microseg.tracking import tree
from microseg.tracking.keeping import NETWORK, PICTURES, REMOVED, artifact_bytes, remove, size, store_size
from microseg.tracking.tree import StudyRun
from microseg.training import State
from microseg.training.results import MODEL, fold_folder

GOES_ON = ("running", "interrupted")  # resuming needs all that such a trial has left


def bound(config: SearchConfig, folds: int) -> str:
    """Say, before a search, how many networks and pictures of how many trials it will have at its end."""
    repeats = config.replicates * min(config.finalists, config.trials)
    few = min(_whole(config), config.trials)
    models = config.trials + repeats if config.keep in ("all", "models") else few * (1 + config.replicates)
    best = f"the best {few} trials" if few > 1 else "the best trial"
    pictures = f"pictures of {'all trials' if config.keep == 'all' else best}"
    return f"keeps at most {models * folds} networks, and {pictures} (keep: {config.keep})"


def _whole(config: SearchConfig) -> int:
    return 1 if config.keep == "best" else config.finalists


def chosen(config: SearchConfig, view: StudyView) -> frozenset[str]:
    """Return the names of the trials of which all is kept; their repeats belong to them."""
    rows = view.rows if config.keep == "all" else view.ranked[: _whole(config)]
    return frozenset(row.name for row in rows)


def to_remove(config: SearchConfig, whole: Collection[str], row: Row, fold_state: str) -> tuple[str, ...]:
    """Return what is removed of a fold: nothing, its pictures, or its network too.

    Parameters
    ----------
    config : SearchConfig
        What is to be kept.
    whole : collection of str
        The trials of which all is kept, from `chosen`.
    row : Row
        The trial, or the repeat of one, that the fold belongs to.
    fold_state : str
        How the fold ended.
    """
    if row.state in GOES_ON or config.keep == "all" or (row.replicate_of or row.name) in whole:
        return ()
    if config.keep == "models" and fold_state == "completed":
        return (PICTURES,)
    return (NETWORK, PICTURES)


def tidy(client: MlflowClient, view: StudyView, config: SearchConfig, workdir: Path) -> str:
    """Remove what a study does not keep, in MLflow and of its folder's copies, and say how large the rest is.

    What MLflow has of a study stays readable: metrics, configurations, results of folds. Of the trials that
    do not keep all, the study's folder keeps no network; `restore` fetches one that MLflow has. A store that
    refuses is asked once: files stay where they are, which is said and ends nothing.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    view : StudyView
        The study, its trials ranked.
    config : SearchConfig
        What is kept.
    workdir : Path
        The study's folder.

    Returns
    -------
    str
        One line for the terminal.
    """
    whole = chosen(config, view)
    runs = list(_folds(client, view))
    try:
        for row, run in runs:
            state = run.data.tags.get(tree.STATE, "")
            unwanted = [part for part in to_remove(config, whole, row, state) if _has(run, part)]
            remove(client, run, unwanted, f"keep: {config.keep}")
        kept = sum(artifact_bytes(client, run) for run in (view.run, *(run for _, run in runs)))
        text = f"{size(kept)} of networks, pictures and tables (keep: {config.keep})"
    except MicrosegError as error:
        return f"not all that keep: {config.keep} leaves out could be removed and the rest counted: {error}"
    for row in (*view.rows, *view.replicates):
        if row.state not in GOES_ON and (row.replicate_of or row.name) not in whole:
            _remove_copies(workdir / row.name)
    return f"{text}, tracking store {store_size(client)}"


def _has(run: Run, part: str) -> bool:
    """Say whether a fold's run has left pictures, or a network, which comes with its outcome."""
    if part == PICTURES:
        return tracked.HAS_PICTURES in run.data.tags
    return run.data.tags.get(tree.STATE) in get_args(State)


def _folds(client: MlflowClient, view: StudyView) -> Iterator[tuple[Row, Run]]:
    """Yield the runs of all folds with the trials they belong to."""
    owners = {run_id: row for row in (*view.rows, *view.replicates) for run_id in row.fold_runs}
    for run in list(tree.study_folds(client, view.run)):
        if run.info.run_id in owners:  # another study may have the name
            yield owners[run.info.run_id], run


def _remove_copies(folder: Path) -> None:
    for network in folder.glob(f"fold-*/{MODEL}"):
        network.unlink(missing_ok=True)


def restore(
    client: MlflowClient, run: StudyRun, best: TrialRecord, folds: Sequence[Fold], workdir: Path
) -> None:
    """Fetch from MLflow the networks of a trial that the study's folder no longer has.

    Raises
    ------
    MicrosegError
        If MLflow has not kept them either.
    """
    missing = [fold for fold in folds if not (fold_folder(workdir, fold) / MODEL).is_file()]
    runs = {one.info.run_name: one for one in tree.children(client, run.experiment_id, best.run_id)}
    for fold in missing:
        own = runs[tree.fold_name(best.name, fold.index)]
        try:
            _fetch(client, own.info.run_id, fold_folder(workdir, fold) / MODEL)
        except (OSError, MlflowException) as error:
            why = own.data.tags.get(REMOVED + NETWORK, "it is not among the files of its run")
            raise MicrosegError(
                f"the network of {own.info.run_name}, the best trial of study '{run.name}', is gone ({why}); "
                f"train it again: microseg crossval --config {workdir.parent / 'best.yaml'}"
            ) from error


def _fetch(client: MlflowClient, run_id: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="microseg-") as scratch:
        found = client.download_artifacts(run_id, tracked.MODEL, scratch)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, path)
