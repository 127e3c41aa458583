"""Copies of the nodes' registries at their centre, and their restore into a new store.

    node: bucket changes ─▶ RegistryUploader ─▶ ask ``copy`` ─▶ centre: RegistryCopies ─▶ bucket ``copy_<node>``
    a node that replaces a lost one: `restore` ◀─ ask ``restore``, before it opens anything

Rows are sent again until the centre has confirmed them; the copy also has the revision of each bucket that it reached.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api
from sensegate.bus.kv import KvBucket
from sensegate.bus.kv_row import KvRow
from sensegate.bus.unreadable import read_row
from sensegate.clock import Clock
from sensegate.errors import PermissionDenied

PART_BYTES = 500_000
ROWS_MAX = 500
GATHER_S = 0.1
POLL_S = 60.0
"""Interval of the check for changes of which no event came."""
UNWATCHED = frozenset({"usage"})
"""Buckets that change all the time: their changes alone do not trigger an upload."""
_AT = "at"
_REVISION = re.compile(rb"[0-9]{1,18}")
_CONCURRENT_WRITES = 64

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""(question, payload) -> the centre's answer."""


class CopyPosition(msgspec.Struct, frozen=True):
    """Revisions of a node's buckets that the centre has."""

    log_epoch: str = ""
    """Epoch of the log of the store to which they belong."""
    revisions: dict[str, int] = {}
    """Bucket -> revision."""


class RegistryRows(msgspec.Struct, frozen=True):
    """Changed rows of one bucket."""

    log_epoch: str
    bucket: str
    rows: list[tuple[str, bytes | None]]
    """(key, value); None: deleted."""
    revision: int
    """Revision of the last of these rows."""
    complete_until: int = 0
    """All changes before this time (µs UTC of the node's clock) have been sent; 0: no statement."""


class RestorePage(msgspec.Struct, frozen=True):
    """Rows of all buckets for a restore."""

    rows: list[tuple[str, str, bytes]]
    """(bucket, key, value)."""
    next: int
    """Revision from which to continue; 0: there are no more rows."""


_encode = msgspec.msgpack.Encoder().encode
decode_at = msgspec.msgpack.Decoder(CopyPosition).decode
_part = msgspec.msgpack.Decoder(RegistryRows).decode
_page = msgspec.msgpack.Decoder(RestorePage).decode


