"""The rate limit of a member's requests: a token bucket for each of bytes, spans, questions and the centre's time."""

from __future__ import annotations

from sensegate.clock import Clock

BURST_S = 10.0
"""Capacity of a bucket in seconds of its rate."""


class TokenBucket:
    """A token bucket that may be overdrawn: the debt is paid off by time."""

    def __init__(self, rate: float, clock: Clock, *, burst_s: float = BURST_S) -> None:
        """`rate`: units per second; `burst_s`: capacity in seconds of the rate."""
        self._rate = rate
        self._capacity = rate * burst_s
        self._clock = clock
        self._tokens = self._capacity
        self._filled = clock.monotonic()

    @property
    def wait_s(self) -> float:
        """Seconds until tokens may be taken; 0: now."""
        now = self._clock.monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, -self._tokens / self._rate)

    def take(self, count: float) -> None:
        """Take tokens, overdrawing the bucket where it has too few."""
        self._tokens -= count
