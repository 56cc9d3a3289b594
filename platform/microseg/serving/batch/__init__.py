"""Masks, or numbered objects, for folders of images of any size, through the registered model."""

from microseg.serving.batch.folder import predict_folder
from microseg.serving.batch.loading import load_segmenter
from microseg.serving.batch.options import PredictOptions
from microseg.serving.batch.summary import PredictSummary

__all__ = ["PredictOptions", "PredictSummary", "load_segmenter", "predict_folder"]
