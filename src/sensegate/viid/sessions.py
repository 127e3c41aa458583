"""Who has registered by GA/T 1400, from where, and how its clock goes; who is locked out.

`User-Identify` proves nothing: it is believed only from the address (or with the certificate) of the registration, and
for a time. Each request that is answered renews it.
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


class Session(msgspec.Struct, eq=False):
    """One registration."""

    device: str
    """Id in the registry."""
    address: str
    certificate: str = ""
    """Fingerprint of the client's certificate; empty: it showed none."""
    since: int = 0
    """µs UTC."""
    seen: float = 0.0
    """Monotonic time of the last request."""
    last: int = 0
    """The same, µs UTC."""
    requests: int = 0
    objects: int = 0
    offsets: deque[int] = msgspec.field(default_factory=lambda: deque(maxlen=_OFFSETS))
    began: float = 0.0
    counted: int = 0

    @property
    def offset_us(self) -> int | None:
        """By how much its clock is behind ours, transit included: the least of the last objects; None: not known."""
        return min(self.offsets, key=abs) if self.offsets else None


class Sessions:
    """All registrations of this listener."""

    def __init__(self, config: ViidConfig) -> None:
        self._config = config
        self._held: OrderedDict[str, Session] = OrderedDict()

    def open(self, session: Session) -> None:
        """Take a registration; an earlier one of the device ends."""
        self._held.pop(session.device, None)
        self._held[session.device] = session
        while len(self._held) > SESSIONS_MAX:
            self._held.popitem(last=False)

    def close(self, device: str) -> Session | None:
        """End a registration."""
        return self._held.pop(device, None)

    def of(self, device: str, address: str, certificate: str, now: float) -> Session | None:
        """Return the registration of a device that asks from an address; None where it must register (again)."""
        held = self._held.get(device)
        if held is None:
            return None
        if now - held.seen > self._config.session_timeout_s:
            return None
        if held.certificate:
            return held if certificate == held.certificate else None
        return held if self._config.session_binding == "none" or address == held.address else None

    def renew(self, session: Session, now: float, at: int) -> None:
        """Note a request. Raises `Overloaded`: too many."""
        session.seen, session.last = now, at
        session.requests += 1
        if now - session.began > _RATE_S:
            session.began, session.counted = now, 0
        session.counted += 1
        if session.counted > self._config.requests_per_s * _RATE_S:
            raise Overloaded("too many requests of this device", retry_after_s=session.began + _RATE_S - now)

    def lapsed(self, now: float) -> list[Session]:
        """Return those that have lapsed, and forget them."""
        gone = [session for session in self._held.values() if now - session.seen > self._config.session_timeout_s]
        for session in gone:
            del self._held[session.device]
        return gone

    def all(self, now: float) -> list[Session]:
        """Return those that have not lapsed."""
        return [session for session in self._held.values() if now - session.seen <= self._config.session_timeout_s]


class Lockouts:
    """Wrong passwords by device and address."""

    def __init__(self, config: ViidConfig) -> None:
        self._config = config
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def left_s(self, user: str, address: str, now: float) -> float:
        """Return for how long this user is locked out at this address; 0: it is not."""
        count, last = self._failed.get((user, address), (0, 0.0))
        left = last + self._config.lockout_s - now
        return left if count >= self._config.auth_failures_max and left > 0 else 0.0

    def failed(self, user: str, address: str, now: float) -> None:
        """Note a wrong password."""
        count, last = self._failed.pop((user, address), (0, now))
        self._failed[user, address] = (count + 1 if now - last < self._config.lockout_s else 1, now)
        while len(self._failed) > _PAIRS_MAX:
            self._failed.popitem(last=False)

    def passed(self, user: str, address: str) -> None:
        """Forget what was wrong before."""
        self._failed.pop((user, address), None)
