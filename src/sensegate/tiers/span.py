"""A span of the node's log as parts for the centre's: what is shared, packed; the ledger, summed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from sensegate.bus import columns, ledger, sequences
from sensegate.bus.batch import Batch
from sensegate.bus.commit_records import WithheldRange
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import READINGS, ROW_PREFIXES
from sensegate.bus.unreadable import read, read_ledger, read_subject
from sensegate.clock import HOUR_US
from sensegate.model import BOOL, LogEntry, SheddingRule
from sensegate.quantities.quality import Flag
from sensegate.tiers.protocol import PARTS_MAX, ROW_KINDS, Part, PartKind

SOURCE = "uplink"
"""The source under which what becomes of rows on the way to the centre stands in the ledger."""
MODE = f"{ledger.WITHHELD}.mode"
EXPIRED = f"{ledger.WITHHELD}.expired"
SKIPPED = f"{ledger.WITHHELD}.skipped"
LEDGER, COMMIT, SEQUENCES = "ledger.", "commit.", "sequences."
READER = "uplink"
"""As which it counts entries that cannot be read."""
SHARE = 0.9
"""A span that is too large is made of so much less of the log as it was too large, and a little."""


class Span(msgspec.Struct, frozen=True, eq=False):
    """What of a run of entries goes up."""

    parts: list[Part]
    """Rows (alarms first), then the ledger; empty if there is nothing to tell."""
    position: int
    """Sequence of the last entry in it."""
    rows: int
    shed: int = 0
    """Rows that mode orders kept back."""

    @property
    def size(self) -> int:
        """Bytes of its parts."""
        return sum(len(part.payload) for part in self.parts)


def whole_commits(entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
    """Return the entries up to the end of the last commit among them, or all if there is no such end.

    A commit's ledger stands behind its readings and before its record, so that what it counts goes up with it.
    """
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].subject.startswith(LEDGER):
            last = index
            while last + 1 < len(entries) and entries[last + 1].subject.startswith(COMMIT):
                last += 1
            return entries[: last + 1]
    return entries


class Packer(msgspec.Struct, frozen=True):
    """How a node packs its spans."""

    grade_max: int
    span_bytes_max: int = 1_000_000
    """Most bytes of the parts of one span: they go up in one message."""
    shift: Callable[[int], int] = lambda sequence: sequence
    """Sequence of an entry of the log -> the place that its rows bear."""

    def span(
        self,
        entries: Sequence[LogEntry],
        flag: Flag | None = None,
        shed: Sequence[SheddingRule] = (),
        *,
        skip: bool = False,
        only: Only | None = None,
    ) -> Span:
        """Return the span of these entries (at least one), or of as many of the first as one message holds.

        Args:
            entries: of the log.
            flag: set on each row.
            shed: left out.
            skip: no rows go up; they are counted as skipped.
            only: nothing but the rows of one kind and grade, or the ledger, or the numbers; nothing is counted.
        """
        return self._fitting(entries, lambda some: self._span(some, flag, shed, skip=skip, only=only))

    def brought(
        self, entries: Sequence[LogEntry], kept: WithheldRange, *, skip: bool = False, only: Only | None = None
    ) -> Span:
        """Return the span of what mode orders kept back of these entries (at least one), and of nothing else.

        What was counted as withheld is counted as forwarded, in the hour and of the device of which it is.
        """
        return self._fitting(entries, lambda some: self._brought(some, kept, skip=skip, only=only))

    def expired(self, count: int, now: int, position: int) -> Span:
        """Return the span that tells how many readings expired before they could go up."""
        counts = Ledger()
        counts.add(now // HOUR_US, "", SOURCE, EXPIRED, count)
        return Span([*self._ledgers(counts)], position, 0)

    def _fitting(self, entries: Sequence[LogEntry], make: Callable[[Sequence[LogEntry]], Span]) -> Span:
        while True:
            span = make(entries)
            size = span.size
            if (size <= self.span_bytes_max and len(span.parts) <= PARTS_MAX) or len(entries) == 1:
                return span
            fit = min(1.0, self.span_bytes_max / max(size, 1)) * SHARE
            entries = whole_commits(entries[: max(1, int(len(entries) * fit))])

    def _span(
        self,
        entries: Sequence[LogEntry],
        flag: Flag | None,
        shed: Sequence[SheddingRule],
        *,
        skip: bool,
        only: Only | None,
    ) -> Span:
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
            elif (found := self._rows(entry, only)) is not None:
                kind, grade, batch = found
                shared = grade <= self.grade_max
                if shared and shed and kind == READINGS and (out := _shed_of(batch, shed)).any():
                    count_rows(counts, batch.take(out), MODE)
                    left_out += int(out.sum())
                    batch = batch.take(~out)
                if not shared or skip:
                    count_rows(counts, batch, SKIPPED if shared else f"{ledger.WITHHELD}.grade")
                elif len(batch):
                    batch = _of(batch, only)
                    forwarded += len(batch)
                    groups.setdefault((kind, grade, batch.partition), []).append(_marked(batch, flag))
        parts = [*self._groups(groups)] if only is None or only.kind in ROW_KINDS else []
        if only is None or only.kind == PartKind.LEDGER:
            parts += self._ledgers(counts)
        if only is None or only.kind == PartKind.SEQUENCES:
            life = numbered[0].epoch if numbered else ""
            parts += [
                Part(PartKind.SEQUENCES, payload)
                for payload in sequences.encode_parts(life, sequences.merged(numbered), self.span_bytes_max)
            ]
        return Span(parts, entries[-1].sequence, forwarded, left_out)

    def _brought(self, entries: Sequence[LogEntry], kept: WithheldRange, *, skip: bool, only: Only | None) -> Span:
        counts = Ledger()
        groups: dict[tuple[str, int, int], list[Batch]] = {}
        forwarded = 0
        for entry in entries:
            found = self._rows(entry, only)
            if found is None or found[0] != READINGS or found[1] > kept.grade_max:
                continue
            kind, grade, batch = found
            batch = batch.take(_shed_of(batch, kept.shed))
            count_rows(counts, batch, MODE, sign=-1)
            shared = grade <= self.grade_max
            if not shared or skip:
                count_rows(counts, batch, SKIPPED if shared else f"{ledger.WITHHELD}.grade")
            elif len(batch):
                batch = _of(batch, only)
                forwarded += len(batch)
                groups.setdefault((kind, grade, batch.partition), []).append(_marked(batch, Flag.BACKLOG))
        parts = [*self._groups(groups)] if only is None or only.kind in ROW_KINDS else []
        if only is None or only.kind == PartKind.LEDGER:
            parts += self._ledgers(counts)
        return Span(parts, entries[-1].sequence, forwarded)

    def _rows(self, entry: LogEntry, only: Only | None) -> tuple[str, int, Batch] | None:
        """Return (kind, grade, rows) of an entry; None where it holds none that go up, or cannot be read."""
        if not entry.subject.startswith(ROW_PREFIXES) or ".back." in entry.subject:
            return None  # what came back of the centre itself does not go up
        subject = read_subject(entry, READER)
        if subject is None or not _wants(only, subject.kind, subject.grade):
            return None
        batch = read(entry, READER, lambda payload: columns.decode(payload, sequence=self.shift(entry.sequence)))
        return None if batch is None else (subject.kind, subject.grade, batch)

    def _groups(self, groups: Mapping[tuple[str, int, int], Sequence[Batch]]) -> Iterator[Part]:
        """Yield the parts of rows: alarms first."""
        rest: list[Part] = []
        for kind, grade, partition in sorted(groups, key=_readings_first):
            whole = columns.concat(groups[kind, grade, partition])
            for alarm, rows in _by_alarm(whole) if len(whole) else ():
                part = Part(PartKind(kind), columns.encode(rows), grade, len(rows))
                if alarm:
                    yield part
                else:
                    rest.append(part)
        yield from rest

    def _ledgers(self, counts: Ledger) -> Iterator[Part]:
        """Yield the ledger, in parts if it is too large for a message."""
        if len(counts):
            for payload in counts.encode_parts(self.span_bytes_max):
                yield Part(PartKind.LEDGER, payload)


class Only(msgspec.Struct, frozen=True):
    """One kind of parts of a span, or the rows of some devices in it."""

    kind: PartKind
    grade: int = 0
    devices: frozenset[str] = frozenset()
    """Empty: all."""


def _wants(only: Only | None, kind: str, grade: int) -> bool:
    if only is None or only.kind not in ROW_KINDS:
        return only is None or only.kind is PartKind.LEDGER  # what was withheld stands in the ledger
    return (only.kind, only.grade) == (kind, grade)


def _of(batch: Batch, only: Only | None) -> Batch:
    if only is None or not only.devices:
        return batch
    mine = np.array([device in only.devices for device in batch.origins.device], np.bool_)
    return batch.take(mine[batch.origin])


def _shed_of(batch: Batch, shed: Sequence[SheddingRule]) -> BOOL:
    """Return which rows are shed: never an alarm."""
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


def _readings_first(group: tuple[str, int, int]) -> tuple[bool, int, int]:
    return group[0] != READINGS, group[1], group[2]


def _marked(batch: Batch, flag: Flag | None) -> Batch:
    batch = batch.without_local()
    return msgspec.structs.replace(batch, flags=batch.flags | np.uint32(flag)) if flag is not None else batch


def _by_alarm(batch: Batch) -> Iterator[tuple[bool, Batch]]:
    """Yield (is it alarms, rows): a series with an alarm goes first as a whole, so that its order stays."""
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
    """Count the rows by device and hour of arrival, as the node's own ledger does."""
    if not len(batch):
        return
    hours = batch.received // HOUR_US
    places = counts.device_numbers(batch.origins.device)
    for hour in np.unique(hours).tolist():
        rows = np.bincount(batch.origin[hours == hour], minlength=len(places))
        counts.add_counts(hour, SOURCE, kind, places, sign * rows)
