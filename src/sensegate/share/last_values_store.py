"""Last values through restarts: saved with the position in the log up to which they hold, and followed from there.

The reader of feeds passes every entry of readings on as the log grows. What entered the log between the position of the
saved state and this start is read once, beside it. The saved state is in a bucket of the server's store, so that it is
encrypted and backed up as the log is. It has two generations, of which the row ``head`` names the valid one.
"""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import structlog
import xxhash
import zstandard

from sensegate import metrics
from sensegate.authority.bucket import Bucket
from sensegate.authority.devices import Devices
from sensegate.bus import raw
from sensegate.bus.contract import Log
from sensegate.bus.decoding import decoder
from sensegate.bus.names import READINGS, ROW_KINDS
from sensegate.bus.unreadable import read, read_rows
from sensegate.clock import DAY_US, Clock
from sensegate.errors import StoreFull, Unavailable
from sensegate.model import I64, LogEntry
from sensegate.share.last_values import LastValues, SavedTables
from sensegate.share.reader import LogReader, RowsEntry, named_rows

SAVE_S = 300.0
"""After a kill, the log of at most this time is read again."""
COUNT_S = 15.0
"""Interval at which the states of devices are counted for the metrics."""
RETENTION_DAYS = 400
"""Values that arrived before are dropped at a start."""
PART_BYTES = 512 * 1024
RETRY_S = 1.0
CLOSE_S = 10.0
"""Longest time to save at a stop; otherwise the next start reads the log since the last time."""

_HEAD = "head"
_SLOTS = ("a", "b")
_log = structlog.get_logger("share")


class _Head(msgspec.Struct, frozen=True):
    slot: str
    parts: int
    digest: int
    epoch: str
    timeline: bytes
    cursor: int
    format: int = 1


class _Saved(msgspec.Struct, frozen=True):
    tables: SavedTables
    heard: dict[str, int]
    """Device of this gateway -> arrival of its last message, µs UTC."""


_decode_head = decoder(_Head, "head of the last values")
_decode_saved = decoder(_Saved, "last values")
_encode = msgspec.msgpack.Encoder().encode


