"""How the objects of a study are told apart, chosen on predictions out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microseg.config import Component, TrialConfig
from microseg.data.arrays import instance_array
from microseg.data.manifest import Manifest
from microseg.data.pairs import load_pairs
from microseg.folds import Fold, evenly
from microseg.instances import candidates, search_instances
from microseg.models import load_saved
from microseg.storage import cache
from microseg.study.request import Prepared
from microseg.training import predict_image

# A megapixel costs about 8 s on one core: each of some 40 ways to tell objects apart labels it.
MOST_PIXELS = 6_000_000


def search_objects(
    prepared: Prepared, config: TrialConfig, members: Sequence[Path]
) -> tuple[Component | None, float]:
    """Choose the entry of ``INSTANCES`` that suits the networks of a trial, by AP at IoU 0.5 out of fold.

    Of more than `MOST_PIXELS` pixels of validation images, evenly spaced images are used.

    Parameters
    ----------
    prepared : Prepared
        The data set and its folds.
    config : TrialConfig
        How the networks see an image.
    members : sequence of Path
        The ``.keras`` file of each fold.

    Returns
    -------
    Component or None, float
        The choice and its AP; None and NaN where the masks do not tell objects apart.
    """
    manifest = prepared.development
    if manifest.mask_kind != "instance":
        return None, float("nan")
    items = {item.name: item for item in manifest.items}
    probabilities, truths = [], []
    for names, member in zip(_sampled(prepared.folds, manifest), members, strict=True):
        model = load_saved(member)
        for pair in load_pairs(names, manifest, cache(), config.preprocess):
            probabilities.append(predict_image(model, pair.image, config))
            truths.append(np.asarray(instance_array(items[pair.name], manifest, cache())))
    return search_instances(probabilities, truths, candidates(truths))


def _sampled(folds: Sequence[Fold], manifest: Manifest, most: int = MOST_PIXELS) -> list[list[str]]:
    """Return the names of each fold's validation images that are used."""
    pixels = {item.name: item.height * item.width for item in manifest.items}
    valid = [(fold.index, name) for fold in folds for name in fold.valid]
    share = min(1.0, most / sum(pixels[name] for _, name in valid))
    count = max(1, int(len(valid) * share))
    return [[name for index, name in evenly(valid, count) if index == fold.index] for fold in folds]
