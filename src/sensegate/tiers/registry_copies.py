"""A copy of a node's registries at its centre, and back from there into a new store.

    node: bucket changes ─▶ Copying ─▶ ask ``store_rows`` ─▶ centre: Copies ─▶ bucket ``copy_<node>``
    a node in place of a lost one: `answer_restore` ◀─ ask ``answer_restore``, before it opens anything

Rows are sent again until the centre has confirmed them; the revision up to which it has each bucket stands beside them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api
from sensegate.bus.kv import Bucket
from sensegate.bus.row import Row
from sensegate.clock import Clock
from sensegate.errors import PermissionDenied

PART_BYTES = 500_000
ROWS_MAX = 500
GATHER_S = 0.1
POLL_S = 60.0
"""What nobody told of is looked for so often."""
UNWATCHED = frozenset({"usage"})
"""Buckets that change all the time: they go with the others, or when it is looked."""
_AT = "at"
_PLACE = re.compile(rb"[0-9]{1,18}")
_TOGETHER = 64

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""(what, payload) -> the centre's answer."""


class CopyPosition(msgspec.Struct, frozen=True):
    """How far the centre has a node's buckets."""

    log_epoch: str = ""
    """Of the store that they are of."""
    revisions: dict[str, int] = {}


class RegistryRows(msgspec.Struct, frozen=True):
    """Some rows of one bucket."""

    log_epoch: str
    bucket: str
    rows: list[tuple[str, bytes | None]]
    """(key, value); None: deleted."""
    revision: int
    """Of the last of them."""
    complete_until: int = 0
    """All that was changed before this time (µs UTC, the node's clock) has come with this part; 0: not said."""


class RestorePage(msgspec.Struct, frozen=True):
    """Some rows of all buckets, on their way back."""

    rows: list[tuple[str, str, bytes]]
    """(bucket, key, value)."""
    next: int
    """Where to go on; 0: that was all."""


_encode = msgspec.msgpack.Encoder().encode
decode_at = msgspec.msgpack.Decoder(CopyPosition).decode
_part = msgspec.msgpack.Decoder(RegistryRows).decode
_page = msgspec.msgpack.Decoder(RestorePage).decode


