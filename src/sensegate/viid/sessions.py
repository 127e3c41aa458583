"""Registrations by GA/T 1400 with address and clock offset, and lock-outs after wrong passwords.

`User-Identify` proves nothing by itself: it is accepted only from the address (or with the certificate) of the
registration, and for a limited time, which each successful request renews.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

import msgspec

from sensegate.config.viid import ViidConfig
from sensegate.errors import Overloaded

SESSIONS_MAX: Final = 50_000
_PAIRS_MAX: Final = 20_000
_OFFSETS: Final = 32
_RATE_S: Final = 10.0


class ViidSession(msgspec.Struct, eq=False):
    """A registration."""

    device: str
    """Id in the registry."""
    address: str
    certificate: str = ""
    """Fingerprint of the client's certificate; empty: none."""
    since: int = 0
    """µs UTC."""
    seen: float = 0.0
    """Monotonic time of the last request."""
    last: int = 0
    """Time of the last request, µs UTC."""
    requests: int = 0
    objects: int = 0
    offsets: deque[int] = msgspec.field(default_factory=lambda: deque(maxlen=_OFFSETS))
    began: float = 0.0
    counted: int = 0

    @property
    def offset_us(self) -> int | None:
        """Smallest recent delay of its clock against ours, including transit; None: unknown."""
        return min(self.offsets, key=abs) if self.offsets else None


class ViidSessions:
    """The registrations at this listener."""

    def __init__(self, config: ViidConfig) -> None:
        self._config = config
        self._sessions: OrderedDict[str, ViidSession] = OrderedDict()

    def open(self, session: ViidSession) -> None:
        """Add a registration, which ends an earlier one of the device."""
        self._sessions.pop(session.device, None)
        self._sessions[session.device] = session
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)

    def close(self, device: str) -> ViidSession | None:
        """End a registration; return it."""
        return self._sessions.pop(device, None)

    def find(self, device: str, address: str, certificate: str, now: float) -> ViidSession | None:
        """Return the registration of a device for a request from an address; None if it must register first."""
        session = self._sessions.get(device)
        if session is None:
            return None
        if now - session.seen > self._config.session_timeout_s:
            return None
        if session.certificate:
            return session if certificate == session.certificate else None
        return session if self._config.session_binding == "none" or address == session.address else None

    def renew(self, session: ViidSession, now: float, at: int) -> None:
        """Record a request. Raises `Overloaded` beyond the rate limit."""
        session.seen, session.last = now, at
        session.requests += 1
        if now - session.began > _RATE_S:
            session.began, session.counted = now, 0
        session.counted += 1
        if session.counted > self._config.requests_per_s * _RATE_S:
            raise Overloaded("too many requests from this device", retry_after_s=session.began + _RATE_S - now)

    def lapsed(self, now: float) -> list[ViidSession]:
        """Remove and return the lapsed registrations."""
        lapsed = [session for session in self._sessions.values() if now - session.seen > self._config.session_timeout_s]
        for session in lapsed:
            del self._sessions[session.device]
        return lapsed

    def all(self, now: float) -> list[ViidSession]:
        """Return the active registrations."""
        return [session for session in self._sessions.values() if now - session.seen <= self._config.session_timeout_s]


class LoginLockouts:
    """Counts of wrong passwords by device and address."""

    def __init__(self, config: ViidConfig) -> None:
        self._config = config
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def left_s(self, user: str, address: str, now: float) -> float:
        """Return how long a user is still locked out at an address; 0: not locked out."""
        count, last = self._failed.get((user, address), (0, 0.0))
        left = last + self._config.lockout_s - now
        return left if count >= self._config.auth_failures_max and left > 0 else 0.0

    def failed(self, user: str, address: str, now: float) -> None:
        """Record a wrong password."""
        count, last = self._failed.pop((user, address), (0, now))
        self._failed[user, address] = (count + 1 if now - last < self._config.lockout_s else 1, now)
        while len(self._failed) > _PAIRS_MAX:
            self._failed.popitem(last=False)

    def passed(self, user: str, address: str) -> None:
        """Reset the count after a right password."""
        self._failed.pop((user, address), None)
