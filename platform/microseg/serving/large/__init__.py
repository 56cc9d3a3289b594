"""Images of any size, read and written in windows: memory grows with a strip's width, not with the image."""

from microseg.serving.large.job import Job, Part, open_planes, parts, predict_part, transforms
from microseg.serving.large.memory import Plan, Wanted, plan
from microseg.serving.large.objects import Found, label_and_measure
from microseg.serving.large.planes import CheckedPlane, Prepared, sampled

__all__ = [
    "CheckedPlane",
    "Found",
    "Job",
    "Part",
    "Plan",
    "Prepared",
    "Wanted",
    "label_and_measure",
    "open_planes",
    "parts",
    "plan",
    "predict_part",
    "sampled",
    "transforms",
]
