"""Clocks of tests."""

from __future__ import annotations

from sensegate.clock import FakeClock


class InstantClock(FakeClock):
    """A clock whose sleeps return at once and take no time."""

    async def sleep(self, seconds: float) -> None:
        del seconds
