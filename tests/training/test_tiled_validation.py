"""Validation in tiles: where they lie for a configuration, and that a real network gives what one piece gives."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from microseg.config import TrialConfig
from microseg.models import build_model, grid_of
from microseg.tiling import Grid
from microseg.training.validation import predict_image, predict_in_one_piece


def config(**changes):
    return TrialConfig.model_validate(
        {"model": {"name": "unet", "params": {"depth": 2, "filters": 4}}} | changes
    )


def test_the_grid_of_a_configuration():
    assert grid_of(config()) == Grid(256, 32, 2)
    assert grid_of(config(), halo=50) == Grid(256, 50, 2)
    assert grid_of(config(tile=64, overlap=0.5)) == Grid(64, 16, 2)
    assert grid_of(config(overlap=0.75)).starts(512) == [0, 64, 128, 192, 256]


def test_the_stride_of_an_imported_network_is_guessed_from_its_tile():
    imported = {"name": "imported", "params": {"file": "a.h5"}}
    assert grid_of(config(model=imported, tile=256)).stride == 32
    assert grid_of(config(model=imported, tile=80)).stride == 16
    assert grid_of(config(model=imported, tile=75)).stride == 1


@pytest.mark.parametrize("shape", [(90, 151), (64, 90), (40, 64)])
def test_a_u_net_gives_in_tiles_what_it_gives_in_one_piece(shape):
    """It sees about 10 pixels far, fewer than the halo."""
    given = config(tile=64, overlap=0.5)
    network = build_model(given.model, 1, 1)
    image = np.random.default_rng(0).random((*shape, 1), np.float32)
    tiled, whole = predict_image(network, image, given), predict_in_one_piece(network, image, given)
    inside = (slice(12, shape[0] - 12), slice(12, shape[1] - 12))  # one tile sees less beyond its border
    assert_allclose(tiled[inside], whole[inside], atol=1e-5)
    if min(shape) > 64:
        assert_allclose(tiled, whole, atol=1e-5)
    assert np.ptp(whole) > 1e-3
