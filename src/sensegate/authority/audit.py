"""The audit trail: append-only, each record bound to the one before by its hash.

Records lie on the stream AUDIT, which the server itself lets nobody delete from or purge, under one subject a gateway.
Each carries the number and the hash of its predecessor, and is written only if that is still the last (expected
sequence), so two processes cannot fork the chain. Change or removal of a record breaks the chain from there on; to
notice that the end was cut off, keep a head (number and hash) elsewhere and hand it to `verify`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256

import msgspec
from nats.aio.client import Client

from sensegate.authority.scope import Principal
from sensegate.authority.trail import Facts
from sensegate.bus import api, streams
from sensegate.bus.names import token
from sensegate.bus.reader import Reader
from sensegate.clock import Clock
from sensegate.errors import Fenced, Lost, Overloaded

START = "0" * 64
"""What the first record names as the hash before it."""
_TRIES = 20
_RECORD_BYTES_MAX = 262_144


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change, as it was about to be made."""

    number: int
    """1, 2, 3 … of this chain."""
    previous: str
    """SHA-256 (hex) of the predecessor as stored."""
    time: int
    actor: str
    """Id of the token, or of the device."""
    role: str
    action: str
    """``device.add``, ``token.revoke``, …"""
    target: str
    nonce: str
    """Tells this record from any other with the same content after a loss."""
    before: Facts | None = None
    after: Facts | None = None
    format: int = 1


class Head(msgspec.Struct, frozen=True):
    """The end of a chain."""

    number: int = 0
    hash: str = START
    sequence: int = 0
    """Sequence on the stream."""


class Fault(msgspec.Struct, frozen=True):
    """Where a chain is broken."""

    number: int
    what: str


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Record).decode


def digest(stored: bytes) -> str:
    """Return the hash by which the next record names this one."""
    return sha256(stored).hexdigest()


def verify(stored: list[bytes], *, after: Head | None = None, head: Head | None = None) -> Fault | None:
    """Return the first break of a chain of stored records, oldest first; None if it is whole.

    `after`: the record before the first one; none: the chain's start. `head`: an end noted earlier that must be
    among them.
    """
    number, previous = (after.number, after.hash) if after else (0, START)
    met = head is None or (head.number, head.hash) == (number, previous)
    for raw in stored:
        try:
            record = _decode(raw)
        except msgspec.DecodeError as why:
            return Fault(number + 1, f"not a record: {why}")
        if record.number != number + 1:
            return Fault(number + 1, f"missing: the next one is number {record.number}")
        if record.previous != previous:
            return Fault(record.number, "does not fit its predecessor: one of the two was changed")
        number, previous = record.number, digest(raw)
        if head and number == head.number:
            if previous != head.hash:
                return Fault(number, "is not the record noted as the head")
            met = True
    if not met and head:
        return Fault(number + 1, f"cut off: number {head.number} was there before")
    return None


class Audit:
    """The trail of one gateway; any number of processes may append to it."""

    def __init__(self, nc: Client, clock: Clock, *, gateway: str) -> None:
        """Take a connection of `Role.GATEWAY`; `bus.streams.ensure_streams` has made the stream."""
        self._nc = nc
        self._clock = clock
        self._subject = f"audit.{token(gateway)}"
        self._reader = Reader(nc, streams.AUDIT)
        self._head: Head | None = None
        self._lock = asyncio.Lock()
        self._count = 0

    async def close(self) -> None:
        """Stop reading."""
        await self._reader.close()

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        """Append a record and return when it is durable.

        Raises:
            StoreFull: AUDIT is full; nothing may be changed until it has room (`store.registry_bytes`).
            Lost: the engine is away; the record may be there.
            Overloaded: other processes write too fast.
        """
        async with self._lock:
            self._count += 1
            nonce = f"{id(self):x}-{self._clock.now():x}-{self._count:x}"
            for _ in range(_TRIES):
                head = self._head or await self.head()
                record = Record(
                    number=head.number + 1,
                    previous=head.hash,
                    time=self._clock.now(),
                    actor=by.id,
                    role=by.role,
                    action=action,
                    target=target,
                    nonce=nonce,
                    before=before,
                    after=after,
                )
                if await self._append(record, head):
                    return
            raise Overloaded("the audit trail is written by too many at once; try again")

    async def head(self) -> Head:
        """Return the end of the chain as it stands on the stream; note it elsewhere to prove a cut later."""
        message = await self._reader.last(self._subject)
        if message is None:
            return Head()
        sequence = int((message.headers or {})["Nats-Sequence"])
        return Head(_decode(message.data).number, digest(message.data), sequence)

    async def read(self, after: int = 0, *, limit: int = 500) -> list[tuple[int, Record]]:
        """Return (stream sequence, record) of this chain after a sequence, oldest first."""
        return [(sequence, _decode(raw)) async for sequence, raw in self._stored(after, limit)]

    async def check(self, head: Head | None = None) -> Fault | None:
        """Walk the whole chain; return its first break, None if it is whole."""
        at, seen = Head(), False
        async for sequence, raw in self._stored(0, 2**62):
            passed = head if head and head.number == at.number + 1 else None
            if fault := verify([raw], after=at, head=passed):
                return fault
            seen = seen or passed is not None
            at = Head(at.number + 1, digest(raw), sequence)
        if head and head.number and not seen:
            return Fault(at.number + 1, f"cut off: number {head.number} was there before")
        return None

    async def _append(self, record: Record, head: Head) -> bool:
        """Write it after `head`; False where another was faster. Raises `Lost`, `StoreFull`."""
        raw = _fitted(record)
        expected = {"Nats-Expected-Last-Subject-Sequence": str(head.sequence)}
        self._head = None
        try:
            answer = await api.call(self._nc, self._subject, raw, headers=expected)
        except Fenced:
            return False
        except Lost:
            # It may have been written: then the end of the chain is this very record.
            if (await self.head()).hash != digest(raw):
                raise
            return True
        self._head = Head(record.number, digest(raw), msgspec.json.decode(answer, type=api.Answer).seq)
        return True

    async def _stored(self, after: int, limit: int) -> AsyncIterator[tuple[int, bytes]]:
        while limit > 0:
            messages = await self._reader.fetch(after, limit=min(limit, 500), max_bytes=4 * 1024**2)
            if not messages:
                return
            for message in messages:
                headers = message.headers or {}
                after = int(headers["Nats-Sequence"])
                if headers["Nats-Subject"] == self._subject:
                    limit -= 1
                    yield after, message.data


def _fitted(record: Record) -> bytes:
    raw = _encode(record)
    if len(raw) <= _RECORD_BYTES_MAX:
        return raw
    size: Facts = {"too_long_bytes": len(raw)}
    return _encode(msgspec.structs.replace(record, before=None, after=size))
