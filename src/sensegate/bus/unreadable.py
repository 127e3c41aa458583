"""Entries of a log that a reader could not read: passed over, counted, told once each, remembered for `doctor`.

No entry ends a process or a feed, whatever it holds. Every reader of a log decodes by `read`, or calls `pass_over`
where it finds out for itself.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus import columns
from sensegate.bus.batch import Batch
from sensegate.bus.kv_row import Row
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import RowsSubject, rows_subject
from sensegate.model import Entry

KEPT_MAX = 200
"""Newest unreadable entries that are remembered."""
REASON_MAX = 200
TOLD_MAX = 20
"""So many are told one by one."""

_T = TypeVar("_T")
_log = structlog.get_logger("log")


class UnreadableEntry(msgspec.Struct, frozen=True):
    """An entry that could not be read."""

    sequence: int
    subject: str
    reason: str
    size: int
    """Bytes of its payload."""
    stored: int
    """When it was stored, µs UTC."""
    readers: tuple[str, ...]
    """Those that passed it over, in order."""


class UnreadableEntries:
    """Those of this process; any thread may add to them."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int, str], UnreadableEntry] = OrderedDict()
        self._lock = threading.Lock()
        self._found = 0

    def add(self, entry: Entry, reader: str, why: object) -> None:
        """Count an entry for a reader, and tell of it the first time."""
        key = (entry.sequence, entry.subject)
        with self._lock:
            known = self._entries.get(key)
            if known is not None and reader in known.readers:
                return
            readers = (*known.readers, reader) if known else (reader,)
            reason = str(why)[:REASON_MAX]
            self._entries[key] = UnreadableEntry(
                entry.sequence, entry.subject, reason, len(entry.payload), entry.time, readers
            )
            while len(self._entries) > KEPT_MAX:
                self._entries.popitem(last=False)
            self._found += known is None
            # Of very many only every doubling is told: the log of the process must not fill with them.
            is_told = known is None and (self._found <= TOLD_MAX or self._found & (self._found - 1) == 0)
        metrics.UNREADABLE.labels(reader).inc()
        if is_told:
            _log.error(
                "entry of the log cannot be read and is passed over; `sensegate log quarantine SEQUENCE` sets it aside",
                sequence=entry.sequence,
                subject=entry.subject[:80],
                reader=reader,
                reason=reason,
                found=self._found,
            )

    def forget(self, sequence: int) -> None:
        """Remember an entry no more: it was set aside."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == sequence]:
                del self._entries[key]

    def all(self) -> list[UnreadableEntry]:
        """Return those that are remembered, in order of sequence."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: entry.sequence)


UNREADABLE = UnreadableEntries()


def pass_over(entry: Entry, reader: str, why: object) -> None:
    """Count an entry that a reader could not read."""
    UNREADABLE.add(entry, reader, why)


def read(entry: Entry, reader: str, decode: Callable[[bytes], _T]) -> _T | None:
    """Return what an entry holds; None: it cannot be read, and is counted for `reader`."""
    try:
        return decode(entry.payload)
    except ValueError as why:
        UNREADABLE.add(entry, reader, why)
        return None


def read_rows(entry: Entry, reader: str) -> Batch | None:
    """Return the batch of an entry of rows; None as `read`."""
    try:
        return columns.decode(entry.payload, sequence=entry.sequence)
    except ValueError as why:
        UNREADABLE.add(entry, reader, why)
        return None


def read_ledger(entry: Entry, reader: str) -> Ledger | None:
    """Return the counts of an entry of a ledger; None as `read`."""
    return read(entry, reader, Ledger.decode)


def read_row(row: Row, registry: str, decode: Callable[[bytes], _T]) -> _T | None:
    """Return what a row of a registry holds; None: nothing, or nothing that can be read, which is told and counted."""
    if row.value is None:
        return None
    try:
        return decode(row.value)
    except (ValueError, RecursionError) as why:
        metrics.UNREADABLE.labels(registry).inc()
        _log.error(
            "row of a registry cannot be read and counts as absent",
            registry=registry,
            key=row.key[:80],
            revision=row.revision,
            reason=str(why)[:REASON_MAX],
        )
        return None


def read_subject(entry: Entry, reader: str) -> RowsSubject | None:
    """Return what the subject of an entry of rows says; None: it is none, and is counted for `reader`."""
    found = rows_subject(entry.subject)
    if found is None:
        UNREADABLE.add(entry, reader, "its subject is none of rows: KIND.NODE.PLACE.GRADE")
    return found
