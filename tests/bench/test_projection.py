"""The time of a study follows from its space, its images and the speeds that were measured."""

import pytest
from simulation import manifest

from microseg import runtime
from microseg.bench.projection import BACKWARD, DRAWN, Speeds, asha_epochs, asha_survivors, draw, project
from microseg.checks import check_space
from microseg.config import SearchConfig, TrialConfig, parse
from microseg.models import build_model, grid_of
from microseg.space import parse_space

SPEEDS = Speeds(training=1e9, prediction=2e9, search=20.0, trial=3.0, network=5.0)
SPACE = {
    "model": {"name": "unet", "params": {"depth": 2, "filters": 4}},
    "tile": 32, "batch_size": 4, "epochs": 27,
}  # fmt: skip


FIXED = parse(TrialConfig, SPACE, "c")


def search(**values):
    return parse(SearchConfig, {"space": SPACE, "trials": 10, "folds": 4, "holdout": 0.2} | values, "s")


def projected(config):
    return project(
        config, parse_space(config.space, config.constraints), manifest(10), SPEEDS, measured=False
    )


@pytest.fixture(scope="module")
def operations():
    with runtime.fresh_session("auto", 0):
        return runtime.operations(build_model(FIXED.model, 1, 1), (1, 32, 32, 1))


def test_a_fold_is_its_patches_and_its_validation_by_their_operations(operations):
    found = projected(search(asha=None))
    # Ten images of 64 x 64: eight of them develop, six train (4 tiles each) and two validate.
    tiles = 2 * grid_of(FIXED).tiles(64, 64)
    epoch = 24 * operations * BACKWARD / SPEEDS.training + tiles * operations / SPEEDS.prediction
    assert found.fold == pytest.approx(SPEEDS.network + 27 * epoch)
    assert found.whole == found.searched == pytest.approx(20 + 10 * (SPEEDS.trial + 4 * found.fold))
    assert (found.drawn, found.measured, found.images) == (DRAWN, False, 10)


def test_steps_that_the_space_sets_count_instead_of_the_images(operations):
    few, many = (projected(search(space=SPACE | {"steps_per_epoch": n}, asha=None)).fold for n in (1, 101))
    assert many - few == pytest.approx(27 * 100 * 4 * operations * BACKWARD / SPEEDS.training)


def test_asha_ends_its_share_of_the_trials_at_each_rung():
    config = search(asha={"grace": 3, "reduction": 3})  # rungs at 3 and 9 of 27 epochs
    assert asha_survivors(config, 27) == pytest.approx(1 / 9)
    assert asha_epochs(config, 27) == pytest.approx(3 + 6 / 3 + 18 / 9)
    without = search(asha=None)
    assert (asha_survivors(without, 27), asha_epochs(without, 27)) == (1.0, 27.0)
    found = projected(config)
    first = SPEEDS.network + (found.fold - SPEEDS.network) * 7 / 27
    assert found.searched == pytest.approx(20 + 10 * (SPEEDS.trial + first + 3 * found.fold / 9))


def test_epochs_below_the_first_rung_are_all_trained():
    config = search(asha={"grace": 3, "reduction": 3})
    assert (asha_survivors(config, 3), asha_epochs(config, 3)) == (1.0, 3.0)


def test_only_configurations_that_the_constraints_allow_are_drawn():
    space = SPACE | {"batch_size": {"choice": [2, 4, 8]}}
    config = search(space=space, constraints=[{"need": {"batch_size": {"max": 4}}}])
    drawn = list(draw(check_space(config), DRAWN, seed=0))
    assert len(drawn) == DRAWN and {one.batch_size for one in drawn} == {2, 4}


def test_weights_are_neither_downloaded_nor_read():
    encoder = {"name": "encoder_unet", "params": {"encoder": "mobilenet_v3_small", "weights": "imagenet"}}
    found = projected(search(space=SPACE | {"model": encoder}, asha=None))
    assert found.fold > 5.0


def test_steps_of_every_kind_of_training_can_be_timed():
    model = {"name": "unet_plus_plus", "params": {"depth": 2, "filters": 4}}  # supervised at several heads
    config = search(space=SPACE | {"model": model, "loss": {"name": "bce_border"}}, asha=None)
    found = project(config, parse_space(config.space), manifest(10), SPEEDS, measured=True)
    assert found.measured and found.fold > 5.0