class RegistryUploader:
    """The node's side: sends what changes while `run`."""

    def __init__(self, nc: Client, buckets: Mapping[str, Bucket], ask: Ask, clock: Clock, *, log_epoch: str) -> None:
        """`nc`: a connection of `User.GATEWAY` at the node; `log_epoch`: epoch of its log."""
        self._nc = nc
        self._buckets = dict(buckets)
        self._ask = ask
        self._clock = clock
        self._life = log_epoch
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Bring the centre's copy up to date and keep it so, until cancelled.

        Raises `Unavailable`, `PermissionDenied`.
        """
        names = {f"$KV.{name}." for name in self._buckets if name not in UNWATCHED}

        async def heard(message: Msg) -> None:
            if any(message.subject.startswith(name) for name in names):
                self._changed.set()

        with api.lost("hear of changes"):
            subscription = await self._nc.subscribe("$KV.>", cb=heard)
        try:
            at = decode_at(await self._ask("copied", b""))
            revisions = dict(at.revisions) if at.log_epoch == self._life else {}
            while True:
                self._changed.clear()
                began, before = self._clock.now(), dict(revisions)
                for name, bucket in self._buckets.items():
                    revisions[name] = await self._send(name, bucket, revisions.get(name, 0))
                if revisions != before:
                    await self._ask("copy", _encode(RegistryRows(self._life, "", [], 0, complete_until=began)))
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                await self._clock.sleep(GATHER_S)
        finally:
            with api.lost("hear no more"):
                await subscription.unsubscribe()

    async def _send(self, name: str, bucket: Bucket, after: int) -> int:
        while rows := await bucket.changes(after, limit=ROWS_MAX):
            part: list[Row] = []
            size = 0
            for row in rows:
                size += len(row.key) + len(row.value or b"") + 16
                if part and size > PART_BYTES:
                    break
                part.append(row)
            pairs = [(row.key, row.value) for row in part]
            await self._ask("copy", _encode(RegistryRows(self._life, name, pairs, part[-1].revision)))
            after = part[-1].revision
        return after


class RegistryCopies:
    """The centre's side: a bucket for each node."""

    def __init__(self, open_: Callable[[str], Awaitable[Bucket]]) -> None:
        self._open = open_
        self.complete_until: dict[str, int] = {}
        """Division -> all that was changed in its registries before this time is here, µs UTC of its clock."""
        self._buckets: dict[str, Bucket] = {}

    async def answer_position(self, division: str, _payload: bytes) -> bytes:
        """Answer how far a node's buckets are here."""
        row = await (await self._of(division)).get(_AT)
        return row.value if row and row.value else _encode(CopyPosition())

    async def store_rows(self, division: str, payload: bytes) -> bytes:
        """Take a part of a node's registries."""
        part = _part(payload)
        if part.complete_until:
            self.complete_until[division] = part.complete_until
            return b""
        bucket = await self._of(division)
        for start in range(0, len(part.rows), _TOGETHER):
            some = part.rows[start : start + _TOGETHER]
            await asyncio.gather(*(_write(bucket, f"{part.bucket}.{key}", value) for key, value in some))
        at = decode_at(await self.answer_position(division, b""))
        known = at.revisions if at.log_epoch == part.log_epoch else {}
        await bucket.put(_AT, _encode(CopyPosition(part.log_epoch, {**known, part.bucket: part.revision})))
        return b""

    async def find(self, division: str, bucket: str, key: str) -> bytes | None:
        """Return a row of a node's registries as it is here; None where there is none."""
        row = await (await self._of(division)).get(f"{bucket}.{key}")
        return row.value if row else None

    async def overwrite(self, division: str, bucket: str, key: str, value: bytes) -> None:
        """Make a row another than the node sent: what a node in place of a lost one is to begin with."""
        await (await self._of(division)).put(f"{bucket}.{key}", value)

    async def answer_restore(self, division: str, payload: bytes) -> bytes:
        """Answer a node in a new store that asks for what is here of it; `payload`: where to go on."""
        if payload and not _PLACE.fullmatch(payload):
            raise PermissionDenied("restore: the place to go on from is no revision; update the node")
        after = int(payload or b"0")
        rows = await (await self._of(division)).changes(after, limit=ROWS_MAX)
        found: list[tuple[str, str, bytes]] = []
        size = 0
        for row in rows:
            size += len(row.key) + len(row.value or b"") + 16
            if found and size > PART_BYTES:
                break
            after = row.revision
            name, dot, key = row.key.partition(".")
            if row.value is not None and dot:
                found.append((name, key, row.value))
        return _encode(RestorePage(found, after if rows else 0))

    async def _of(self, division: str) -> Bucket:
        found = self._buckets.get(division)
        if found is None:
            found = self._buckets[division] = await self._open(f"copy_{division}")
        return found


async def _write(bucket: Bucket, key: str, value: bytes | None) -> None:
    if value is None:
        await bucket.delete(key)
    else:
        await bucket.put(key, value)


async def restore(buckets: Mapping[str, Bucket], ask: Ask) -> int:
    """Write what the centre has of this node into its new buckets; return how many rows.

    Raises `Unavailable`, `PermissionDenied`.
    """
    count = 0
    async for rows in pages(ask):
        for start in range(0, len(rows), _TOGETHER):
            some = [row for row in rows[start : start + _TOGETHER] if row[0] in buckets]
            await asyncio.gather(*(buckets[name].put(key, value) for name, key, value in some))
            count += len(some)
    return count


async def pages(ask: Ask) -> AsyncIterator[list[tuple[str, str, bytes]]]:
    """Yield (bucket, key, value) of all rows that the centre has of this node, page by page.

    Raises `Unavailable`, `PermissionDenied`.
    """
    after = 0
    while True:
        page = _page(await ask("restore", str(after).encode()))
        if page.next == 0:
            return
        yield page.rows
        after = page.next
