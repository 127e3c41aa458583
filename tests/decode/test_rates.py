"""Rules of the rate limit: the mean over a minute counts, each device for itself, exactly from the first too many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.rates import MINUTE_US, DeviceRates


def over(rates: DeviceRates, devices: list[int], minutes: list[int]) -> list[bool]:
    """Return which of some messages are too many."""
    result = rates.exceeding(np.array(devices, np.int32), np.array(minutes, np.int64) * MINUTE_US + 7)
    return [False] * len(devices) if result is None else result.tolist()


def test_the_first_too_many_and_all_after_it_are_over_until_the_minute_ends() -> None:
    """Sixty in a minute at one a second; others are not touched; the next minute begins anew."""
    rates = DeviceRates(1.0)
    assert not any(over(rates, [1] * 59, [5] * 59))
    assert over(rates, [1, 2, 1, 1, 2], [5] * 5) == [False, False, True, True, False]
    assert over(rates, [1], [6]) == [False]


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(100, 102)), max_size=60), st.integers(1, 60))
def test_rates_agree_with_counting_one_by_one(messages: list[tuple[int, int]], cut: int) -> None:
    """Property: however messages are cut into batches, the verdicts are those of a dictionary."""
    rates, counts, wanted, limited = DeviceRates(2 / 60), dict[tuple[int, int], int](), [], []
    messages.sort(key=lambda message: message[1])
    for device, minute in messages:
        counts[device, minute] = counts.get((device, minute), 0) + 1
        wanted.append(device >= 0 and counts[device, minute] > 2)
    for first in range(0, len(messages), cut):
        part = messages[first : first + cut]
        limited += over(rates, [device for device, _ in part], [minute for _, minute in part])
    assert limited == wanted
