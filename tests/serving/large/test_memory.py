"""The memory of `predict` does not grow with the image, and stays below the bound that is printed."""

import multiprocessing

import pytest
import zarr
from image_size import one_size, write_model

from microseg.data.streams import frugal


def test_zarr_decodes_one_chunk_at_a_time_only_where_it_is_asked_to():
    before = zarr.config.get("async.concurrency")
    with frugal():
        assert zarr.config.get("async.concurrency") == zarr.config.get("threading.max_workers") == 1
    assert zarr.config.get("async.concurrency") == before > 1


@pytest.mark.slow
@pytest.mark.parametrize("instances", [False, True])
def test_memory_is_flat_and_below_the_bound(tmp_path, instances):
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(1) as process:
        process.apply(write_model, (tmp_path / "model",))
    figures = []
    for side in (4096, 9000):
        with fresh.Pool(1) as process:
            figures.append(process.apply(one_size, (tmp_path, side, {"instances": instances})))
    small, large = figures
    assert large["objects"] > 4 * small["objects"] or not instances
    assert large["peak_mib"] <= 1.1 * small["peak_mib"]
    assert all(one["peak_mib"] <= one["bound_mib"] for one in figures)


@pytest.mark.slow
def test_a_bound_that_was_given_is_kept(tmp_path):
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(1) as process:
        process.apply(write_model, (tmp_path / "model",))
    with fresh.Pool(1) as process:
        found = process.apply(one_size, (tmp_path, 5000, {"max_memory": "1.5GiB"}))
    assert found["peak_mib"] <= found["bound_mib"] <= 1.5 * 1024
