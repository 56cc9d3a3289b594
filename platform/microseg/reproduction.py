"""Train a recorded fold again, and say whether the result holds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from microseg.config import TrialConfig
from microseg.data.manifest import Manifest
from microseg.data.open import open_dataset
from microseg.errors import MicrosegError
from microseg.folds import Fold
from microseg.importing import IMPORTED
from microseg.storage import cache
from microseg.study import Request
from microseg.tracking import store, tree
from microseg.tracking.artifacts import read_json
from microseg.training import TrainingData, train_fold


def reproduce(run_id: str) -> str:
    """Train the fold of a run again on the same images and compare the score.

    Parameters
    ----------
    run_id : str
        The MLflow run of a fold.

    Returns
    -------
    str
        One line: the recorded score, the new one, and whether their difference lies within the
        spread of the trial's folds.

    Raises
    ------
    MicrosegError
        If the run is no finished fold, its network was imported, or an image or mask has changed since.
    """
    client = store.connect()
    fold_run = _fold_run(client, run_id)
    trial_run = client.get_run(fold_run.data.tags[tree.PARENT])
    study_run = client.get_run(trial_run.data.tags[tree.PARENT])
    recipe = read_json(client, run_id, "fold.json")
    if recipe["config"]["model"]["name"] == IMPORTED:
        raise MicrosegError(f"run '{run_id}' judged an imported network; it was trained elsewhere, not here")
    manifest = _same_data(client, study_run)
    metric = study_run.data.tags["microseg.metric"]
    with tempfile.TemporaryDirectory() as scratch:
        result = train_fold(
            TrialConfig.model_validate(recipe["config"]),
            TrainingData(manifest, cache()),
            Fold.model_validate(recipe["fold"]),
            Path(scratch),
            lambda progress: None,
        )
    name = metric.removeprefix("val/")
    spread = trial_run.data.metrics.get(f"cv/{name}_std")
    recorded = fold_run.data.metrics[f"final/{name}"]
    return f"{fold_run.info.run_name}: {verdict(metric, recorded, result.metrics[metric], spread)}"


def verdict(metric: str, recorded: float, again: float, spread: float | None) -> str:
    """Compare two scores of the same fold with the spread over folds, in words."""
    numbers = f"{metric} was {recorded:.4f}, is {again:.4f}"
    if recorded == again:
        return f"{numbers}: equal"
    if spread is None:
        return f"{numbers}: a trial of one fold has no spread to compare with"
    inside = "within" if abs(recorded - again) <= spread else "OUTSIDE"
    return (
        f"{numbers}: {inside} the standard deviation over folds ({spread:.4f}; no replicates were recorded)"
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


def _same_data(client: MlflowClient, study: Run) -> Manifest:
    request = Request.model_validate(read_json(client, study.info.run_id, "request.json"))
    manifest = open_dataset(request.data, request.options, cache())
    recorded = study.data.tags["microseg.digest"]
    if manifest.digest != recorded:
        raise MicrosegError(
            f"{request.data}: the images or masks have changed since study '{request.name}' (digest "
            f"{recorded[:12]}, now {manifest.digest[:12]}); restore the files it was trained on"
        )
    return manifest
