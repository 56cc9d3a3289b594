"""What a served model tells of itself: how far it looks, what tiles change, how its training images look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from microseg.config import TrialConfig
from microseg.data.arrays import image_array
from microseg.data.manifest import Manifest
from microseg.data.pairs import load_pairs
from microseg.folds import evenly
from microseg.models import grid_of, load_saved
from microseg.serving.card import Tiling
from microseg.serving.unlike import Appearance, appearance, sample
from microseg.storage import cache
from microseg.study.request import Prepared
from microseg.training.context import measured_halo, seam_error

LOOKED_AT = 4  # images: the halo of a U-Net was the same at their centres and at twelve random places


def measure_appearance(development: Manifest) -> Appearance:
    """Look at the images of the folds, at most 200; those of the hold-out stay untouched."""
    return appearance(image_array(item, development, cache()) for item in sample(development.items))


def measure_tiling(prepared: Prepared, config: TrialConfig, members: Sequence[Path]) -> Tiling | None:
    """Measure the halo of a candidate's networks and their seams, on a few images of its folds.

    Parameters
    ----------
    prepared : Prepared
        The data set and its folds; images of the hold-out stay untouched.
    config : TrialConfig
        How the networks see an image.
    members : sequence of Path
        The ``.keras`` files, whose probabilities are averaged.

    Returns
    -------
    Tiling or None
        None for networks that take one size only: nothing tells what they would say of a whole image.
    """
    networks = [load_saved(member) for member in members]
    if any(None not in network.inputs[0].shape[1:3] for network in networks):
        return None
    names = sorted(name for fold in prepared.folds for name in fold.valid)
    pairs = load_pairs(evenly(names, LOOKED_AT), prepared.development, cache(), config.preprocess)
    images = [pair.whole for pair in pairs]
    halo = measured_halo(networks, images, config.tile)
    batch_size = config.batch_size // config.accumulation
    mean, worst = seam_error(networks, images, grid_of(config, halo), batch_size)
    return Tiling(halo=halo, seam_mean=mean, seam_worst=worst)
