"""Training of folds and trials; it speaks outward only through ``report`` and knows no tuner or tracker."""

from microseg.training.checkpoint import discard_checkpoints
from microseg.training.fold import train_fold
from microseg.training.results import (
    FoldResult,
    Progress,
    Report,
    Sample,
    State,
    TrainingData,
    finished_fold,
)
from microseg.training.retraining import retrain
from microseg.training.trial import run_trial
from microseg.training.validation import predict_image

__all__ = [
    "FoldResult",
    "Progress",
    "Report",
    "Sample",
    "State",
    "TrainingData",
    "discard_checkpoints",
    "finished_fold",
    "predict_image",
    "retrain",
    "run_trial",
    "train_fold",
]
