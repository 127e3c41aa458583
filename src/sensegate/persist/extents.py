"""What the log is known to hold, extent by extent, so that what it loses later is told exactly.

An extent is a run of sequences between two ends of commits: how many entries of each kind it had when it was first
looked at, the rows of its readings, and a digest of them. It stands in a file beside the log, with what was found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
import structlog
import xxhash

from sensegate.errors import StoreFull
from sensegate.model import Entry

FILE = "scrub.json"
EXTENTS_MAX = 10_000
"""Beyond it neighbours are joined: what is lost is told for longer runs."""
FINDINGS_MAX = 200
KINDS = ("raw", "readings", "observations", "quarantine", "ledger")
"""First tokens of the subjects whose entries stay until they expire."""
ROWS = frozenset({"readings", "observations"})

_log = structlog.get_logger("persist")


class Cause(StrEnum):
    """Why something is not as it was."""

    END_CUT = "end_cut"
    """The log ended earlier at a later start: a power cut, or an older copy of the store."""
    DAMAGED = "damaged"
    """Entries are missing, or not readable, between others that are there: a damaged block of the store."""
    UNBALANCED = "unbalanced"
    """The ledger of commits counts readings that were not on the log when it was first looked at."""
    INDEX_FILE = "index_file"
    """A file of the duplicate index is not as it was written."""
    INDEX = "index"
    """The duplicate index does not hold the readings of the log."""


class Loss(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is not as it should be."""

    cause: Cause
    found: int
    """When it was found, µs UTC."""
    what: str
    first: int = 0
    """First and last sequence of the extent; 0: it is not about entries."""
    last: int = 0
    readings: int = 0
    entries: int = 0
    since: int = 0
    """When its entries were stored, µs UTC."""
    until: int = 0


class Extent(msgspec.Struct, frozen=True, array_like=True):
    """A run of sequences: from the end of the one before it, to its own."""

    end: int
    timeline: bytes
    """Of the log, at its end."""
    since: int
    """When its first and last entries were stored, µs."""
    until: int
    kinds: dict[str, int]
    """Entries by kind."""
    rows: int
    """Rows of readings and observations."""
    accepted: int
    """Readings accepted by the ledgers of this gateway's own commits."""
    digest: int
    """Of the entries with rows."""

    def joined(self, later: Extent) -> Extent:
        """Return this and the one that follows it as one."""
        kinds = {kind: self.kinds.get(kind, 0) + later.kinds.get(kind, 0) for kind in KINDS}
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


class Tally(msgspec.Struct):
    """An extent as it is being counted."""

    kinds: dict[str, int]
    rows: int = 0
    own_rows: int = 0
    """Those of this gateway's own commits."""
    accepted: int = 0
    digest: int = 0
    since: int = 0
    until: int = 0
    count: int = 0
    """Entries of any kind."""
    unreadable: list[int] = []
    """Sequences of entries that do not decode."""

    def note(self, entry: Entry, kind: str) -> None:
        """Count an entry."""
        self.count += 1
        self.since = self.since or entry.time
        self.until = entry.time
        if kind in KINDS:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind in ROWS:
            self.digest ^= xxhash.xxh3_64_intdigest(entry.payload, seed=entry.sequence & 0xFFFF_FFFF)

    def extent(self, end: int, timeline: bytes) -> Extent:
        """Return it as an extent that ends with a sequence."""
        return Extent(end, timeline, self.since, self.until, dict(self.kinds), self.rows, self.accepted, self.digest)


class Extents(msgspec.Struct, omit_defaults=True):
    """All that is known of a log."""

    log: str
    """Epoch of the log."""
    start: int = 0
    """Sequence after which the first extent begins."""
    extents: list[Extent] = []
    losses: list[Loss] = []
    accepted: int = -1
    """Readings accepted since the log began, as of the last extent's end; -1: not known."""
    begun: int = 0
    """When the last pass began and ended, µs UTC."""
    finished: int = 0

    @property
    def end(self) -> int:
        """Sequence up to which the log is known."""
        return self.extents[-1].end if self.extents else self.start

    def add(self, extent: Extent) -> None:
        """Add the next one."""
        self.extents.append(extent)
        if len(self.extents) > EXTENTS_MAX:
            pairs = zip(self.extents[::2], self.extents[1::2], strict=False)
            rest = self.extents[-1:] if len(self.extents) % 2 else []
            self.extents = [*(first.joined(second) for first, second in pairs), *rest]

    def forget(self, before: int) -> None:
        """Forget the extents whose first entries were stored before a time (µs): those may have expired."""
        while self.extents and self.extents[0].since < before:
            self.start = self.extents.pop(0).end

    def tell(self, loss: Loss) -> None:
        """Add something that was found; what continues the last one is joined to it."""
        last = self.losses[-1] if self.losses else None
        if (
            last
            and last.cause is loss.cause
            and last.found == loss.found
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
    """Return how many entries fewer there are, by kind."""
    return {kind: lost for kind in kinds if (lost := known.get(kind, 0) - present.get(kind, 0)) > 0}


def read(directory: Path, log: str) -> Extents:
    """Return what is known of a log; nothing where the file is not there, is damaged or is of another log."""
    try:
        found = _decoded((directory / FILE).read_bytes())
    except FileNotFoundError:
        return Extents(log)
    except (OSError, ValueError) as why:
        _log.warning("what the scrub knew of the log is not readable; it begins anew", reason=str(why))
        return Extents(log)
    return found if found.log == log else Extents(log, losses=found.losses)


def log_of(directory: Path) -> str:
    """Return the epoch of the log of which something is known; empty: of none."""
    try:
        return _decoded((directory / FILE).read_bytes()).log
    except (OSError, ValueError):
        return ""


def _decoded(content: bytes) -> Extents:
    digest, _, body = content.partition(b"\n")
    if xxhash.xxh3_64_hexdigest(body).encode() != digest:
        raise ValueError("its checksum is wrong")
    return msgspec.json.decode(body, type=Extents)


def write(directory: Path, extents: Extents) -> None:
    """Keep what is known; whole or not at all. Raises `StoreFull`."""
    body = msgspec.json.encode(extents)
    fresh = directory / f"{FILE}.new"
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(xxhash.xxh3_64_hexdigest(body).encode() + b"\n" + body)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(directory / FILE)
    except OSError as why:
        raise StoreFull(f"{directory / FILE}: not written: {why}") from why
