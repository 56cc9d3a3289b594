"""How many images of a fold validate, beside those that train: the corrected t-test needs to know."""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

from microseg.tracking.artifacts import PROVENANCE, find_json

RATIO = "microseg.test_to_train"  # of a study that was imported, whose folds nobody lists


class SizeRatio(NamedTuple):
    """Size of a fold's validation part over that of its training part, and where it is known from."""

    value: float
    source: str


def size_ratio(client: MlflowClient, study: Run, folds: int) -> SizeRatio | None:
    """Return the ratio of a study's folds: stated, counted, or that of equal folds; None for a single fold.

    Parameters
    ----------
    client : MlflowClient
        The tracking store.
    study : Run
        The study's run.
    folds : int
        How many folds it has.
    """
    if folds < 2:
        return None
    if RATIO in study.data.tags:
        return SizeRatio(float(study.data.tags[RATIO]), "as stated for these results")
    listed = find_json(client, study.info.run_id, PROVENANCE)
    sizes = [(len(fold["valid"]), len(fold["train"])) for fold in (listed or {}).get("folds", ())]
    if not sizes:
        return SizeRatio(1 / (folds - 1), "folds of equal size, as their sizes are not known")
    valid, train = (fmean(part) for part in zip(*sizes, strict=True))
    return SizeRatio(
        fmean(v / t for v, t in sizes),
        f"on average {valid:.4g} images of a fold validate and {train:.4g} train",
    )
