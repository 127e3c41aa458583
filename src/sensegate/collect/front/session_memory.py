"""Existing MQTT sessions of devices, in a bucket that all fronts follow.

    connects at front A ─▶ row (expiry, holder A) ═ bucket ═▶ every front
    front A dies, the device comes to front B ─▶ "session present", and it throws nothing away

A client that is told "no session" discards what was not yet acknowledged. Each front follows the bucket and answers
from memory. A row names the front that holds the connection; when that front has died, the session ended when it was
last alive, which each front writes every `ALIVE_S`.

A front that continues a session of its own has to know that no other front held it meanwhile: the packet ids of QoS 2
that it remembers would take new messages for repeated ones. Each front therefore writes a row on the revision that it
wrote last; when another front wrote in between, the write fails and what was remembered is void.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog

from sensegate.bus.kv import KvBucket
from sensegate.bus.kv_row import KvRow
from sensegate.clock import Clock
from sensegate.collect.front.sessions import NEVER, SESSIONS_MAX, SESSIONS_PER_CREDENTIAL, MqttSession, SessionKey
from sensegate.collect.front.subscriptions import HeldSubscription
from sensegate.errors import CancellableTaskGroup, Conflict, EngineError, StoreFull, Unavailable

BUCKET = "sessions"
ALIVE_S = 10.0
"""Interval at which a front writes that it is alive."""
ALIVE_SLACK_US = 30_000_000
"""A front whose row is not older than this holds its connections."""
WRITE_S = 1.0
"""Longest time for which a CONNECT waits for its row: without a majority sessions are not remembered."""
ENDED_MAX = 100_000
"""Most ended connections whose rows are not yet written."""
WRITERS = 16
_FRONT = "front."
_DIGEST_BYTES = 8
_CREDENTIAL = slice(0, 2 * _DIGEST_BYTES)
"""Part of a row's key that stands for the credential."""
_S = 1_000_000

_log = structlog.get_logger("collect")


class StoredSession(msgspec.Struct, frozen=True, array_like=True):
    """A session as the fronts share it."""

    expiry_s: int
    subscribed: bool
    holder: str = ""
    """Instance of the front that holds its connection; empty: it is not connected."""
    at: int = 0
    """Time when the connection began or ended, µs UTC."""
    writer: str = ""
    """Instance of the front that wrote the row."""
    subscriptions: dict[str, HeldSubscription] = {}
    """Topic filter -> options that the broker does not remember."""


