"""Tiles per call: the clock is an argument, so that no test depends on how fast this machine is."""

import numpy as np
import pytest

from microseg.errors import MicrosegError
from microseg.serving.speed import BATCH_SIZE, fastest_batch_size, fixed_batch_size, is_large

TILE = np.zeros((32, 32, 1), np.float32)


def measured(seconds, tile=TILE):
    """Return the chosen size where a call with n tiles takes ``seconds(n)``, and the sizes that were tried."""
    now, sizes = [0.0], []

    def predict(batch):
        sizes.append(len(batch))
        now[0] += seconds(len(batch))
        return batch

    return fastest_batch_size(predict, tile, clock=lambda: now[0]), sizes


def test_a_machine_that_gains_nothing_takes_one_tile_at_a_time():
    assert measured(lambda size: size) == (1, [1, 1, 2, 2])


def test_the_size_doubles_while_tiles_get_faster_and_stops_at_the_first_that_is_slower():
    assert measured(lambda size: 10 + size + (100 if size > 4 else 0)) == (4, [1, 1, 2, 2, 4, 4, 8, 8])


def test_no_more_than_16_tiles_and_no_more_than_a_megapixel():
    assert measured(lambda size: 1.0)[0] == 16
    assert measured(lambda size: 1.0, np.zeros((512, 512, 1), np.uint8))[0] == 4
    assert measured(lambda size: 1.0, np.zeros((2048, 2048, 1), np.uint8)) == (1, [1, 1])


def test_the_first_call_of_a_size_is_not_timed():
    calls = []
    assert (
        measured(lambda size: calls.append(size) or (1.0 if calls.count(size) > 1 else 1000.0 * size))[0]
        == 16
    )


def test_without_memory_for_it_no_larger_batch_is_tried():
    sizes = []
    tile = np.zeros((8, 8, 1), np.float32)
    assert (
        fastest_batch_size(lambda batch: sizes.append(len(batch)), tile, lambda: 0.0, lambda size: size <= 2)
        == 2
    )
    assert max(sizes) == 2


def test_an_image_is_large_from_256_tiles_on():
    assert is_large((512, 512, 1), 32)
    assert not is_large((512, 511, 1), 32)


def test_the_environment_fixes_the_size(monkeypatch):
    monkeypatch.delenv(BATCH_SIZE, raising=False)
    assert fixed_batch_size() is None
    monkeypatch.setenv(BATCH_SIZE, " 3 ")
    assert fixed_batch_size() == 3


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_another_size_is_refused_in_one_line(monkeypatch, given):
    monkeypatch.setenv(BATCH_SIZE, given)
    with pytest.raises(
        MicrosegError, match=f"MICROSEG_BATCH_SIZE is '{given}'; give a number of tiles"
    ) as caught:
        fixed_batch_size()
    assert "\n" not in str(caught.value)
