"""Rate limits of a member's requests: token buckets for bytes, spans, questions and its part of the centre's time."""

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


class SharedTime:
    """The time of a process, divided equally among the requests that it handles at once.

    A request is charged with its part only: while twenty members send a span each, the spans wait for one another, and
    charging each with the whole wait would count the same second twenty times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._active = 0
        self._part = 0.0
        """Seconds that a request would have been charged with that has been handled since the beginning."""
        self._noted = clock.monotonic()

    def begin(self) -> float:
        """Note that handling of a request begins; return its mark for `end`."""
        self._advance()
        self._active += 1
        return self._part

    def end(self, mark: float) -> float:
        """Note that handling of a request ends; return the seconds to charge it with."""
        self._advance()
        self._active -= 1
        return self._part - mark

    def _advance(self) -> None:
        now = self._clock.monotonic()
        if self._active:
            self._part += (now - self._noted) / self._active
        self._noted = now
