"""Predict an image of any size with a network that sees tiles of one size; numpy only.

The network is an argument, so that training, batch prediction and serving share this one code path
and the tests can put the identity in its place.
"""

from microseg.tiling.grid import Grid, halo_of
from microseg.tiling.predict import Predict, Region, Sliced, predict_region, predict_tiled, predict_whole
from microseg.tiling.windows import WINDOWS

__all__ = [
    "WINDOWS",
    "Grid",
    "Predict",
    "Region",
    "Sliced",
    "halo_of",
    "predict_region",
    "predict_tiled",
    "predict_whole",
]
