"""What each trial asks for: never more than a machine has, and no more at once than its memory holds."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.config import SearchConfig
from microseg.errors import MicrosegError
from microseg.search.resources import Node, Packing

GIB = 2**30


def packing(nodes, concurrency=1, gpus=None):
    return Packing(SearchConfig(space={}, concurrency=concurrency, gpus_per_trial=gpus), nodes)


def node(cpus, gpus=0, gib=64, gpu_gib=None):
    return Node(float(cpus), float(gpus), float(gib * GIB), gpu_gib and gpu_gib * 1024.0)


LAB = [node(16)] * 4
UNEQUAL = [node(0), node(4), node(16, 2), node(32)]


@pytest.mark.parametrize(
    ("nodes", "concurrency", "gpus", "share"),
    [
        ([node(4)], 1, None, (4, 0)),
        ([node(4)], 2, None, (2, 0)),
        ([node(4)], 3, None, (1, 0)),
        ([node(4)], 2, "auto", (2, 0)),
        ([node(4)], 2, 0, (2, 0)),
        (LAB, 3, None, (16, 0)),
        (LAB, 4, None, (16, 0)),
        (LAB, 6, None, (8, 0)),  # 64 // 6 would be 10, of which one machine holds one
        (LAB, 9, None, (5, 0)),
        ([node(4, 1)], 1, None, (4, 1)),
        ([node(4, 1)], 2, None, (2, 0.5)),
        ([node(8, 2)], 3, None, (2, 0.5)),  # 2 / 3 of a GPU would fit twice
        ([node(8, 1), node(8, 1)], 2, None, (8, 1)),
        ([node(8, 4)], 1, 3, (8, 3)),
        ([node(8, 4)], 2, 2, (4, 2)),
        ([node(8, 1)], 2, 0.4, (4, 0.4)),
        (UNEQUAL, 1, 0, (32, 0)),
        (UNEQUAL, 3, 0, (16, 0)),
        (UNEQUAL, 4, None, (4, 0.5)),  # where the GPUs are
    ],
)
def test_so_many_trials_fit_on_the_machines_there_are(nodes, concurrency, gpus, share):
    asked = packing(nodes, concurrency, gpus).share()
    assert (asked.cpus, asked.gpus) == share


@given(
    st.lists(st.builds(node, st.integers(0, 20), st.integers(0, 4)), min_size=1, max_size=4),
    st.integers(1, 24),
    st.sampled_from([None, 0, 0.25, 1, 2]),
)
@settings(max_examples=200, deadline=None)
def test_what_is_asked_for_can_be_placed_or_is_refused(nodes, concurrency, gpus):
    """Place greedily what Ray would place; as many as run at once fit, and nothing is oversubscribed."""
    try:
        asked = packing(nodes, concurrency, gpus).share()
    except MicrosegError as error:
        assert "\n" not in str(error)
        return
    placed = 0
    for machine in nodes:
        cores, cards = machine.cpus, [1.0] * int(machine.gpus)
        while cores >= asked.cpus:
            takes = math.ceil(asked.gpus)
            free = [index for index, left in enumerate(cards) if left >= min(asked.gpus, 1) - 1e-9]
            if len(free) < takes:
                break
            for index in free[:takes]:
                cards[index] -= min(asked.gpus, 1)
            cores, placed = cores - asked.cpus, placed + 1
    assert asked.cpus >= 1 and placed >= concurrency


@pytest.mark.parametrize(
    ("nodes", "concurrency", "gpus", "said"),
    [
        ([node(4)], 8, None, "concurrency is 8, but a trial takes a core at least and there are 4 cores; ask for no more than 4"),
        ([node(0)], 1, None, "there are 0 cores; ask for no more than 0"),
        (LAB, 65, None, r"there are 4 machines \(16 cores; 16 cores; 16 cores; 16 cores\); ask for no more than 64"),
        ([node(4)], 1, 1, r"gpus_per_trial is 1, but there is no GPU \(4 cores\); leave it out, or set it to 0"),
        ([node(4, 1)], 1, 2, "gpus_per_trial is 2 at concurrency 1, but 0 such trials fit on 4 cores and 1 GPU; lower"),
        ([node(4, 1), node(4, 1)], 1, 2, "0 such trials fit on 2 machines"),  # two GPUs, on two machines
        ([node(8, 2)], 3, 0.6, "gpus_per_trial is 0.6 at concurrency 3, but 2 such trials fit on 8 cores and 2 GPUs"),
        ([node(8, 4)], 1, 1.5, "gpus_per_trial is 1.5; allowed are fractions up to 1 and whole numbers above"),
        ([node(2, 1), node(32)], 4, None, "2 trials with a share of a GPU fit on .* or set gpus_per_trial to 0"),
        ([node(2, 1), node(32)], 4, "auto", "concurrency is 4, but 2 trials with a share of a GPU fit"),
    ],
)  # fmt: skip
def test_what_can_never_be_met_is_refused_in_one_line(nodes, concurrency, gpus, said):
    """A Ray trial that asks for a missing GPU stays pending for ever without a word."""
    with pytest.raises(MicrosegError, match=said) as caught:
        packing(nodes, concurrency, gpus)
    assert "\n" not in str(caught.value)


def test_a_trial_asks_for_the_memory_that_the_largest_one_took():
    trials = packing([node(8, gib=16)], 8)
    assert trials.share().memory == int(1.2 * GIB)  # before any was measured
    trials.measured(3000.0, 0.0)
    trials.measured(2000.0, 0.0)
    assert trials.share().memory == 3600 * 2**20
    trials.measured(20_000.0, 0.0)
    assert trials.share().memory == 16 * GIB  # alone it may fit; asking for more it would wait for ever


def test_memory_is_capped_by_the_machines_that_can_have_the_trial():
    trials = packing([node(4, gib=64), node(16, 2, gib=8)], 1, 1)
    trials.measured(50_000.0, 100.0)
    assert trials.share().memory == 8 * GIB


def parts(trials) -> int:
    return round(1 / trials.share().gpus)


def test_a_gpu_is_packed_by_measured_memory_and_less_densely_after_an_overflow():
    trials = packing([node(16, 1, gpu_gib=24)], 8, "auto")
    assert trials.share().gpus == 1  # nothing is known yet
    trials.measured(900.0, 0.0)
    assert trials.share().gpus == 1
    trials.measured(900.0, 4000.0)
    assert parts(trials) == 4  # 24576 MiB // (1.2 x (4000 + 500))
    trials.measured(900.0, 1000.0)
    assert parts(trials) == 4  # the largest counts
    for expected in (3, 2, 1, 1):  # out of memory: all of its share was not enough
        trials.measured(900.0, 24576 * trials.share().gpus)
        assert parts(trials) == expected


@pytest.mark.parametrize(
    ("nodes", "concurrency", "peak", "expected"),
    [
        ([node(16, 1, gpu_gib=24)], 3, 100.0, 3),  # no finer than the trials at once need
        ([node(16, 4, gpu_gib=24)], 4, 100.0, 1),
        ([node(16, 1, gpu_gib=24), node(16, 1, gpu_gib=8)], 8, 1500.0, 3),  # the smallest GPU counts
        ([node(16, 1)], 8, 100.0, 1),  # a size that nobody tells
        ([node(16, 1, gpu_gib=24), node(16, 1)], 8, 100.0, 1),
        ([node(16, 1, gpu_gib=24), node(16)], 8, 1500.0, 8),
    ],
)
def test_a_share_of_a_gpu_is_no_finer_than_needed(nodes, concurrency, peak, expected):
    trials = packing(nodes, concurrency, "auto")
    trials.measured(900.0, peak)
    assert parts(trials) == expected


def test_a_share_that_was_asked_for_stays():
    trials = packing([node(16, 1, gpu_gib=24)], 2, 0.5)
    trials.measured(900.0, 20_000.0)
    assert trials.share().gpus == 0.5
