"""What one member may ask of a centre: bytes, spans and questions a second, with a rest for bursts."""

from __future__ import annotations

from sensegate.clock import Clock

BURST_S = 10.0
"""So many seconds of its rate may be taken at once after a rest."""


class TokenBucket:
    """A rate with a burst: what is taken beyond it is a debt that time pays off."""

    def __init__(self, rate: float, clock: Clock) -> None:
        """`rate`: units a second."""
        self._rate = rate
        self._clock = clock
        self._tokens = rate * BURST_S
        self._filled = clock.monotonic()

    @property
    def wait_s(self) -> float:
        """Return how long nothing may be taken; 0: it may be taken now."""
        now = self._clock.monotonic()
        self._tokens = min(self._rate * BURST_S, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return max(0.0, -self._tokens / self._rate)

    def take(self, count: float) -> None:
        """Take some, if need be on debt."""
        self._tokens -= count