class _OwnSession:
    """A session whose last connection was here, as far as is known."""

    __slots__ = ("key", "revision")

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.revision = 0
        """Revision of the row that this front wrote last; 0: it wrote none, or the outcome is unknown."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredSession).decode


def row_key(key: SessionKey) -> str:
    """Return the key of the row of a session; those of a credential begin alike."""
    words = (key.credential, key.client_id)
    return "".join(hashlib.blake2b(word.encode(), digest_size=_DIGEST_BYTES).hexdigest() for word in words)


class SharedSessions:
    """`SessionMemory` on a bucket; `open` it, then `run`."""

    def __init__(
        self, bucket: KvBucket, instance: str, clock: Clock, on_elsewhere: Callable[[SessionKey], None]
    ) -> None:
        """`on_elsewhere` is called with a session that continues at another front, or was ended there."""
        self._bucket = bucket
        self._instance = instance
        self._clock = clock
        self._on_elsewhere = on_elsewhere
        self._rows: OrderedDict[str, StoredSession] = OrderedDict()
        self._names: dict[str, dict[str, None]] = {}
        """Credential, hashed -> keys of its rows, the oldest first."""
        self._alive: dict[str, int] = {}
        self._own: OrderedDict[str, _OwnSession] = OrderedDict()
        self._ended: OrderedDict[str, StoredSession] = OrderedDict()
        self._has_ended = asyncio.Event()
        self._revision = 0

    async def open(self) -> None:
        """Load all sessions. Raises `Unavailable`."""
        rows, self._revision = await self._bucket.load_all()
        for row in rows:
            self._apply(row)
        await self._write_alive()

    async def run(self) -> None:
        """Follow the other fronts, and write what has ended here, until cancelled."""
        async with CancellableTaskGroup() as group:
            group.create_task(self._follow(), name="mqtt sessions")
            group.create_task(self._stay_alive(), name="mqtt sessions alive")
            group.create_task(self._write_ended(), name="mqtt sessions ended")

    # ── the contract ─────────────────────────────────────────────────────────────────────────────────

    def find(self, key: SessionKey) -> MqttSession | None:
        row = self._rows.get(row_key(key))
        if row is None or self._is_expired(row):
            return None
        session = MqttSession()
        session.expiry_s, session.subscribed = row.expiry_s, row.subscribed
        session.subscriptions = dict(row.subscriptions)
        return session

    async def put(self, key: SessionKey, session: MqttSession) -> bool:
        name = row_key(key)
        self._ended.pop(name, None)
        if not session.expiry_s:
            is_unbroken = name in self._rows and await self._write(name, None)
            self._own.pop(name, None)
            return is_unbroken
        if name not in self._rows:
            await self._make_room(name)
        self._own.setdefault(name, _OwnSession(key))
        self._own.move_to_end(name)
        if len(self._own) > SESSIONS_MAX:
            self._own.popitem(last=False)
        return await self._write(name, self._row_of(session, self._instance))

    def end(self, key: SessionKey, session: MqttSession) -> None:
        name = row_key(key)
        known = self._rows.get(name)
        if known is None or known.holder != self._instance:
            return
        ended = self._row_of(session, "")
        self._set_row(name, ended)
        if len(self._ended) < ENDED_MAX:
            self._ended[name] = ended
            self._has_ended.set()

    def _row_of(self, session: MqttSession, holder: str) -> StoredSession:
        """Return a session as the fronts share it; `holder`: the front that has its connection now."""
        return StoredSession(
            session.expiry_s,
            session.subscribed,
            holder,
            self._clock.now(),
            self._instance,
            dict(session.subscriptions),
        )

    async def _make_room(self, name: str) -> None:
        """Delete the oldest sessions without a connection where a credential has too many: client ids cost nothing."""
        siblings = list(self._names.get(name[_CREDENTIAL], ()))
        for oldest in siblings[: max(0, len(siblings) + 1 - SESSIONS_PER_CREDENTIAL)]:
            if not self._rows[oldest].holder:
                self._own.pop(oldest, None)
                self._ended.pop(oldest, None)
                await self._write(oldest, None)

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────

    def _set_row(self, name: str, row: StoredSession | None) -> None:
        """Set a row in memory; None removes it."""
        credential = name[_CREDENTIAL]
        siblings = self._names.setdefault(credential, {})
        if row is None:
            self._rows.pop(name, None)
            siblings.pop(name, None)
            if not siblings:
                del self._names[credential]
        else:
            self._rows[name] = row
            siblings[name] = None

    def _is_expired(self, row: StoredSession) -> bool:
        if row.expiry_s == NEVER:
            return False
        ended_at, now = row.at, self._clock.now()
        if row.holder:
            alive_at = max(self._alive.get(row.holder, 0), row.at)
            if row.holder == self._instance or now - alive_at < ALIVE_SLACK_US:
                return False
            ended_at = alive_at
        return now - ended_at >= row.expiry_s * _S

    def _apply(self, row: KvRow) -> None:
        name = row.key
        own = self._own.get(name)
        if own and row.revision < own.revision:
            return  # this front has written since
        if name.startswith(_FRONT):
            self._alive[name.removeprefix(_FRONT)] = int(row.value or b"0")
            return
        try:
            stored = _decode(row.value) if row.value is not None else None
        except msgspec.DecodeError:
            return  # of a later release
        self._set_row(name, stored)
        if stored is not None:
            self._rows.move_to_end(name)
            if len(self._rows) > SESSIONS_MAX:
                self._set_row(next(iter(self._rows)), None)
        if own and (stored is None or stored.writer != self._instance):
            del self._own[name]
            self._on_elsewhere(own.key)

    async def _write(self, name: str, row: StoredSession | None, *, ended: bool = False) -> bool:
        """Write a row; return whether no other front has written since this one did.

        Args:
            name: its key.
            row: None deletes it.
            ended: the row is not written where another front has written since.
        """
        self._set_row(name, row)
        own = self._own.get(name)
        expected = own.revision if own and own.revision else None
        if expected is None and ended:
            return False
        revision = 0
        try:
            async with asyncio.timeout(WRITE_S):
                try:
                    revision = await self._store(name, row, expected)
                except Conflict:
                    if ended:
                        return False
                    expected, revision = None, await self._store(name, row, None)
        except (Unavailable, StoreFull, TimeoutError) as why:
            _log.info("session not remembered for other fronts", reason=str(why) or "no answer")
        if own:
            own.revision = revision
        return bool(expected is not None and revision)

    async def _store(self, name: str, row: StoredSession | None, expected: int | None) -> int:
        if row is None:
            return await self._bucket.delete(name, expected=expected)
        return await self._bucket.put(name, _encode(row), expected=expected)

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        while True:
            try:
                async for rows in self._bucket.watch(self._revision):
                    for row in rows:
                        self._revision = row.revision
                        self._apply(row)
            except (Unavailable, EngineError) as why:
                _log.debug("sessions of other fronts not read; trying again", reason=str(why))
            await self._clock.sleep(1.0)

    async def _write_alive(self) -> None:
        try:
            now = self._clock.now()
            await self._bucket.put(f"{_FRONT}{self._instance}", str(now).encode())
        except (Unavailable, StoreFull, Conflict) as why:
            _log.debug("front not noted as alive; trying again", reason=str(why))

    async def _stay_alive(self) -> None:
        while True:
            await self._clock.sleep(ALIVE_S)
            await self._write_alive()
            gone = [name for name, row in self._rows.items() if self._is_expired(row)]
            for name in gone:
                self._set_row(name, None)

    async def _write_ended(self) -> None:
        while True:
            await self._has_ended.wait()
            self._has_ended.clear()
            while self._ended:
                batch = [self._ended.popitem(last=False) for _ in range(min(WRITERS, len(self._ended)))]
                await asyncio.gather(
                    *(self._write(name, row if row.expiry_s else None, ended=True) for name, row in batch)
                )