class RegistryUploader:
    """The node's side: uploads changed rows while `run`."""

    def __init__(self, nc: Client, buckets: Mapping[str, KvBucket], ask: Ask, clock: Clock, *, log_epoch: str) -> None:
        """Prepare to upload.

        Args:
            nc: a connection of `User.GATEWAY` at the node.
            buckets: name -> bucket.
            ask: sends a question to the centre.
            clock: source of time.
            log_epoch: epoch of the node's log.
        """
        self._nc = nc
        self._buckets = dict(buckets)
        self._ask = ask
        self._clock = clock
        self._epoch = log_epoch
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Keep the centre's copy up to date until cancelled.

        Raises `Unavailable`, `PermissionDenied`.
        """
        names = {f"$KV.{name}." for name in self._buckets if name not in UNWATCHED}

        async def on_change(message: Msg) -> None:
            if any(message.subject.startswith(name) for name in names):
                self._changed.set()

        with api.translate_client_errors("subscribe to changes of buckets"):
            subscription = await self._nc.subscribe("$KV.>", cb=on_change)
        try:
            at = decode_at(await self._ask("copied", b""))
            revisions = dict(at.revisions) if at.log_epoch == self._epoch else {}
            while True:
                self._changed.clear()
                began = self._clock.now()
                for name, bucket in self._buckets.items():
                    revisions[name] = await self._send(name, bucket, revisions.get(name, 0))
                # Also without new rows: the round before may have sent what changed after it began, and a centre that
                # was restarted does not know the time any more.
                await self._ask("copy", _encode(RegistryRows(self._epoch, "", [], 0, complete_until=began)))
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                await self._clock.sleep(GATHER_S)
        finally:
            with api.translate_client_errors("end the subscription"):
                await subscription.unsubscribe()

    async def _send(self, name: str, bucket: KvBucket, after: int) -> int:
        while rows := await bucket.changes(after, limit=ROWS_MAX):
            part: list[KvRow] = []
            size = 0
            for row in rows:
                size += len(row.key) + len(row.value or b"") + 16
                if part and size > PART_BYTES:
                    break
                part.append(row)
            pairs = [(row.key, row.value) for row in part]
            await self._ask("copy", _encode(RegistryRows(self._epoch, name, pairs, part[-1].revision)))
            after = part[-1].revision
        return after


class RegistryCopies:
    """The centre's side: a bucket with the copy of each node."""

    def __init__(self, open_: Callable[[str], Awaitable[KvBucket]]) -> None:
        self._open = open_
        self.complete_until: dict[str, int] = {}
        """Member -> time before which all its changes are here, µs UTC of its clock."""
        self._buckets: dict[str, KvBucket] = {}

    async def answer_position(self, member: str, _payload: bytes) -> bytes:
        """Answer with the revisions of a node's buckets that are here."""
        return _encode(await self._position(member))

    async def _position(self, member: str) -> CopyPosition:
        """Return the position of a copy; the beginning where it cannot be read: the node sends everything again."""
        row = await (await self._of(member)).get(_AT)
        return (read_row(row, "copies", decode_at) if row else None) or CopyPosition()

    async def store_rows(self, member: str, payload: bytes) -> bytes:
        """Store changed rows of a node."""
        part = _part(payload)
        if part.complete_until:
            self.complete_until[member] = part.complete_until
            return b""
        bucket = await self._of(member)
        for start in range(0, len(part.rows), _CONCURRENT_WRITES):
            chunk = part.rows[start : start + _CONCURRENT_WRITES]
            await asyncio.gather(*(_write(bucket, f"{part.bucket}.{key}", value) for key, value in chunk))
        at = await self._position(member)
        known = at.revisions if at.log_epoch == part.log_epoch else {}
        await bucket.put(_AT, _encode(CopyPosition(part.log_epoch, {**known, part.bucket: part.revision})))
        return b""

    async def find(self, member: str, bucket: str, key: str) -> bytes | None:
        """Return a row of a node's registry from its copy; None where there is none."""
        row = await (await self._of(member)).get(f"{bucket}.{key}")
        return row.value if row else None

    async def overwrite(self, member: str, bucket: str, key: str, value: bytes) -> None:
        """Replace a row of the copy: a node that replaces a lost one starts with the new value."""
        await (await self._of(member)).put(f"{bucket}.{key}", value)

    async def answer_restore(self, member: str, payload: bytes) -> bytes:
        """Answer a node with a new store with rows of its copy; `payload`: revision from which to continue."""
        if payload and not _REVISION.fullmatch(payload):
            raise PermissionDenied("restore: the revision to continue from is not a number; update the node")
        after = int(payload or b"0")
        rows = await (await self._of(member)).changes(after, limit=ROWS_MAX)
        page: list[tuple[str, str, bytes]] = []
        size = 0
        for row in rows:
            size += len(row.key) + len(row.value or b"") + 16
            if page and size > PART_BYTES:
                break
            after = row.revision
            name, dot, key = row.key.partition(".")
            if row.value is not None and dot:
                page.append((name, key, row.value))
        return _encode(RestorePage(page, after if rows else 0))

    async def _of(self, member: str) -> KvBucket:
        bucket = self._buckets.get(member)
        if bucket is None:
            bucket = self._buckets[member] = await self._open(f"copy_{member}")
        return bucket


async def _write(bucket: KvBucket, key: str, value: bytes | None) -> None:
    if value is None:
        await bucket.delete(key)
    else:
        await bucket.put(key, value)


async def restore(buckets: Mapping[str, KvBucket], ask: Ask) -> int:
    """Write the centre's copy of this node into its new buckets; return the number of rows.

    Raises `Unavailable`, `PermissionDenied`.
    """
    count = 0
    async for rows in pages(ask):
        for start in range(0, len(rows), _CONCURRENT_WRITES):
            some = [row for row in rows[start : start + _CONCURRENT_WRITES] if row[0] in buckets]
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
