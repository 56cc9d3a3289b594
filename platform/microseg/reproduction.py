"""Train a recorded fold again, and say whether the result holds."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from microseg import report
from microseg.data.manifest import Item, Manifest
from microseg.data.open import open_dataset
from microseg.errors import MicrosegError
from microseg.importing import IMPORTED
from microseg.report.leaderboard import complete
from microseg.runtime import threads
from microseg.statistics import Interval, next_score
from microseg.storage import cache
from microseg.study.provenance import FoldProvenance, read_fold
from microseg.tracking import store, tree
from microseg.tracking.environment import differences, environment
from microseg.training import TrainingData, train_fold
from microseg.training.results import fingerprint

_NAMED = 3  # files that a message names; the rest it counts


@dataclass(frozen=True)
class Spread:
    """Where a score may lie that is as good as the recorded one, and what that is measured by."""

    interval: Interval
    source: str


@dataclass(frozen=True)
class Reproduction:
    """A fold that was trained again.

    ``recorded`` and ``again`` are its scores by ``metric``, ``same_weights`` says whether the networks are
    equal bit for bit, ``spread`` is None where nothing was recorded that tells how much scores vary, and
    ``differences`` name what is not as it was then.
    """

    name: str
    metric: str
    recorded: float
    again: float
    same_weights: bool
    spread: Spread | None
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """False only where the score lies outside the recorded spread."""
        if self.spread is None or self.recorded == self.again:
            return True
        low, high = self.spread.interval
        return low <= self.again <= high

    @property
    def verdict(self) -> str:
        """The comparison in one line."""
        numbers = f"{self.name}: {self.metric} was {self.recorded:.4f}, is {self.again:.4f}"
        if self.same_weights:
            return f"{numbers}: equal, and all weights are equal bit for bit"
        if self.recorded == self.again:
            return f"{numbers}: equal, though not all weights are"
        if self.spread is None:
            return f"{numbers}: neither repeats nor other folds were recorded to compare the difference with"
        low, high = self.spread.interval
        where = "within" if self.holds else "OUTSIDE"
        return f"{numbers}: {where} {low:.4f} to {high:.4f}, {self.spread.source}"


def reproduce(run_id: str, data: str | Path | None = None) -> Reproduction:
    """Train the fold of a run again: the same configuration, images, seed and number of threads.

    Parameters
    ----------
    run_id : str
        The MLflow run of a fold, of a trial or of a replicate.
    data : str or Path, optional
        Path or ``s3://`` URI of the images now, if not where the study found them.

    Returns
    -------
    Reproduction
        Both scores, and whether the new one lies within the spread that was recorded: between seeds where
        the trial was repeated with others, else between the trial's folds. On one thread of a processor, with
        the code and the packages of then, all weights are equal.

    Raises
    ------
    MicrosegError
        If the run is no completed fold, its network was imported, or a file that it was trained with has
        changed.
    """
    client = store.connect()
    run = _fold_run(client, run_id)
    then = read_fold(client, run_id)
    if then.config.model.name == IMPORTED:
        raise MicrosegError(f"run '{run_id}' judged an imported network; it was trained elsewhere, not here")
    images = _unchanged(then, data)
    if then.environment.threads:
        with contextlib.suppress(MicrosegError):  # TensorFlow runs already: the difference is told at the end
            threads(then.environment.threads)
    with tempfile.TemporaryDirectory(prefix="microseg-") as scratch:
        result = train_fold(then.config, images, then.fold, Path(scratch), lambda progress: None)
    metric = then.request.config.metric
    recorded = run.data.metrics[f"final/{metric.removeprefix('val/')}"]
    return Reproduction(
        name=str(run.info.run_name),
        metric=metric,
        recorded=recorded,
        again=result.metrics[metric],
        same_weights=result.weights == then.weights,
        spread=_spread(client, run, then.fold.index, recorded),
        differences=tuple(differences(then.environment, environment(then.config.precision))),
    )


def _fold_run(client: MlflowClient, run_id: str) -> Run:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise MicrosegError(
            f"there is no run '{run_id}' in {client.tracking_uri}; copy a fold's run id"
        ) from error
    if run.data.tags.get(tree.LEVEL) != "fold" or run.data.tags.get(tree.STATE) != "completed":
        what = run.data.tags.get(tree.LEVEL, "run of another program")
        state = run.data.tags.get(tree.STATE, run.info.status)
        raise MicrosegError(f"run '{run_id}' is a {what} ({state}); give the run id of a completed fold")
    return run


def _unchanged(then: FoldProvenance, data: str | Path | None) -> TrainingData:
    """Open the images that the study had, without those that came later, if they are the same.

    Raises
    ------
    MicrosegError
        With the files that have changed or are gone, or if they are read otherwise.
    """
    place = data or then.request.data
    manifest = open_dataset(place, then.request.options, cache())
    changed = [*_changed(then.manifest, manifest)]
    if changed:
        more = [f"{len(changed) - _NAMED} more"] if len(changed) > _NAMED else []
        raise MicrosegError(
            f"{place}: the images or masks have changed since study '{then.study}' "
            f"({', '.join(changed[:_NAMED] + more)}); restore the files that it was trained on"
        )
    manifest = _only(manifest, {item.name for item in then.manifest.items})
    developed = _only(manifest, {item.name for item in then.manifest.items} - {*then.holdout})
    found = TrainingData(developed, cache())
    if manifest.digest != then.digest or fingerprint(then.config, found, then.fold) != then.fingerprint:
        raise MicrosegError(
            f"{place}: no file has changed since study '{then.study}', but how masks are read, or a file of "
            "weights that the configuration names, is not as it was; restore that"
        )
    return found


def _changed(then: Manifest, now: Manifest) -> Iterator[str]:
    """Name the files whose content is not as it was, and those of items that are gone."""
    items = {item.name: item for item in now.items}
    for item in then.items:
        if item.name not in items:
            yield f"{item.mask.name} (gone, or without its image)"
        else:
            yield from _changed_files(item, items[item.name])


def _changed_files(then: Item, now: Item) -> Sequence[str]:
    if len(now.hashes) != len(then.hashes):
        return [f"{then.name} (of {len(then.hashes)} files, now {len(now.hashes)})"]
    files = zip((*now.images, now.mask), now.hashes, then.hashes, strict=True)
    return [str(Path(file.parent.name, file.name)) for file, is_now, was in files if is_now != was]


def _only(manifest: Manifest, names: set[str]) -> Manifest:
    return manifest.model_copy(update={"items": tuple(item for item in manifest.items if item.name in names)})


def _spread(client: MlflowClient, run: Run, fold: int, recorded: float) -> Spread | None:
    """Return where a score as good as the recorded one lies: by other seeds if recorded, else by folds."""
    trial = client.get_run(run.data.tags[tree.PARENT])
    study = report.view(client, client.get_run(trial.data.tags[tree.PARENT]))
    name = trial.data.tags.get(tree.REPLICATE_OF, str(trial.info.run_name))
    family = [row for row in study.ranked if row.name == name]
    family += [row for row in study.replicates if row.replicate_of == name and complete(row)]
    scores = [row.scores for row in family if len(row.scores) == study.folds]
    interval = next_score(scores, fold) if scores else None
    if interval:
        seeds = f"{len(scores)} seeds over {study.folds} folds"
        return Spread(interval, f"where 95 % of trainings with other seeds lie ({seeds})")
    own = next((row for row in (*study.rows, *study.replicates) if row.run_id == trial.info.run_id), None)
    if own is None or own.std is None:
        return None
    source = (
        f"its standard deviation over folds ({own.std:.4f}) to either side, as no other seeds were recorded"
    )
    return Spread(Interval(recorded - own.std, recorded + own.std), source)
