"""Entries of the log that an operator has set aside: readers skip them; a copy is stored in a file.

Nothing is deleted: the log keeps the entries until they expire. A commit record is never set aside, because it holds
the positions of sources and lanes.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Protocol

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.device_rules import text_fault
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.trail import Trail
from sensegate.bus.files import write_private
from sensegate.bus.unreadable import UNREADABLE
from sensegate.clock import Clock
from sensegate.errors import ConfigError, Conflict, NotFound
from sensegate.model import LogEntry

FOLDER = "set_aside"
ENTRIES_MAX = 10_000
NOTE_BYTES_MAX = 500


class SetAsideEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the log that is set aside."""

    sequence: int
    epoch: str
    """Epoch of the log, because sequences of different logs are not comparable."""
    subject: str
    size: int
    digest: str
    """SHA-256 (hex) of its payload."""
    stored: int
    """Time of storage, µs UTC."""
    by: str
    at: int
    """Time of setting aside, µs UTC."""
    note: str = ""
    revision: int = 0


class HidingLog(Protocol):
    """A log that can hide entries from its readers."""

    @property
    def epoch(self) -> str: ...

    def hide(self, sequences: frozenset[int]) -> None:
        """Hide exactly these entries from readers."""
        ...

    async def fetch(self, after: int, *, limit: int = 500) -> list[LogEntry]: ...


class SetAside:
    """The set-aside entries of a log. Each change is authorised, recorded in the trail, and then made."""

    def __init__(
        self, bucket: Bucket, trail: Trail, clock: Clock, log: HidingLog, *, home: str, directory: Path
    ) -> None:
        """Start empty; `load` reads the bucket.

        Args:
            bucket: stores the entries, by sequence.
            trail: records changes.
            clock: gives the time.
            log: the log of the entries.
            home: division of the gateway, for authorisation.
            directory: directory of the store; copies are in its folder `set_aside`.
        """
        self._store = RecordStore(bucket, clock)
        self._trail = trail
        self._clock = clock
        self._entries_log = log
        self._home = home
        self._folder = directory / FOLDER
        self._entries: RecordTable[SetAsideEntry] = RecordTable(self._store, "entry", SetAsideEntry, prefix="")
        self._entries.on_change.append(lambda _before, _after: self._hide())

    def _hide(self) -> None:
        epoch = self._entries_log.epoch
        self._entries_log.hide(frozenset(entry.sequence for entry in self._entries if entry.epoch == epoch))

    def all(self) -> list[SetAsideEntry]:
        """Return the entries that are set aside, in order of sequence."""
        return sorted(self._entries, key=lambda entry: entry.sequence)

    async def load(self) -> None:
        """Read the bucket and hide its entries; `watch` follows later changes."""
        await self._store.open()
        self._hide()

    async def watch(self) -> None:
        """Apply the changes of every process until cancelled."""
        await self._store.run()

    async def quarantine(self, sequence: int, *, by: Principal, note: str = "") -> SetAsideEntry:
        """Set an entry aside; no effect if it is already.

        Raises:
            PermissionDenied: `by` may not.
            NotFound: the log has no such entry.
            Conflict: it is a commit record, was changed meanwhile, or too many entries are set aside.
            ConfigError: the note is invalid.
        """
        demand(by, Action.CHANGE_NODES, self._home)
        if fault := text_fault(note, size_max=NOTE_BYTES_MAX):
            raise ConfigError(f"note {fault}", key="note", remedy="one line of plain text")
        epoch = self._entries_log.epoch
        known = self._entries.find(str(sequence))
        if known is not None and known.epoch == epoch:
            return known
        if len(self._entries) >= ENTRIES_MAX:
            raise Conflict(f"{ENTRIES_MAX} entries are set aside already; find the cause first")
        entries = await self._entries_log.fetch(sequence - 1, limit=1) if sequence > 0 else []
        if not entries or entries[0].sequence != sequence:
            raise NotFound(f"the log has no entry {sequence}; `sensegate log unreadable` lists candidates")
        entry = entries[0]
        if entry.subject.startswith("commit."):
            raise Conflict(f"entry {sequence} is a commit record ({entry.subject[:60]}), which cannot be set aside")
        set_aside = SetAsideEntry(
            sequence,
            epoch,
            entry.subject,
            len(entry.payload),
            hashlib.sha256(entry.payload).hexdigest(),
            entry.time,
            by.id,
            self._clock.now(),
            note,
        )
        # The copy comes first: a hidden entry must not be lost when it expires on the log.
        await asyncio.to_thread(self._copy, f"{epoch}-{sequence}.bin", entry.payload)
        await self._trail.record(by, "log.quarantine", str(sequence), after=msgspec.to_builtins(set_aside))
        await self._entries.put(str(sequence), set_aside, expected=known.revision if known else 0)
        UNREADABLE.remove(sequence)
        return self._of(sequence)

    def _copy(self, name: str, payload: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._folder / name, payload)

    async def restore(self, sequence: int, *, by: Principal) -> SetAsideEntry:
        """Make an entry visible to readers again. Raises `PermissionDenied`, `NotFound`, `Conflict`."""
        demand(by, Action.CHANGE_NODES, self._home)
        known = self._of(sequence)
        await self._trail.record(by, "log.restore", str(sequence), before=msgspec.to_builtins(known))
        await self._entries.delete(str(sequence), expected=known.revision)
        return known

    def _of(self, sequence: int) -> SetAsideEntry:
        known = self._entries.find(str(sequence))
        if known is None:
            raise NotFound(f"entry {sequence} is not set aside")
        return known
