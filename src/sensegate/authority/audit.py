"""The audit trail: append-only, each record bound to the one before by its hash (`chain.py`).

Records lie on the stream AUDIT, which the server itself lets nobody delete from or purge, under one subject a gateway.
Each carries the number and the hash of its predecessor, and is written only if that is still the last (expected
sequence), so two processes cannot fork the chain. Change or removal of a record breaks the chain from there on; to
notice that the end was cut off, keep a signed head elsewhere (`heads.py` writes one every hour).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import msgspec
from nats.aio.client import Client

from sensegate.authority.chain import (
    START,
    Algorithm,
    Fault,
    Head,
    Record,
    SignedHead,
    Signer,
    Walk,
    decode,
    digest,
    fitted,
    verify,
)
from sensegate.authority.scope import Principal
from sensegate.authority.trail import Facts
from sensegate.bus import api, streams
from sensegate.bus.names import token
from sensegate.bus.reader import StreamFollower
from sensegate.clock import Clock
from sensegate.errors import Fenced, NotFound, Overloaded, Unavailable

__all__ = ["START", "Audit", "Fault", "Head", "Record", "digest", "verify"]

_TRIES = 20


class Audit:
    """The trail of one gateway; any number of processes may append to it."""

    def __init__(
        self,
        nc: Client,
        clock: Clock,
        *,
        gateway: str,
        algorithm: Algorithm = Algorithm.SHA256,
        signer: Signer | None = None,
        expires: bool = False,
    ) -> None:
        """Take a connection of `User.GATEWAY`; `bus.streams.ensure_streams` has made the stream.

        `algorithm`: of new records. `expires`: the stream ends the life of old ones.
        """
        self._nc = nc
        self._clock = clock
        self._subject = f"audit.{token(gateway)}"
        self._reader = StreamFollower(nc, streams.AUDIT)
        self._algorithm = algorithm
        self._signer = signer
        self._expires = expires
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
            StoreFull: AUDIT is full; nothing may be changed until it has room (`store.audit_bytes`).
            Unavailable: the engine is away; the record may be there.
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
                    hash=head.algorithm,
                )
                if await self._append(record, head):
                    return
            raise Overloaded("the audit trail is written by too many at once; try again")

    async def head(self) -> Head:
        """Return the end of the chain as it stands on the stream; note it elsewhere to prove a cut later."""
        message = await self._reader.last(self._subject)
        if message is None:
            return Head(algorithm=self._algorithm)
        sequence = int((message.headers or {})["Nats-Sequence"])
        return self._headed(decode(message.data).number, message.data, sequence)

    async def signed(self) -> SignedHead:
        """Return the end of the chain with this gateway's signature.

        Raises:
            NotFound: this process has no key to sign with.
            Unavailable: the engine is away.
        """
        if self._signer is None:
            raise NotFound("this gateway signs no heads")
        head = await self.head()
        first = 1
        if self._expires:
            async for raw in self.stored(limit=1):
                first = decode(raw).number
        return self._signer.sign(head, first=first, time=self._clock.now())

    async def used(self) -> float:
        """Return which part of the room for records is used. Raises `Unavailable`."""
        return await streams.usage(self._nc, streams.AUDIT)

    @property
    def key(self) -> bytes:
        """The public key of whoever signs here; empty: nobody does."""
        return self._signer.public if self._signer else b""

    async def read(self, after: int = 0, *, limit: int = 500) -> list[tuple[int, Record]]:
        """Return (stream sequence, record) of this chain after a sequence, oldest first."""
        return [(sequence, decode(raw)) async for sequence, raw in self._stored(after, limit)]

    async def stored(self, *, limit: int = 2**62) -> AsyncGenerator[bytes, None]:
        """Yield the records as they are stored, oldest first."""
        async for _, raw in self._stored(0, limit):
            yield raw

    # ── copies ──────────────────────────────────────────────────────────────────────────────────────

    async def after(self, number: int, *, limit: int, max_bytes: int = 2**62) -> list[bytes]:
        """Return the records after a number as they are stored, oldest first; the oldest where that one has expired."""
        first, _ = await self._reader.bounds()
        start = 0
        async for raw in self.stored(limit=1):
            # Nothing but this chain is on the stream: its sequences go with its numbers.
            start = max(0, first - 1 + number + 1 - decode(raw).number)
        found: list[bytes] = []
        size = 0
        async for _, raw in self._stored(start, limit):
            size += len(raw)
            if found and size > max_bytes:
                break
            if decode(raw).number > number:
                found.append(raw)
        return found

    async def end(self) -> tuple[int, bytes]:
        """Return the last record: its number (0: there is none), and as it is stored."""
        message = await self._reader.last(self._subject)
        return (decode(message.data).number, message.data) if message else (0, b"")

    async def changed(self, timeout_s: float) -> bool:
        """Wait until there is another record; False after `timeout_s`."""
        return await self._reader.changed((await self.head()).sequence, timeout_s)

    async def take(self, records: Sequence[bytes]) -> None:
        """Append records of the chain of which this one is a copy.

        Raises:
            Fenced: they do not go on from what is here.
            Unavailable, StoreFull: some may be here, in order.
        """
        async with self._lock:
            self._head = None
            number, last = await self.end()
            at = (await self.head()).sequence
            for raw in records:
                record = decode(raw)
                fits = record.number == number + 1 and record.previous == digest(last, record.hash)
                if number and not fits:
                    raise Fenced(f"record {record.number} does not go on from number {number} here")
                expected = {"Nats-Expected-Last-Subject-Sequence": str(at)}
                answer = await api.request(self._nc, self._subject, raw, headers=expected)
                at = msgspec.json.decode(answer, type=api.ApiResponse).seq
                number, last = record.number, raw

    async def check(self, head: Head | None = None) -> Fault | None:
        """Walk the whole chain; return its first break, None if it is whole."""
        walk: Walk | None = None
        async for raw in self.stored():
            walk = walk or Walk(first=decode(raw).number if self._expires else 1, heads=[head] if head else [])
            if fault := walk.take(raw):
                return fault
        return (walk or Walk(heads=[head] if head and head.number else [])).end()

    def _headed(self, number: int, raw: bytes, sequence: int) -> Head:
        return Head(number, digest(raw, self._algorithm), sequence, self._algorithm)

    async def _append(self, record: Record, head: Head) -> bool:
        """Write it after `head`; False where another was faster. Raises `Unavailable`, `StoreFull`."""
        raw = fitted(record)
        expected = {"Nats-Expected-Last-Subject-Sequence": str(head.sequence)}
        self._head = None
        try:
            answer = await api.request(self._nc, self._subject, raw, headers=expected)
        except Fenced:
            return False
        except Unavailable:
            # It may have been written: then the end of the chain is this very record.
            if (await self.head()).hash != digest(raw, self._algorithm):
                raise
            return True
        self._head = self._headed(record.number, raw, msgspec.json.decode(answer, type=api.ApiResponse).seq)
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
