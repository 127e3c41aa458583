"""Packing of entries of the node's log into the parts of a span: shared rows by grade, and the summed ledger. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from sensegate.bus import columns, ledger, sequences
from sensegate.bus.batch import Batch
from sensegate.bus.commit_records import WithheldRange
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import ALARM_EVENTS, OBSERVATIONS, READINGS, SHARED_PREFIXES
from sensegate.bus.unreadable import read, read_ledger, read_subject
from sensegate.clock import HOUR_US
from sensegate.model import BOOL, LogEntry, SheddingRule
from sensegate.quantities.quality import Flag
from sensegate.tiers.protocol import PART_ROWS_MAX, PARTS_MAX, ROW_KINDS, PartKind, SpanPart

LEDGER_SOURCE = "uplink"
"""Ledger source of the counts of forwarded and withheld rows."""
WITHHELD_BY_MODE = f"{ledger.WITHHELD}.mode"
EXPIRED = f"{ledger.WITHHELD}.expired"
SKIPPED = f"{ledger.WITHHELD}.skipped"
LEDGER, COMMIT, SEQUENCES = "ledger.", "commit.", "sequences."
READER = "uplink"
"""Name of this reader in the counts of unreadable entries."""
SHRINK_FACTOR = 0.9
"""Extra factor by which the entries of an oversized span are reduced, beyond the ratio of the sizes."""


class PackedSpan(msgspec.Struct, frozen=True, eq=False):
    """The parts of consecutive entries that go to the centre."""

    parts: list[SpanPart]
    """Rows (events and readings of alarms first), then the ledger, then sequence numbers; may be empty."""
    position: int
    """Sequence of the last entry in it."""
    rows: int
    shed_rows: int = 0
    """Rows withheld by mode orders."""

    @property
    def size(self) -> int:
        """Total bytes of the parts."""
        return sum(len(part.payload) for part in self.parts)


def whole_commits(entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
    """Return the entries up to the end of the last whole commit among them, or all if none ends there.

    The ledger of a commit follows its readings and precedes its record, so that it goes up with what it counts.
    """
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].subject.startswith(LEDGER):
            last = index
            while last + 1 < len(entries) and entries[last + 1].subject.startswith(COMMIT):
                last += 1
            return entries[: last + 1]
    return entries


class Packer(msgspec.Struct, frozen=True):
    """Packs the spans of a node."""

    grade_max: int
    """Rows of a higher grade are withheld."""
    span_bytes_max: int = 1_000_000
    """Most bytes of the parts of one span, which goes up in one message."""
    shift: Callable[[int], int] = lambda sequence: sequence
    """Maps the sequence of an entry to the sequence in the identities of its rows."""
    part_rows_max: int = PART_ROWS_MAX
    """Most rows of a part: the centre refuses larger ones. Steady readings of an hour need two bytes each."""

    def pack(
        self,
        entries: Sequence[LogEntry],
        flag: Flag | None = None,
        shed: Sequence[SheddingRule] = (),
        *,
        skip: bool = False,
        only: PartFilter | None = None,
    ) -> PackedSpan:
        """Return the span of these entries (at least one), or of as many of the first as one message holds.

        Args:
            entries: of the log.
            flag: set on each row.
            shed: selection of rows that mode orders withhold.
            skip: forward no rows, and count them as skipped.
            only: pack nothing but the parts that match, and count nothing.
        """
        return self._fit(entries, lambda chosen: self._pack(chosen, flag, shed, skip=skip, only=only))

    def pack_withheld(
        self,
        entries: Sequence[LogEntry],
        withheld: WithheldRange,
        *,
        skip: bool = False,
        only: PartFilter | None = None,
    ) -> PackedSpan:
        """Return the span of the rows that mode orders withheld from these entries (at least one), and of nothing else.

        They are taken out of the count of withheld rows in the hour and of the device to which they belong.
        """
        return self._fit(entries, lambda chosen: self._pack_withheld(chosen, withheld, skip=skip, only=only))

    def pack_expired(self, count: int, now: int, position: int) -> PackedSpan:
        """Return the span that reports how many readings expired before they could be forwarded."""
        counts = Ledger()
        counts.add(now // HOUR_US, "", LEDGER_SOURCE, EXPIRED, count)
        return PackedSpan([*self._ledger_parts(counts)], position, 0)

    def _fit(self, entries: Sequence[LogEntry], make: Callable[[Sequence[LogEntry]], PackedSpan]) -> PackedSpan:
        while True:
            span = make(entries)
            size, rows = span.size, max((part.rows for part in span.parts), default=0)
            fits = size <= self.span_bytes_max and rows <= self.part_rows_max and len(span.parts) <= PARTS_MAX
            if fits or len(entries) == 1:
                return span
            fit = min(1.0, self.span_bytes_max / max(size, 1), self.part_rows_max / max(rows, 1)) * SHRINK_FACTOR
            entries = whole_commits(entries[: max(1, int(len(entries) * fit))])

    def _pack(
        self,
        entries: Sequence[LogEntry],
        flag: Flag | None,
        shed: Sequence[SheddingRule],
        *,
        skip: bool,
        only: PartFilter | None,
    ) -> PackedSpan:
        counts = Ledger()
        groups: dict[tuple[str, int, int], list[Batch]] = {}
        numbered: list[sequences.SequenceRuns] = []
        forwarded = left_out = 0
        for entry in entries:
            if entry.subject.startswith(LEDGER):
                if (own := read_ledger(entry, READER)) is not None:
                    counts.merge(own)
            elif entry.subject.startswith(SEQUENCES):
                if (numbers := read(entry, READER, sequences.decode)) is not None:
                    numbered.append(numbers)
            elif (rows := self._rows_of(entry, only)) is not None:
                kind, grade, batch = rows
                shared = grade <= self.grade_max
                if shared and shed and kind == READINGS and (out := _shed_mask(batch, shed)).any():
                    count_rows(counts, batch.take(out), WITHHELD_BY_MODE)
                    left_out += int(out.sum())
                    batch = batch.take(~out)
                if not shared or skip:
                    if kind != ALARM_EVENTS:  # the ledger counts values, not events
                        count_rows(counts, batch, SKIPPED if shared else f"{ledger.WITHHELD}.grade")
                elif len(batch):
                    batch = _of_devices(batch, only)
                    forwarded += len(batch)
                    groups.setdefault((kind, grade, batch.partition), []).append(_flagged(batch, flag))
        parts = [*self._row_parts(groups)] if only is None or only.kind in ROW_KINDS else []
        if only is None or only.kind == PartKind.LEDGER:
            parts += self._ledger_parts(counts)
        if only is None or only.kind == PartKind.SEQUENCES:
            epoch = numbered[0].epoch if numbered else ""
            parts += [
                SpanPart(PartKind.SEQUENCES, payload)
                for payload in sequences.encode_parts(epoch, sequences.merged(numbered), self.span_bytes_max)
            ]
        return PackedSpan(parts, entries[-1].sequence, forwarded, left_out)

    def _pack_withheld(
        self, entries: Sequence[LogEntry], withheld: WithheldRange, *, skip: bool, only: PartFilter | None
    ) -> PackedSpan:
        counts = Ledger()
        groups: dict[tuple[str, int, int], list[Batch]] = {}
        forwarded = 0
        for entry in entries:
            rows = self._rows_of(entry, only)
            if rows is None or rows[0] != READINGS or rows[1] > withheld.grade_max:
                continue
            kind, grade, batch = rows
            batch = batch.take(_shed_mask(batch, withheld.shed))
            count_rows(counts, batch, WITHHELD_BY_MODE, sign=-1)
            shared = grade <= self.grade_max
            if not shared or skip:
                count_rows(counts, batch, SKIPPED if shared else f"{ledger.WITHHELD}.grade")
            elif len(batch):
                batch = _of_devices(batch, only)
                forwarded += len(batch)
                groups.setdefault((kind, grade, batch.partition), []).append(_flagged(batch, Flag.BACKLOG))
        parts = [*self._row_parts(groups)] if only is None or only.kind in ROW_KINDS else []
        if only is None or only.kind == PartKind.LEDGER:
            parts += self._ledger_parts(counts)
        return PackedSpan(parts, entries[-1].sequence, forwarded)

    def _rows_of(self, entry: LogEntry, only: PartFilter | None) -> tuple[str, int, Batch] | None:
        """Return (kind, grade, rows) of an entry; None where it has none to forward, or cannot be read."""
        if not entry.subject.startswith(SHARED_PREFIXES) or ".back." in entry.subject:
            return None  # rows of the return flow came from the centre
        subject = read_subject(entry, READER)
        if subject is None or not _matches(only, subject.kind, subject.grade):
            return None
        batch = read(entry, READER, lambda payload: columns.decode(payload, sequence=self.shift(entry.sequence)))
        return None if batch is None else (subject.kind, subject.grade, batch)

    def _row_parts(self, groups: Mapping[tuple[str, int, int], Sequence[Batch]]) -> Iterator[SpanPart]:
        """Yield the parts of rows, alarms first."""
        without_alarms: list[SpanPart] = []
        for kind, grade, partition in sorted(groups, key=_alarms_first):
            whole = columns.concat(groups[kind, grade, partition])
            for alarm, rows in _split_alarms(whole) if len(whole) else ():
                part = SpanPart(PartKind(kind), columns.encode(rows), grade, len(rows))
                if alarm:
                    yield part
                else:
                    without_alarms.append(part)
        yield from without_alarms

    def _ledger_parts(self, counts: Ledger) -> Iterator[SpanPart]:
        """Yield the ledger, in several parts where it is too large for a message."""
        if len(counts):
            for payload in counts.encode_parts(self.span_bytes_max):
                yield SpanPart(PartKind.LEDGER, payload)


class PartFilter(msgspec.Struct, frozen=True):
    """Selects one kind of parts of a span, or the rows of some devices in it."""

    kind: PartKind
    grade: int = 0
    devices: frozenset[str] = frozenset()
    """Empty: all."""


def _matches(only: PartFilter | None, kind: str, grade: int) -> bool:
    if only is None or only.kind not in ROW_KINDS:
        return only is None or only.kind is PartKind.LEDGER  # the ledger counts withheld rows
    return (only.kind, only.grade) == (kind, grade)


def _of_devices(batch: Batch, only: PartFilter | None) -> Batch:
    if only is None or not only.devices:
        return batch
    selected = np.array([device in only.devices for device in batch.origins.device], np.bool_)
    return batch.take(selected[batch.origin])


def _shed_mask(batch: Batch, shed: Sequence[SheddingRule]) -> BOOL:
    """Return the mask of the rows that mode orders withhold; alarms never are."""
    origins = batch.origins
    out = np.zeros(len(batch), np.bool_)
    for part in shed:
        named = np.array([name in part.properties for name in batch.properties], np.bool_)
        inside = np.array(
            [
                division.startswith(part.division) and part.department in {"", department}
                for division, department in zip(origins.division.tolist(), origins.department.tolist(), strict=True)
            ],
            np.bool_,
        )
        out |= named[batch.property] & inside[batch.origin]
    out &= (batch.flags & np.uint32(Flag.ALARM)) == 0
    return out


def _alarms_first(group: tuple[str, int, int]) -> tuple[int, int, int]:
    return (ALARM_EVENTS, READINGS, OBSERVATIONS).index(group[0]), group[1], group[2]


def _flagged(batch: Batch, flag: Flag | None) -> Batch:
    batch = batch.without_local()
    return msgspec.structs.replace(batch, flags=batch.flags | np.uint32(flag)) if flag is not None else batch


def _split_alarms(batch: Batch) -> Iterator[tuple[bool, Batch]]:
    """Yield (whether these are alarms, rows): a series with an alarm goes first as a whole, which keeps its order."""
    alarms: BOOL = (batch.flags & np.uint32(Flag.ALARM)) != 0
    if not alarms.any():
        yield False, batch
        return
    _, device = np.unique(np.array(batch.origins.device), return_inverse=True)
    series = device[batch.origin].astype(np.int64) * len(batch.properties) + batch.property
    first: BOOL = np.isin(series, series[alarms])
    yield True, batch.take(first)
    if not first.all():
        yield False, batch.take(~first)


def count_rows(counts: Ledger, batch: Batch, kind: str, *, sign: int = 1) -> None:
    """Add the rows to a ledger by device and hour of arrival, as the node's own ledger counts them."""
    if not len(batch):
        return
    hours = batch.received // HOUR_US
    places = counts.device_numbers(batch.origins.device)
    for hour in np.unique(hours).tolist():
        rows = np.bincount(batch.origin[hours == hour], minlength=len(places))
        counts.add_counts(hour, LEDGER_SOURCE, kind, places, sign * rows)
