"""Sessions of clients: what outlives a connection, and who takes over from whom."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import msgspec

from sensegate.collect.front.packets import ReasonCode

SESSIONS_MAX = 200_000
"""Most sessions without a connection; beyond it the one that ended first is forgotten."""
NEVER = 0xFFFFFFFF
"""Session expiry interval: never."""


class SessionHolder(Protocol):
    """The connection that holds a session."""

    born: int

    def close(self, reason: ReasonCode) -> None:
        """Close the connection for a reason."""
        ...


class SessionKey(msgspec.Struct, frozen=True):
    """Whose session: client ids of different credentials never meet."""

    credential: str
    client_id: str


class MqttSession:
    """State of a client between its connections."""

    __slots__ = ("ended", "expiry_s", "holder", "received", "subscribed")

    def __init__(self) -> None:
        self.holder: SessionHolder | None = None
        self.received: set[int] = set()
        """Packet ids of QoS 2 messages that are taken and not yet released by PUBREL."""
        self.expiry_s = 0
        self.ended = 0.0
        """When its last connection ended (monotonic)."""
        self.subscribed = False
        """Whether the client has subscribed: its subscriptions and queued messages are the broker's."""


class SessionRegistry:
    """The sessions known to a front process."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[SessionKey, MqttSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, key: SessionKey, now: float) -> MqttSession | None:
        """Return a session that has not expired."""
        session = self._sessions.get(key)
        if session and session.holder is None and self._is_expired(session, now):
            del self._sessions[key]
            return None
        return session

    def put(self, key: SessionKey, session: MqttSession) -> None:
        """Keep a session that a connection holds."""
        self._sessions[key] = session

    def end(self, key: SessionKey, holder: SessionHolder, now: float) -> bool:
        """Let the connection of a session end; without an expiry interval the session ends too.

        Returns:
            Whether the session was held by that connection: a newer one may have taken it over.
        """
        session = self._sessions.get(key)
        if session is None or session.holder is not holder:
            return False
        session.holder = None
        session.ended = now
        if not session.expiry_s:
            del self._sessions[key]
            return True
        self._sessions.move_to_end(key)
        while len(self._sessions) > SESSIONS_MAX:
            oldest, abandoned = next(iter(self._sessions.items()))
            if abandoned.holder is not None:
                self._sessions.move_to_end(oldest)
                break
            del self._sessions[oldest]
        return True

    def forget(self, key: SessionKey) -> None:
        """Forget a session without a connection: it continues at another front, or was ended there."""
        session = self._sessions.get(key)
        if session and session.holder is None:
            del self._sessions[key]

    @staticmethod
    def _is_expired(session: MqttSession, now: float) -> bool:
        return session.expiry_s != NEVER and now - session.ended >= session.expiry_s
