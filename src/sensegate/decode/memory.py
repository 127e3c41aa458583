"""State that decoding keeps from earlier messages: births of Sparkplug, the first parts of a split frame.

Decoding remains a function: the same messages and the same state before give the same rows and the same state after.
So that a batch may be decoded again (a commit was lost, a decoder crashed), its changes are rolled back first:

    savepoint = memory.savepoint()   before a batch
    memory.rollback(savepoint)       the batch does not count
    memory.release(savepoint)        everything before the savepoint is committed

The state lives as long as the process. What a format misses it must `request` again, and say so in its refusal.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from sensegate import metrics

Key = tuple[str, str]
"""(format, name)."""
ENTRIES_MAX = 200_000
BYTES_MAX = 128 * 1024**2
LARGE_BYTES = BYTES_MAX // 16
"""In a full memory a value larger than this is dropped before those of others: one device has filled it."""
REQUESTS_MAX = 10_000
"""Most pending requests; further ones are dropped, and their messages raise them again."""


class DeviceRequest(msgspec.Struct, frozen=True):
    """A message to a device, whose answer decoding needs."""

    topic: str
    payload: bytes
    about: str
    """Topic of the message that could not be decoded: it tells on which broker the device is."""


class _Entry(msgspec.Struct, frozen=True):
    value: Any
    size: int


class _Change(msgspec.Struct, frozen=True):
    key: Key
    before: _Entry | None


class DecoderMemory:
    """Values by key, bounded in number and bytes; the least recently used is dropped first.

    Values are immutable: they are replaced, never changed. `undoable`: savepoints are used, and released regularly.
    """

    def __init__(
        self,
        *,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
        undoable: bool = False,
        hindsight: bool = False,
    ) -> None:
        """`hindsight`: messages of the past are decoded again, with the state gathered since."""
        self.hindsight = hindsight
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._undoable = undoable
        self._entries: dict[Key, _Entry] = {}
        self._bytes = 0
        self._changes: deque[_Change] = deque()
        self._released = 0
        self._requests: dict[str, DeviceRequest] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Estimated bytes held."""
        return self._bytes

    def copy(self, *, hindsight: bool = False) -> DecoderMemory:
        """Return an independent memory that starts with the same content."""
        other = DecoderMemory(entries_max=self._entries_max, bytes_max=self._bytes_max, hindsight=hindsight)
        other._entries = dict(self._entries)
        other._bytes = self._bytes
        return other

    def get(self, key: Key) -> Any:
        """Return the value of a key, None if there is none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._entries[key] = entry  # moved to the end of the order: most recently used
        return entry.value

    def put(self, key: Key, value: Any, size: int) -> None:
        """Store a value of about `size` bytes.

        A value too large for the whole memory is not stored, nor is one of more than `LARGE_BYTES` in a memory that is
        full.
        """
        self._change(key, _Entry(value, size) if size <= self._bytes_max else None)
        if self._bytes > self._bytes_max and size > LARGE_BYTES:
            metrics.LIMIT_HITS.labels("decoder_memory").inc()
            self._change(key, None)
        while len(self._entries) > self._entries_max or self._bytes > self._bytes_max:
            metrics.LIMIT_HITS.labels("decoder_memory").inc()
            self._change(next(iter(self._entries)), None)

    def drop(self, key: Key) -> None:
        """Delete a key."""
        self._change(key, None)

    def _change(self, key: Key, entry: _Entry | None) -> None:
        before = self._entries.get(key)
        if self._undoable:
            self._changes.append(_Change(key, before))
        self._set(key, entry)

    def _set(self, key: Key, entry: _Entry | None) -> None:
        previous = self._entries.pop(key, None)
        self._bytes -= previous.size if previous else 0
        if entry is not None:
            self._entries[key] = entry
            self._bytes += entry.size

    # ── savepoints ───────────────────────────────────────────────────────────────────────────────────

    def savepoint(self) -> int:
        """Return a savepoint, for `rollback` and `release`."""
        return self._released + len(self._changes)

    def rollback(self, savepoint: int = 0) -> None:
        """Undo the changes since a savepoint; by default all that are not released."""
        while self._changes and self.savepoint() > savepoint:
            change = self._changes.pop()
            self._set(change.key, change.before)

    def release(self, savepoint: int) -> None:
        """Make changes before a savepoint permanent."""
        while self._changes and self._released < savepoint:
            self._changes.popleft()
            self._released += 1

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────

    def request(self, ask: DeviceRequest) -> None:
        """Request something of a device; once for each topic until `take_requests` is called."""
        if len(self._requests) < REQUESTS_MAX:
            self._requests.setdefault(ask.topic, ask)

    def take_requests(self) -> list[DeviceRequest]:
        """Return the requests since the last call."""
        requests, self._requests = self._requests, {}
        return list(requests.values())
