"""How a centre charges its members for their part of its time."""

from __future__ import annotations

import pytest

from sensegate.clock import FakeClock
from sensegate.tiers.quota import SharedTime


async def test_requests_handled_one_after_another_are_charged_in_full(fake_clock: FakeClock) -> None:
    """Time in which nothing is handled is nobody's."""
    shared = SharedTime(fake_clock)
    await fake_clock.advance(5)
    mark = shared.begin()
    await fake_clock.advance(2)
    assert shared.end(mark) == pytest.approx(2)
    await fake_clock.advance(7)
    mark = shared.begin()
    await fake_clock.advance(1)
    assert shared.end(mark) == pytest.approx(1)


async def test_requests_handled_at_once_share_the_time(fake_clock: FakeClock) -> None:
    """Twenty spans that wait for one another for a second are charged with a second together, not with twenty."""
    shared = SharedTime(fake_clock)
    marks = [shared.begin() for _ in range(20)]
    await fake_clock.advance(1)
    charged = [shared.end(mark) for mark in marks]
    assert charged == pytest.approx([0.05] * 20)


async def test_a_request_that_is_longer_than_the_others_pays_for_the_rest_alone(fake_clock: FakeClock) -> None:
    """Two for a second, then one for another: half a second, and one and a half."""
    shared = SharedTime(fake_clock)
    long, short = shared.begin(), shared.begin()
    await fake_clock.advance(1)
    assert shared.end(short) == pytest.approx(0.5)
    await fake_clock.advance(1)
    assert shared.end(long) == pytest.approx(1.5)
