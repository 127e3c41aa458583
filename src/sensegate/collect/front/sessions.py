"""Sessions of clients: what outlives a connection, and who takes over from whom."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import msgspec

from sensegate.collect.front.packets import Publish, ReasonCode
from sensegate.collect.front.subscriptions import HeldSubscription

SESSIONS_MAX = 200_000
"""Most sessions without a connection; beyond it the one that ended first is forgotten."""
SESSIONS_PER_CREDENTIAL = 16
"""Most sessions of a credential without a connection: it can make up client ids without end."""
UNACKNOWLEDGED_MAX, UNACKNOWLEDGED_BYTES_MAX = 100, 64 * 1024
"""Most messages to a client, and bytes of them, that its front repeats after a reconnect."""
NEVER = 0xFFFFFFFF
"""Session expiry interval: never."""


class SessionHolder(Protocol):
    """The connection that holds a session."""

    born: int

    def close(self, reason: ReasonCode) -> None:
        """Close the connection for a reason."""
        ...


class SessionKey(msgspec.Struct, frozen=True):
    """Key of a session: client ids of different credentials never meet."""

    credential: str
    client_id: str


class MqttSession:
    """State of a client between its connections."""

    __slots__ = ("ended", "expiry_s", "holder", "received", "subscribed", "subscriptions", "unacknowledged")

    def __init__(self) -> None:
        self.holder: SessionHolder | None = None
        self.received: set[int] = set()
        """Packet ids of QoS 2 messages that are taken and not yet released by PUBREL."""
        self.expiry_s = 0
        self.ended = 0.0
        """Time when its last connection ended (monotonic)."""
        self.subscribed = False
        """True if the client has subscribed: its subscriptions and queued messages are the broker's."""
        self.subscriptions: dict[str, HeldSubscription] = {}
        """Topic filter -> options that the broker does not remember."""
        self.unacknowledged = UnacknowledgedMessages()
        """Messages of the broker that the client has not acknowledged."""


class UnacknowledgedMessages:
    """Messages that a client gets again after a reconnect; the broker would repeat them after its own time only."""

    __slots__ = ("_bytes", "_packets")

    def __init__(self) -> None:
        self._packets: dict[int, tuple[float, Publish]] = {}
        """Packet id -> (monotonic time at which it came, message)."""
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._packets)

    def recent(self, since: float) -> tuple[Publish, ...]:
        """Return those that came at some time (monotonic) or later, in their order; forget the others."""
        for packet_id in [packet_id for packet_id, (arrived, _) in self._packets.items() if arrived < since]:
            self.discard(packet_id)
        return tuple(packet for _, packet in self._packets.values())

    def add(self, packet: Publish, arrived: float) -> None:
        """Keep a message, as long as there is room: the broker repeats what is not kept."""
        self.discard(packet.packet_id)
        if self._bytes + len(packet.payload) <= UNACKNOWLEDGED_BYTES_MAX and len(self._packets) < UNACKNOWLEDGED_MAX:
            self._packets[packet.packet_id] = arrived, packet
            self._bytes += len(packet.payload)

    def discard(self, packet_id: int) -> None:
        """Forget a message that is acknowledged."""
        kept = self._packets.pop(packet_id, None)
        if kept:
            self._bytes -= len(kept[1].payload)

    def clear(self) -> None:
        """Forget all."""
        self._packets.clear()
        self._bytes = 0


class SessionRegistry:
    """The sessions known to a front process."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[SessionKey, MqttSession] = OrderedDict()
        self._of: dict[str, dict[SessionKey, None]] = {}
        """Credential -> its sessions, the oldest first."""

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, key: SessionKey, now: float) -> MqttSession | None:
        """Return a session that has not expired."""
        session = self._sessions.get(key)
        if session and session.holder is None and self._is_expired(session, now):
            self._drop(key)
            return None
        return session

    def put(self, key: SessionKey, session: MqttSession) -> None:
        """Keep a session that a connection holds; of too many of its credential the oldest are dropped."""
        self._sessions[key] = session
        siblings = self._of.setdefault(key.credential, {})
        siblings[key] = None
        for oldest in list(siblings)[: max(0, len(siblings) - SESSIONS_PER_CREDENTIAL)]:
            if self._sessions[oldest].holder is None:
                self._drop(oldest)

    def _drop(self, key: SessionKey) -> None:
        del self._sessions[key]
        siblings = self._of[key.credential]
        del siblings[key]
        if not siblings:
            del self._of[key.credential]

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
            self._drop(key)
            return True
        self._sessions.move_to_end(key)
        while len(self._sessions) > SESSIONS_MAX:
            oldest, abandoned = next(iter(self._sessions.items()))
            if abandoned.holder is not None:
                self._sessions.move_to_end(oldest)
                break
            self._drop(oldest)
        return True

    def forget_messages(self) -> None:
        """Forget which messages clients have not acknowledged: the broker may have begun anew."""
        for session in self._sessions.values():
            session.unacknowledged.clear()

    def forget(self, key: SessionKey) -> None:
        """Forget a session without a connection: it continues at another front, or was ended there."""
        session = self._sessions.get(key)
        if session and session.holder is None:
            self._drop(key)

    @staticmethod
    def _is_expired(session: MqttSession, now: float) -> bool:
        return session.expiry_s != NEVER and now - session.ended >= session.expiry_s
