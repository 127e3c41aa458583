"""The audit trail: append-only, each record linked to its predecessor by a hash (`chain.py`).

Records are on the stream AUDIT, from which the server itself denies deletions, with one subject for each gateway.
Each names the number and the hash of its predecessor, and is written only if that is still the last one (expected
sequence), so two processes cannot fork the chain. A change or removal of a record breaks the chain from there on; to
detect a truncated end, store a signed head elsewhere (`heads.py` writes one every hour).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

import msgspec
from nats.aio.client import Client

from sensegate.authority.chain import (
    START,
    Algorithm,
    AuditRecord,
    ChainFault,
    ChainHead,
    ChainVerifier,
    HeadSigner,
    SignedHead,
    TrailSearch,
    decode,
    digest,
    shortened,
    verify,
)
from sensegate.authority.scope import Principal
from sensegate.authority.trail import Facts
from sensegate.bus import api, streams
from sensegate.bus.names import token
from sensegate.bus.reader import StreamFollower
from sensegate.clock import Clock
from sensegate.errors import Fenced, NotFound, Overloaded, Unavailable

__all__ = ["START", "Audit", "AuditRecord", "ChainFault", "ChainHead", "digest", "verify"]

_ATTEMPTS_MAX = 20
SEARCH_RECORDS = 20_000
_SEARCH_PAGE = 500


class Audit:
    """The trail of one gateway; several processes may append to it."""

    def __init__(
        self,
        nc: Client,
        clock: Clock,
        *,
        gateway: str,
        algorithm: Algorithm = Algorithm.SHA256,
        signer: HeadSigner | None = None,
        expires: bool = False,
    ) -> None:
        """Use a connection of `User.GATEWAY`; `bus.streams.ensure_streams` has created the stream.

        `algorithm` is the hash of new records; `expires` says that the stream expires old records.
        """
        self._nc = nc
        self._clock = clock
        self._subject = f"audit.{token(gateway)}"
        self._reader = StreamFollower(nc, streams.AUDIT)
        self._algorithm = algorithm
        self._signer = signer
        self._expires = expires
        self._head: ChainHead | None = None
        self._lock = asyncio.Lock()
        self._count = 0

    async def close(self) -> None:
        """Close the reader."""
        await self._reader.close()

    async def record(
        self, by: Principal, action: str, target: str, *, before: Facts | None = None, after: Facts | None = None
    ) -> None:
        """Append a record and return when it is durable.

        Raises:
            StoreFull: AUDIT is full; changes are refused until it has room (`store.audit_bytes`).
            Unavailable: the engine does not answer; the record may have been written.
            Overloaded: other processes append too fast.
        """
        async with self._lock:
            self._count += 1
            nonce = f"{id(self):x}-{self._clock.now():x}-{self._count:x}"
            for _ in range(_ATTEMPTS_MAX):
                head = self._head or await self.head()
                record = AuditRecord(
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
            raise Overloaded("too many processes write to the audit trail at once; try again")

    async def head(self) -> ChainHead:
        """Return the head of the chain on the stream; store it elsewhere to prove a truncation later."""
        message = await self._reader.last(self._subject)
        if message is None:
            return ChainHead(algorithm=self._algorithm)
        sequence = int((message.headers or {})["Nats-Sequence"])
        return self._head_of(decode(message.data).number, message.data, sequence)

    async def signed(self) -> SignedHead:
        """Return the head of the chain with this gateway's signature.

        Raises:
            NotFound: this process has no signing key.
            Unavailable: the engine does not answer.
        """
        if self._signer is None:
            raise NotFound("this gateway has no key to sign heads")
        head = await self.head()
        first = 1
        if self._expires:
            async for raw in self.stored(limit=1):
                first = decode(raw).number
        return self._signer.sign(head, first=first, time=self._clock.now())

    async def usage(self) -> float:
        """Return the used share of the stream's size limit. Raises `Unavailable`."""
        return await streams.usage(self._nc, streams.AUDIT)

    @property
    def key(self) -> bytes:
        """The public key of the signer; empty: heads are not signed."""
        return self._signer.public if self._signer else b""

    async def read(self, after: int = 0, *, limit: int = 500) -> list[tuple[int, AuditRecord]]:
        """Return (stream sequence, record) of this chain after a sequence, oldest first."""
        return [(sequence, decode(raw)) async for sequence, raw in self._stored(after, limit)]

    async def newest(
        self, needle: bytes, match: Callable[[AuditRecord], bool], limit: int, *, before: int = 0
    ) -> TrailSearch:
        """Return the newest records that match, newest first; at most `SEARCH_RECORDS` records are looked at.

        Args:
            needle: bytes that the stored form of a matching record contains; others are not decoded.
            match: decides on a record.
            limit: most records to return.
            before: stream sequence before which to search; 0: at the end.
        """
        first, last = await self._reader.bounds()
        records: list[tuple[int, AuditRecord]] = []
        end, since, searched = min(before or last + 1, last + 1), 0, 0
        while end > first and len(records) < limit and searched < SEARCH_RECORDS:
            begin = max(first, end - _SEARCH_PAGE)
            page = [(sequence, stored) async for sequence, stored in self._stored(begin - 1, _SEARCH_PAGE)]
            page = [(sequence, stored) for sequence, stored in page if sequence < end]
            for sequence, stored in reversed(page):
                if needle in stored and match(record := decode(stored)):
                    records.append((sequence, record))
            if page:
                since = decode(page[0][1]).time
            end, searched = begin, searched + _SEARCH_PAGE
        following = records[limit - 1][0] if len(records) >= limit else 0 if end <= first else end
        return TrailSearch(tuple(records[:limit]), since, following)

    async def stored(self, *, limit: int = 2**62) -> AsyncGenerator[bytes, None]:
        """Yield the records as stored, oldest first."""
        async for _, raw in self._stored(0, limit):
            yield raw

    # ── copies ──────────────────────────────────────────────────────────────────────────────────────

    async def after(self, number: int, *, limit: int, max_bytes: int = 2**62) -> list[bytes]:
        """Return the records after a number as stored, oldest first; from the oldest if the next one has expired."""
        first, _ = await self._reader.bounds()
        start = 0
        async for raw in self.stored(limit=1):
            # The stream holds only this chain, so its sequences advance with the numbers.
            start = max(0, first - 1 + number + 1 - decode(raw).number)
        records: list[bytes] = []
        size = 0
        async for _, raw in self._stored(start, limit):
            size += len(raw)
            if records and size > max_bytes:
                break
            if decode(raw).number > number:
                records.append(raw)
        return records

    async def end(self) -> tuple[int, bytes]:
        """Return (number, stored bytes) of the last record; (0, b"") if there is none."""
        message = await self._reader.last(self._subject)
        return (decode(message.data).number, message.data) if message else (0, b"")

    async def changed(self, timeout_s: float) -> bool:
        """Wait for a new record; return False after `timeout_s`."""
        return await self._reader.changed((await self.head()).sequence, timeout_s)

    async def take(self, records: Sequence[bytes]) -> None:
        """Append records of the original chain to this copy.

        Raises:
            Fenced: they do not follow the last record here.
            Unavailable, StoreFull: some may have been written, in order.
        """
        async with self._lock:
            self._head = None
            number, last = await self.end()
            at = (await self.head()).sequence
            for raw in records:
                record = decode(raw)
                fits = record.number == number + 1 and record.previous == digest(last, record.hash)
                if number and not fits:
                    raise Fenced(f"record {record.number} does not follow record {number} of this copy")
                expected = {"Nats-Expected-Last-Subject-Sequence": str(at)}
                answer = await api.request(self._nc, self._subject, raw, headers=expected)
                at = msgspec.json.decode(answer, type=api.ApiResponse).seq
                number, last = record.number, raw

    async def check(self, head: ChainHead | None = None) -> ChainFault | None:
        """Verify the whole chain; return its first fault, None if it is intact."""
        verifier: ChainVerifier | None = None
        async for raw in self.stored():
            verifier = verifier or ChainVerifier(
                first=decode(raw).number if self._expires else 1, heads=[head] if head else []
            )
            if fault := verifier.take(raw):
                return fault
        return (verifier or ChainVerifier(heads=[head] if head and head.number else [])).end()

    def _head_of(self, number: int, raw: bytes, sequence: int) -> ChainHead:
        return ChainHead(number, digest(raw, self._algorithm), sequence, self._algorithm)

    async def _append(self, record: AuditRecord, head: ChainHead) -> bool:
        """Append a record after `head`; False if another process was faster. Raises `Unavailable`, `StoreFull`."""
        raw = shortened(record)
        expected = {"Nats-Expected-Last-Subject-Sequence": str(head.sequence)}
        self._head = None
        try:
            answer = await api.request(self._nc, self._subject, raw, headers=expected)
        except Fenced:
            return False
        except Unavailable:
            # It may have been written: then it is the last record of the chain.
            if (await self.head()).hash != digest(raw, self._algorithm):
                raise
            return True
        self._head = self._head_of(record.number, raw, msgspec.json.decode(answer, type=api.ApiResponse).seq)
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
