"""Augmentation recipes, by name: pairs of image and mask warped alike, composed by albumentations.

This package is the only place that imports albumentations.
"""

import os

# At import, albumentations asks the network for its newest version.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
from microseg.augment.recipes import AUGMENTATIONS, Augmenter, augmenter

__all__ = ["AUGMENTATIONS", "Augmenter", "augmenter"]