class LastValueTask:
    """Keeps the last values up to date and saves them; `open` before `run`."""

    def __init__(self, values: LastValues, reader: LogReader, bucket: Bucket, devices: Devices, clock: Clock) -> None:
        self.values = values
        self._log: Log = reader.log
        self._reader = reader
        self._bucket = bucket
        self._devices = devices
        self._clock = clock
        self._cursor = 0
        """Every entry up to this sequence is in the values."""
        self._slot = _SLOTS[0]
        self.is_complete = False
        """True if the log has been read up to its end at the start of this process."""

    async def open(self) -> None:
        """Load the saved state, and have the reader pass on what it reads. Raises `Unavailable`."""
        await self._load()
        metrics.LAST_VALUES.set(len(self.values))
        self._reader.on_rows.append(self._take)

    async def run(self) -> None:
        """Read the entries since the saved state, then save periodically, until cancelled."""
        while not self.is_complete:
            try:
                await self._catch_up()
            except Unavailable as why:
                _log.warning("last values wait for the log", reason=str(why))
                await self._clock.sleep(RETRY_S)
        while True:
            for _ in range(round(SAVE_S / COUNT_S)):
                for state, number in self._devices.count_states().items():
                    metrics.DEVICES.labels(state.value).set(number)
                await self._clock.sleep(COUNT_S)
            await self.save()

    def warnings(self) -> list[str]:
        """Return that the last values are incomplete, while they are."""
        if self.is_complete:
            return []
        return [f"last values: the log is being read since the last start, at entry {self._cursor}; wait"]

    def _take(self, rows: RowsEntry) -> None:
        if rows.subject.startswith(f"{READINGS}."):
            self.values.apply(rows.batch, rows.sequence)
            metrics.LAST_VALUES.set(len(self.values))

    async def _catch_up(self) -> None:
        _, end = await self._log.bounds()
        began = self._cursor
        while self._cursor < end:
            entries = await self._log.fetch(self._cursor)
            for entry in entries:
                self._take_earlier(entry)
            if not entries:
                break
            self._cursor = entries[-1].sequence
            await asyncio.sleep(0)
        self.is_complete = True
        metrics.LAST_VALUES.set(len(self.values))
        _log.info("last values are complete", series=len(self.values), entries=self._cursor - began)

    def _take_earlier(self, entry: LogEntry) -> None:
        """Take an entry of the time before this start; its messages count as heard too where they gave no reading."""
        kind = entry.subject.partition(".")[0]
        if kind in ROW_KINDS or kind == "seen":
            if not entry.payload or (batch := read_rows(entry, "last values")) is None:
                return
            if kind == READINGS:
                self.values.apply(named_rows(batch), entry.sequence)
            if batch.local is not None:  # committed by this gateway
                self._observe(batch.origins.device, batch.origin.astype(np.int64), batch.received)
        elif kind == "quarantine":
            for stored in read(entry, "last values", _quarantined) or ():
                if stored.device and (at := self._devices.find(stored.device)) >= 0:
                    self._devices.observe(np.array([at], np.int32), np.array([stored.message.received], np.int64))

    def _observe(self, names: list[str], origin: I64, received: I64) -> None:
        at = np.array([self._devices.find(name) for name in names], np.int32)[origin]
        self._devices.observe(at[at >= 0], received[at >= 0])

    # ── saving ────────────────────────────────────────────────────────────────────────────────────────

    async def close(self) -> None:
        """Save everything for the next start, unless the store is too slow."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.save()
        except TimeoutError:
            _log.warning("last values not saved", reason=f"not within {CLOSE_S:g} s")

    async def save(self) -> None:
        """Save everything; what cannot be written now is saved later."""
        cursor = self._cursor = max(self._cursor, self._reader.end) if self.is_complete else self._cursor
        saved = _Saved(self.values.save(), self._devices.last_seen())
        timeline, epoch = self._log.timelines.timeline_at(cursor), self._log.epoch
        slot = _SLOTS[self._slot == _SLOTS[0]]
        try:
            body = await asyncio.to_thread(_packed, saved)
            parts = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]
            for number, part in enumerate(parts):
                await self._bucket.put(f"{slot}.{number}", part)
            head = _Head(slot, len(parts), xxhash.xxh3_64_intdigest(body), epoch, timeline, cursor)
            await self._bucket.put(_HEAD, _encode(head))
            self._slot = slot
        except (Unavailable, StoreFull) as why:
            _log.warning("last values not saved; retried later", reason=str(why))

    async def _load(self) -> None:
        row = await self._bucket.get(_HEAD)
        if row is None or row.value is None:
            return
        try:
            head = _decode_head(row.value)
            parts = [await self._bucket.get(f"{head.slot}.{number}") for number in range(head.parts)]
            body = b"".join(part.value or b"" for part in parts if part)
            saved = await asyncio.to_thread(_unpacked, body, head.digest)
            self._restore(head, saved)
        except ValueError as why:
            metrics.UNREADABLE.labels("last values").inc()
            _log.error("saved last values cannot be used; reading the log instead", reason=str(why))

    def _restore(self, head: _Head, saved: _Saved) -> None:
        """Take the values of entries that the log still holds, and when devices were heard."""
        self._slot = head.slot
        names = list(saved.heard)
        self._observe(names, np.arange(len(names)), np.array(list(saved.heard.values()), np.int64))
        agreed = self._log.timelines.diverged_at(head.timeline) if head.epoch == self._log.epoch else None
        if agreed is None:
            _log.warning("saved last values are of another log; reading this one instead")
            return
        cursor = min(head.cursor, agreed)
        received_min = self._clock.now() - RETENTION_DAYS * DAY_US
        self.values.restore(saved.tables, entry_max=cursor, received_min=received_min)
        self._cursor = cursor


def _quarantined(payload: bytes) -> list[raw.StoredMessage]:
    return list(raw.decode_quarantined(payload))


def _packed(saved: _Saved) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(_encode(saved))


def _unpacked(body: bytes, digest: int) -> _Saved:
    if xxhash.xxh3_64_intdigest(body) != digest:
        raise ValueError("last values: the checksum is wrong")
    try:
        return _decode_saved(zstandard.ZstdDecompressor().decompress(body))
    except zstandard.ZstdError as why:
        raise ValueError(f"last values: {why}") from why
