"""What a grant lets through, whatever is asked when: never more than its volume, never more than rate and burst."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.clock import FakeClock
from sensegate.errors import Overloaded
from sensegate.share.quota import BURST_S, GrantQuota, QuotaLimits, month_end, month_of
from tests.share.made import NOW


class Hand(FakeClock):
    """A clock that is set by hand."""

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self._now += round(seconds * 1e6)


steps = st.lists(
    st.tuples(st.sampled_from(("ask", "wait", "lost")), st.integers(1, 500), st.floats(0.0, 30.0)), max_size=60
)


@given(
    steps,
    st.sampled_from((0.0, 1e-6, 0.5, 3.0, 100.0, 1e12)),
    st.sampled_from((0, 1, 50, 1_000, 2**63)),
    st.integers(0, 60),
)
def test_no_order_of_asking_gets_more(
    requests: list[tuple[str, int, float]], rate: float, volume: int, before: int
) -> None:
    """Of a month: at most volume less what was used before; of a span: at most burst and rate."""
    clock = Hand(NOW)
    allowance = GrantQuota("g1", QuotaLimits(rate, volume), clock, lambda: before)
    got, began = 0, clock.monotonic()
    last = 0
    for kind, number, seconds in requests:
        if kind == "wait":
            clock.move(seconds)
            continue
        if kind == "lost":
            allowance.refund(last)
            got, last = got - last, 0
            continue
        if volume and before + got >= volume:
            with pytest.raises(Overloaded):
                allowance.available(number)
            continue
        room = allowance.available(number)
        assert room <= number
        allowance.consume(room)
        got, last = got + room, room
        if volume:
            assert before + got <= max(volume, before)
        if rate:
            assert got <= max(1.0, rate * BURST_S) + rate * (clock.monotonic() - began) + 1e-6


def test_a_planted_hole_is_found() -> None:
    """An allowance that forgets what was taken lets more through: the property above would see it."""
    clock = Hand(NOW)
    allowance = GrantQuota("g1", QuotaLimits(volume=10), clock, lambda: 0)
    got = 0
    for _ in range(3):
        got += allowance.available(10)  # never says `consume`
    assert got == 30


def test_a_new_month_begins_in_beijing() -> None:
    """At 16:00 UTC of the last day; the volume is whole again."""
    eve = 1_769_874_000_000_000  # 2026-01-31T15:40Z
    clock = Hand(eve)
    used = {"2026-01": 5, "2026-02": 0}
    allowance = GrantQuota("g1", QuotaLimits(volume=5), clock, lambda: used[month_of(clock.now())])
    with pytest.raises(Overloaded) as caught:
        allowance.available(1)
    assert 0 < caught.value.retry_after_s <= 1_800
    clock.move(caught.value.retry_after_s + 1)
    assert month_of(clock.now()) == "2026-02"
    assert allowance.available(9) == 5
    assert month_end(eve) <= clock.now()


def test_a_demand_says_when_to_come_again() -> None:
    """With the rate used up it tells the time until the next record."""
    clock = Hand(NOW)
    allowance = GrantQuota("g1", QuotaLimits(rate=2.0), clock, lambda: 0)
    allowance.consume(allowance.demand_available(100))
    with pytest.raises(Overloaded) as caught:
        allowance.demand_available(1)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    clock.move(0.5)
    assert allowance.demand_available(10) == 1
