"""Log entries that a reader could not decode: skipped, counted, logged once each, remembered for `doctor`.

No entry stops a process or a feed, whatever it contains. Every reader of a log decodes by `read`, or calls
`UNREADABLE.add` where it detects the error itself.
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
from sensegate.bus.kv_row import KvRow
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import RowsSubject, rows_subject
from sensegate.model import LogEntry

REMEMBERED_MAX = 200
"""Number of the newest unreadable entries that are remembered."""
REASON_MAX = 200
LOGGED_MAX = 20
"""The first ones are logged one by one, up to this number."""

_T = TypeVar("_T")
_log = structlog.get_logger("log")


class UnreadableEntry(msgspec.Struct, frozen=True):
    """A log entry that could not be decoded."""

    sequence: int
    subject: str
    reason: str
    size: int
    """Size of its payload in bytes."""
    stored: int
    """Time when it was stored, µs UTC."""
    readers: tuple[str, ...]
    """Readers that skipped it, in order."""


class UnreadableEntries:
    """Unreadable entries found by this process; thread-safe."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int, str], UnreadableEntry] = OrderedDict()
        self._lock = threading.Lock()
        self._total = 0

    def add(self, entry: LogEntry, reader: str, why: object) -> None:
        """Count an entry for a reader, and log it the first time."""
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
            while len(self._entries) > REMEMBERED_MAX:
                self._entries.popitem(last=False)
            self._total += known is None
            # Of very many only each doubling is logged, so that they do not fill the process log.
            is_logged = known is None and (self._total <= LOGGED_MAX or self._total & (self._total - 1) == 0)
        metrics.UNREADABLE.labels(reader).inc()
        if is_logged:
            _log.error(
                "log entry cannot be decoded and is skipped; `sensegate log quarantine SEQUENCE` sets it aside",
                sequence=entry.sequence,
                subject=entry.subject[:80],
                reader=reader,
                reason=reason,
                total=self._total,
            )

    def remove(self, sequence: int) -> None:
        """Remove an entry that was set aside."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == sequence]:
                del self._entries[key]

    def all(self) -> list[UnreadableEntry]:
        """Return the remembered entries, in order of sequence."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: entry.sequence)


UNREADABLE = UnreadableEntries()


def read(entry: LogEntry, reader: str, decode: Callable[[bytes], _T]) -> _T | None:
    """Return the decoded payload of an entry; None: it cannot be decoded, and is counted for `reader`."""
    try:
        return decode(entry.payload)
    except ValueError as why:
        UNREADABLE.add(entry, reader, why)
        return None


def read_rows(entry: LogEntry, reader: str) -> Batch | None:
    """Return the batch of an entry of rows; None as in `read`."""
    try:
        return columns.decode(entry.payload, sequence=entry.sequence)
    except ValueError as why:
        UNREADABLE.add(entry, reader, why)
        return None


def read_ledger(entry: LogEntry, reader: str) -> Ledger | None:
    """Return the ledger of an entry; None as in `read`."""
    return read(entry, reader, Ledger.decode)


def read_row(row: KvRow, registry: str, decode: Callable[[bytes], _T]) -> _T | None:
    """Return the decoded value of a registry row; None: deleted, or undecodable, which is logged and counted."""
    if row.value is None:
        return None
    try:
        return decode(row.value)
    except (ValueError, RecursionError) as why:
        metrics.UNREADABLE.labels(registry).inc()
        _log.error(
            "registry row cannot be decoded and counts as absent",
            registry=registry,
            key=row.key[:80],
            revision=row.revision,
            reason=str(why)[:REASON_MAX],
        )
        return None


def read_subject(entry: LogEntry, reader: str) -> RowsSubject | None:
    """Return the parsed subject of an entry of rows; None: it is invalid, and is counted for `reader`."""
    subject = rows_subject(entry.subject)
    if subject is None:
        UNREADABLE.add(entry, reader, "its subject is not KIND.NODE.AREA.GRADE")
    return subject
