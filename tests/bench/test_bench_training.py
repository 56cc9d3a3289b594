"""What is timed is what `train_fold` does."""

import numpy as np
import pytest

from microseg import runtime
from microseg.bench.networks import FIELD, cells, picture, timed_config
from microseg.bench.training import FEWEST, MOST, SKIPPED, Trainer, steps_of

TINY = timed_config(precision="float32", batch_size=2, tile=32, depth=2, filters=4)


@pytest.mark.parametrize(
    ("turn", "step", "steps"), [(10.0, 2.0, 5), (10.0, 100.0, FEWEST), (10.0, 1e-6, MOST), (0.0, 1.0, FEWEST)]
)
def test_a_turn_has_as_many_steps_as_last_so_long_within_limits(turn, step, steps):
    assert steps_of(turn, step) == steps


def test_both_ways_train_the_same_network_by_as_many_steps():
    with runtime.fresh_session("float32", 0):
        trainer = Trainer(TINY, cells(64), seconds=0.0)
        optimizer = trainer.network.optimizer
        before = int(optimizer.iterations)
        assert trainer.bare() > 0
        between = int(optimizer.iterations)
        assert trainer.fitted() > 0
        assert between - before == trainer.steps
        assert int(optimizer.iterations) - between == trainer.steps + SKIPPED
        assert trainer.images == 2 * trainer.steps


@pytest.mark.parametrize("side", [100, FIELD, 300])
def test_pictures_have_any_size_and_cells_in_them(side):
    image, mask = picture(side)
    assert image.shape == mask.shape == (side, side)
    assert set(np.unique(mask)) == {0, 1}
    assert image[mask == 1].mean() > image[mask == 0].mean()
