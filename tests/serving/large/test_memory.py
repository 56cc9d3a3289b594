"""The memory of `predict` does not grow with the image, and stays below the bound that is printed."""

import multiprocessing

import pytest
import zarr
from image_size import one_size, write_image, write_model

from microseg.data.streams import frugal
from microseg.serving.speed import BATCH_SIZE

SMALL, BOUNDED, LARGE = SIDES = 4096, 5000, 9000


def test_zarr_decodes_one_chunk_at_a_time_only_where_it_is_asked_to():
    before = zarr.config.get("async.concurrency")
    with frugal():
        assert zarr.config.get("async.concurrency") == zarr.config.get("threading.max_workers") == 1
    assert zarr.config.get("async.concurrency") == before > 1


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """Return a function from a side and options to the figures of a prediction, in a process of its own."""
    folder, fresh = tmp_path_factory.mktemp("sizes"), multiprocessing.get_context("spawn")
    with fresh.Pool(1) as process:
        process.apply(write_model, (folder / "model", 2, 4))
        for side in SIDES:
            process.apply(write_image, (folder, side))

    def figures(side, **options):
        with fresh.Pool(1) as process:
            return process.apply(one_size, (folder, side, options))

    return figures


@pytest.mark.slow
@pytest.mark.parametrize("instances", [False, True])
def test_memory_is_flat_and_below_the_bound(predicted, instances, monkeypatch):
    """A process holds less than a byte more for each pixel that its image has more; a mask alone has one.

    With as many tiles at once for both: each process times which number is the fastest, and another one takes
    some hundred MiB more or less.
    """
    monkeypatch.setenv(BATCH_SIZE, "4")
    small, large = (predicted(side, instances=instances) for side in (SMALL, LARGE))
    assert large["objects"] > 4 * small["objects"] or not instances
    assert 2**20 * (large["peak_mib"] - small["peak_mib"]) < LARGE**2 - SMALL**2
    assert all(one["peak_mib"] <= one["bound_mib"] for one in (small, large))


@pytest.mark.slow
def test_a_bound_that_was_given_is_kept(predicted):
    found = predicted(BOUNDED, max_memory="1.5GiB")
    assert found["peak_mib"] <= found["bound_mib"] <= 1.5 * 1024
