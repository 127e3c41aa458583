"""Recorded content of the log per extent, by which later losses are reported exactly.

An extent is a range of sequences that ends with a commit: its number of entries of each kind when it was first scanned,
the rows of its readings, and a digest of them. Extents and losses are stored in a file beside the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
import structlog
import xxhash

from sensegate.bus.files import write_private
from sensegate.errors import StoreFull
from sensegate.model import LogEntry

FILE = "scrub.json"
EXTENTS_MAX = 10_000
"""Most extents; beyond it neighbours are merged, so that losses are reported for longer ranges."""
FINDINGS_MAX = 200
RETAINED_KINDS = ("raw", "readings", "observations", "quarantine", "ledger")
"""First tokens of the subjects whose entries are retained until they expire."""
ROWS = frozenset({"readings", "observations"})

_log = structlog.get_logger("persist")


class LossCause(StrEnum):
    """Cause of a loss."""

    END_CUT = "end_cut"
    """The log ended earlier at a later start: a power cut, or an older copy of the store."""
    DAMAGED = "damaged"
    """Entries between existing ones are missing or cannot be decoded: a damaged block of the store."""
    UNBALANCED = "unbalanced"
    """The ledger of commits counts readings that were not on the log at the first scan."""
    INDEX_FILE = "index_file"
    """A file of the dedup index is corrupt."""
    INDEX = "index"
    """The dedup index does not match the readings of the log."""


class Loss(msgspec.Struct, frozen=True, omit_defaults=True):
    """A detected loss or inconsistency."""

    cause: LossCause
    found_at: int
    """Time of detection, µs UTC."""
    description: str
    first: int = 0
    """First and last sequence of the extent; 0: it does not concern entries."""
    last: int = 0
    readings: int = 0
    entries: int = 0
    since: int = 0
    """Times when the first and last entries were stored, µs UTC."""
    until: int = 0


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """A range of sequences, from the end of the previous extent to its own."""

    end: int
    timeline: bytes
    """Timeline of the log at its end."""
    since: int
    """Times when its first and last entries were stored, µs UTC."""
    until: int
    kinds: dict[str, int]
    """Entries by kind."""
    rows: int
    """Rows of readings and observations."""
    accepted: int
    """Readings accepted by the ledgers of this gateway's own commits."""
    digest: int
    """Digest of the entries with rows."""

    def merged_with(self, later: Extent) -> Extent:
        """Return the union of this extent and the one that follows it."""
        kinds = {kind: self.kinds.get(kind, 0) + later.kinds.get(kind, 0) for kind in RETAINED_KINDS}
        return Extent(
            later.end,
            later.timeline,
            self.since or later.since,
            later.until or self.until,
            kinds,
            self.rows + later.rows,
            self.accepted + later.accepted,
            self.digest ^ later.digest,
        )


class ExtentCounts(msgspec.Struct):
    """Counts of an extent while it is scanned."""

    kinds: dict[str, int]
    rows: int = 0
    own_rows: int = 0
    """Rows of this gateway's own commits."""
    accepted: int = 0
    digest: int = 0
    since: int = 0
    until: int = 0
    entries: int = 0
    """Number of entries of any kind."""
    unreadable: list[int] = []
    """Sequences of entries that cannot be decoded."""

    def count(self, entry: LogEntry, kind: str) -> None:
        """Count an entry."""
        self.entries += 1
        self.since = self.since or entry.time
        self.until = entry.time
        if kind in RETAINED_KINDS:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind in ROWS:
            self.digest ^= xxhash.xxh3_64_intdigest(entry.payload, seed=entry.sequence & 0xFFFF_FFFF)

    def extent(self, end: int, timeline: bytes) -> Extent:
        """Return the extent that ends with a sequence."""
        return Extent(end, timeline, self.since, self.until, dict(self.kinds), self.rows, self.accepted, self.digest)


class ScrubState(msgspec.Struct, omit_defaults=True):
    """Recorded extents and losses of a log."""

    log: str
    """Epoch of the log."""
    start: int = 0
    """Sequence after which the first extent begins."""
    extents: list[Extent] = []
    losses: list[Loss] = []
    accepted: int = -1
    """Readings accepted since the log began, up to the end of the last extent; -1: unknown."""
    started: int = 0
    """Times when the last pass started and finished, µs UTC."""
    finished: int = 0

    @property
    def end(self) -> int:
        """Sequence up to which extents are recorded."""
        return self.extents[-1].end if self.extents else self.start

    def add(self, extent: Extent) -> None:
        """Append the next extent; merge neighbours where there are too many."""
        self.extents.append(extent)
        if len(self.extents) > EXTENTS_MAX:
            pairs = zip(self.extents[::2], self.extents[1::2], strict=False)
            last = self.extents[-1:] if len(self.extents) % 2 else []
            self.extents = [*(first.merged_with(second) for first, second in pairs), *last]

    def expire(self, before: int) -> None:
        """Remove the extents whose first entries were stored before a time (µs): those may have expired."""
        while self.extents and self.extents[0].since < before:
            self.start = self.extents.pop(0).end

    def report(self, loss: Loss) -> None:
        """Add a loss; one that continues the last loss is merged with it."""
        last = self.losses[-1] if self.losses else None
        if (
            last
            and last.cause is loss.cause
            and last.found_at == loss.found_at
            and loss.first
            and loss.first == last.last + 1
        ):
            self.losses[-1] = msgspec.structs.replace(
                last,
                last=loss.last,
                readings=last.readings + loss.readings,
                entries=last.entries + loss.entries,
                since=last.since or loss.since,
                until=loss.until or last.until,
            )
        else:
            self.losses = [*self.losses[1 - FINDINGS_MAX :], loss]


def missing(known: Mapping[str, int], present: Mapping[str, int], kinds: Sequence[str]) -> dict[str, int]:
    """Return the number of missing entries by kind."""
    return {kind: lost for kind in kinds if (lost := known.get(kind, 0) - present.get(kind, 0)) > 0}


def read(directory: Path, log: str) -> ScrubState:
    """Return the recorded state of a log; an empty one where the file is missing, corrupt or of another log."""
    try:
        state = _decoded((directory / FILE).read_bytes())
    except FileNotFoundError:
        return ScrubState(log)
    except (OSError, ValueError) as why:
        _log.warning("cannot read the scrub state; starting with an empty one", reason=str(why))
        return ScrubState(log)
    return state if state.log == log else ScrubState(log, losses=state.losses)


def log_of(directory: Path) -> str:
    """Return the epoch of the log whose state is recorded; empty: none is."""
    try:
        return _decoded((directory / FILE).read_bytes()).log
    except (OSError, ValueError):
        return ""


def _decoded(content: bytes) -> ScrubState:
    digest, _, body = content.partition(b"\n")
    if xxhash.xxh3_64_hexdigest(body).encode() != digest:
        raise ValueError("the checksum is wrong")
    return msgspec.json.decode(body, type=ScrubState)


def write(directory: Path, extents: ScrubState) -> None:
    """Write the state atomically. Raises `StoreFull`."""
    body = msgspec.json.encode(extents)
    try:
        write_private(directory / FILE, xxhash.xxh3_64_hexdigest(body).encode() + b"\n" + body)
    except OSError as why:
        raise StoreFull(f"{directory / FILE}: not written: {why}") from why
