"""Training of folds and trials; it speaks outward only through ``report`` and knows no tuner or tracker."""

from microseg.training.fold import run_trial, train_fold
from microseg.training.results import (
    FoldResult,
    Progress,
    Report,
    Sample,
    State,
    TrainingData,
    TrialResult,
    finished_fold,
)
from microseg.training.validation import predict_image

__all__ = [
    "FoldResult",
    "Progress",
    "Report",
    "Sample",
    "State",
    "TrainingData",
    "TrialResult",
    "finished_fold",
    "predict_image",
    "run_trial",
    "train_fold",
]
