"""Ways are compared in turns, the first of which does not count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microseg.bench.turns import ratio, spread, take_turns

SECONDS = st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=9)


class Clock:
    """Ways that each last a time of their own, and the time that has passed."""

    def __init__(self, **lasts):
        self.now, self.calls = 0.0, []
        self.ways = {name: lambda name=name, each=each: self.work(name, each) for name, each in lasts.items()}

    def __call__(self):
        return self.now

    def work(self, name, seconds):
        self.calls.append(name)
        self.now += seconds
        return seconds


def test_ways_take_turns_until_the_time_is_spent_and_the_first_call_does_not_count():
    clock = Clock(a=1.0, b=2.0)
    assert take_turns(clock.ways, budget=10.0, clock=clock) == {"a": [1.0] * 4, "b": [2.0] * 4}
    assert clock.calls == ["a", "b"] * 5


def test_so_many_turns_are_taken_however_long_they_last():
    clock = Clock(a=100.0)
    assert take_turns(clock.ways, budget=0.0, least=3, clock=clock) == {"a": [100.0] * 3}


@given(SECONDS)
def test_a_spread_holds_its_median(values):
    found = spread(values)
    assert found.low == min(values) <= found.median <= found.high == max(values)


@given(SECONDS, st.floats(0.1, 10.0))
def test_a_ratio_is_of_the_same_turns(values, factor):
    found = ratio([factor * value for value in values], values)
    assert [found.low, found.median, found.high] == pytest.approx([factor] * 3)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.95], "0.950"),
        ([2.5, 2.0, 3.0], "2.50 (2.00 to 3.00)"),
        ([43.0, 41.0, 44.0], "43.0 (41.0 to 44.0)"),
        ([290.0, 280.4, 301.0], "290 (280 to 301)"),
    ],
)
def test_a_spread_has_three_digits(values, text):
    assert str(spread(values)) == text
