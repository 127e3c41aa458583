"""Counters: differences and totals over roll-overs and resets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.normalise.counters import CounterDrop, classify_drops, deltas, totals

U32 = 4_294_967_296.0


@pytest.mark.parametrize(
    ("before", "after", "modulus", "wanted"),
    [
        (5.0, 9.0, 0.0, CounterDrop.NONE),
        (5.0, 5.0, 0.0, CounterDrop.NONE),
        (4_294_967_290.0, 4.0, U32, CounterDrop.ROLLOVER),
        (65_000.0, 10.0, 65_536.0, CounterDrop.ROLLOVER),
        (65_000.0, 10.0, 0.0, CounterDrop.RESET),
        (1_000.0, 3.0, U32, CounterDrop.RESET),
        (1_000.0, 0.0, 0.0, CounterDrop.RESET),
        (1_000.0, 990.0, 0.0, CounterDrop.BACK),
        (1_000.0, 990.0, U32, CounterDrop.BACK),
        (70_000.0, 10.0, 65_536.0, CounterDrop.RESET),
        (float("nan"), 1.0, 0.0, CounterDrop.NONE),
    ],
)
def test_what_a_fall_means(before: float, after: float, modulus: float, wanted: CounterDrop) -> None:
    """A roll-over advances by less than half the range; a reset leaves less than half; else it went back."""
    assert classify_drops(np.array([before]), np.array([after]), np.array([modulus])).tolist() == [wanted]


def test_differences_by_hand() -> None:
    """A rain gauge of 16 bits that rolls over, and is then replaced."""
    values = np.array([65_530.0, 65_534.0, 3.0, 3.0, 10.0, 2.0])
    assert deltas(values, 65_536.0)[1:].tolist() == [4.0, 5.0, 0.0, 7.0, 2.0]
    assert totals(values, 65_536.0).tolist() == [65_530.0, 65_534.0, 65_539.0, 65_539.0, 65_546.0, 65_548.0]


def test_a_counter_turned_back_is_told() -> None:
    """A correction is a negative difference; nothing is made up for it."""
    assert deltas(np.array([100.0, 98.0]), 65_536.0)[1:].tolist() == [-2.0]


def test_an_advance_that_is_not_credible_is_a_reset() -> None:
    """Knowing how much can flow between two readings, a fall that would mean more is no roll-over."""
    values = np.array([40_010.0, 3.0])
    assert deltas(values, 65_536.0)[1:].tolist() == [25_529.0]
    assert deltas(values, 65_536.0, advance_max=250.0)[1:].tolist() == [3.0]


def test_no_readings_no_totals() -> None:
    """An empty series stays empty; one reading has no difference."""
    assert totals(np.zeros(0)).tolist() == []
    assert np.isnan(deltas(np.array([7.0]))).all()


@given(
    st.sampled_from([256, 65_536, 10_000, 16_777_216, 4_294_967_296]),
    st.integers(0, 2**32),
    st.lists(st.floats(0, 0.49), max_size=40),
)
def test_whatever_was_counted_comes_out_again_property(modulus: int, start: int, shares: list[float]) -> None:
    """A true count, cut to the width of the counter, is told again exactly if it is read often enough."""
    steps = [int(share * modulus) for share in shares]
    true = np.cumsum([start % modulus, *steps])
    shown = (true % modulus).astype(np.float64)
    assert deltas(shown, float(modulus))[1:].tolist() == [float(step) for step in steps]
    assert totals(shown, float(modulus)).tolist() == true.astype(np.float64).tolist()


@given(st.lists(st.lists(st.integers(0, 1_000), min_size=1, max_size=10), min_size=1, max_size=6))
def test_after_a_reset_nothing_is_counted_twice_property(lives: list[list[int]]) -> None:
    """Several lives of a meter: the total is never more than what was counted, and exact if resets can be seen."""
    shown: list[float] = []
    counted = 0
    for history in lives:
        values = np.cumsum([0, *history]).tolist()
        shown += map(float, values)
        counted += values[-1]
    total = float(totals(np.array(shown))[-1])
    assert total == counted
