"""What decoding knows from earlier messages: the births of Sparkplug, the first parts of a split frame.

Decoding stays a function: the same messages and the same memory before give the same rows and the same memory after.
So that a batch may be walked again (a commit was lost, a decoder crashed), what it changed is undone first:

    mark = memory.mark()      before a walk
    memory.rewind(mark)       the walk counts for nothing
    memory.settle(mark)       what came before the mark is committed for good

It lives as long as the process. What a format finds no longer it must ask for again (`ask`), and say so in its refusal.
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
ASKS_MAX = 10_000
"""Questions that wait to be taken; more are forgotten, their messages bring them up again."""


class Ask(msgspec.Struct, frozen=True):
    """A message to a device that decoding needs to go on."""

    topic: str
    payload: bytes
    about: str
    """Topic of the message that could not be understood: it tells which broker the device is on."""


class _Entry(msgspec.Struct, frozen=True):
    value: Any
    size: int


class _Change(msgspec.Struct, frozen=True):
    key: Key
    before: _Entry | None


class Memory:
    """Values by key, bounded in number and bytes; the least lately used goes first.

    Values are immutable: they are replaced, never changed. `undoable`: marks are used, and settled again and again.
    """

    def __init__(
        self,
        *,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = BYTES_MAX,
        undoable: bool = False,
        hindsight: bool = False,
    ) -> None:
        """`hindsight`: messages of the past are decoded again, with what has been heard since."""
        self.hindsight = hindsight
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._undoable = undoable
        self._entries: dict[Key, _Entry] = {}
        self._bytes = 0
        self._changes: deque[_Change] = deque()
        self._settled = 0
        self._asks: dict[str, Ask] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes held, as estimated by those who put them."""
        return self._bytes

    def copy(self, *, hindsight: bool = False) -> Memory:
        """Return a memory that begins with what this one holds, and goes its own way."""
        other = Memory(entries_max=self._entries_max, bytes_max=self._bytes_max, hindsight=hindsight)
        other._entries = dict(self._entries)
        other._bytes = self._bytes
        return other

    def get(self, key: Key) -> Any:
        """Return the value of a key, None if there is none."""
        found = self._entries.pop(key, None)
        if found is None:
            return None
        self._entries[key] = found  # the last in the order is the one used last
        return found.value

    def put(self, key: Key, value: Any, size: int) -> None:
        """Keep a value of about `size` bytes; one too large for the whole memory is not kept."""
        self._change(key, _Entry(value, size) if size <= self._bytes_max else None)
        while len(self._entries) > self._entries_max or self._bytes > self._bytes_max:
            metrics.LIMITED.labels("decoder_memory").inc()
            self._change(next(iter(self._entries)), None)

    def drop(self, key: Key) -> None:
        """Forget a key."""
        self._change(key, None)

    def _change(self, key: Key, entry: _Entry | None) -> None:
        before = self._entries.get(key)
        if self._undoable:
            self._changes.append(_Change(key, before))
        self._set(key, entry)

    def _set(self, key: Key, entry: _Entry | None) -> None:
        gone = self._entries.pop(key, None)
        self._bytes -= gone.size if gone else 0
        if entry is not None:
            self._entries[key] = entry
            self._bytes += entry.size

    # ── walks ────────────────────────────────────────────────────────────────────────────────────────

    def mark(self) -> int:
        """Return where the memory stands, for `rewind` and `settle`."""
        return self._settled + len(self._changes)

    def rewind(self, mark: int = 0) -> None:
        """Undo what changed since a mark; by default all that is not settled."""
        while self._changes and self.mark() > mark:
            change = self._changes.pop()
            self._set(change.key, change.before)

    def settle(self, mark: int) -> None:
        """Say that what changed before a mark is never undone."""
        while self._changes and self._settled < mark:
            self._changes.popleft()
            self._settled += 1

    # ── questions ────────────────────────────────────────────────────────────────────────────────────

    def ask(self, ask: Ask) -> None:
        """Have something asked of a device; once, however often until `asks` is called."""
        if len(self._asks) < ASKS_MAX:
            self._asks.setdefault(ask.topic, ask)

    def asks(self) -> list[Ask]:
        """Return what is to be asked since the last call."""
        asks, self._asks = self._asks, {}
        return list(asks.values())
