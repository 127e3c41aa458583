"""A span of the node's log as members for the centre's: what is shared, packed; the ledger, summed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from sensegate.bus import columns, ledger, sequences
from sensegate.bus.batch import Batch
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import READINGS, ROWS
from sensegate.bus.record import Kept
from sensegate.config import StoreConfig
from sensegate.model import BOOL, Entry, Member, Shed
from sensegate.quantities.quality import Flag

SOURCE = "uplink"
"""The source under which `forwarded` and `withheld.<reason>` stand in the ledger."""
MODE = f"{ledger.WITHHELD}.mode"
RELEASED = "released.mode"
"""Rows of `MODE` that came up afterwards; stands in the lanes' records, not in the ledger."""
LEDGER, COMMIT, SEQUENCES = "ledger.", "commit.", "sequences."


class Span(msgspec.Struct, frozen=True, eq=False):
    """What of a run of entries goes up."""

    members: list[Member]
    """Readings (alarms first), then the ledger; empty if there is nothing to tell."""
    position: int
    """Sequence of the last entry in it."""
    rows: int
    counts: dict[str, int]
    """Ledger kind -> count: the node's own, and what this span forwards and withholds."""
    shed: int = 0
    """Rows that mode orders kept back."""


def whole_commits(entries: Sequence[Entry]) -> Sequence[Entry]:
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

    node: str
    grade_max: int
    store: StoreConfig = StoreConfig()
    payload_bytes_max: int = 1_000_000

    def span(self, entries: Sequence[Entry], flag: Flag | None = None, shed: Sequence[Shed] = ()) -> Span:
        """Return the span of these entries (at least one); `flag` is set on each row, `shed` is left out."""
        counts = Ledger()
        groups: dict[tuple[str, int, int], list[Batch]] = {}
        numbered: list[sequences.Sequences] = []
        most = self.payload_bytes_max
        forwarded = left_out = 0
        for entry in entries:
            if entry.subject.startswith(LEDGER):
                counts.merge(Ledger.decode(entry.payload))
            elif entry.subject.startswith(SEQUENCES):
                numbered.append(sequences.decode(entry.payload))
            elif entry.subject.startswith(ROWS):
                kind, _, place = entry.subject.partition(".")
                if ".back." in place:
                    continue  # of the centre itself
                batch = columns.decode(entry.payload, sequence=entry.sequence)
                grade = int(place.rpartition(".")[2])
                shared = grade <= self.grade_max
                if shared and shed and kind == READINGS and (out := _shed_of(batch, shed)).any():
                    _count(counts, batch.take(out), MODE)
                    left_out += int(out.sum())
                    batch = batch.take(~out)
                _count(counts, batch, ledger.FORWARDED if shared else f"{ledger.WITHHELD}.grade")
                if shared and len(batch):
                    forwarded += len(batch)
                    groups.setdefault((kind, grade, batch.partition), []).append(_marked(batch, flag))
        members = [*self._groups(groups), *self._ledgers(counts)]
        members += [
            Member(f"sequences.{self.node}", payload, self.store.readings_ttl_h)
            for payload in sequences.encoded(numbered[0].life if numbered else "", sequences.merged(numbered), most)
        ]
        return Span(members, entries[-1].sequence, forwarded, counts.totals(), left_out)

    def brought(self, entries: Sequence[Entry], kept: Kept) -> Span:
        """Return the span of what mode orders kept back of these entries (at least one), and of nothing else.

        What was counted as withheld is counted as forwarded, in the hour and of the device of which it is.
        """
        counts = Ledger()
        groups: dict[tuple[str, int, int], list[Batch]] = {}
        forwarded = released = 0
        for entry in entries:
            kind, _, place = entry.subject.partition(".")
            if kind != READINGS or ".back." in place:
                continue
            grade = int(place.rpartition(".")[2])
            if grade > kept.grade_max:
                continue
            batch = columns.decode(entry.payload, sequence=entry.sequence)
            batch = batch.take(_shed_of(batch, kept.shed))
            _count(counts, batch, MODE, sign=-1)
            released += len(batch)
            shared = grade <= self.grade_max
            _count(counts, batch, ledger.FORWARDED if shared else f"{ledger.WITHHELD}.grade")
            if shared and len(batch):
                forwarded += len(batch)
                groups.setdefault((kind, grade, batch.partition), []).append(_marked(batch, Flag.BACKLOG))
        members = [*self._groups(groups), *self._ledgers(counts)]
        told = {**counts.totals(), RELEASED: released} if released else {}
        return Span(members, entries[-1].sequence, forwarded, told)

    def _groups(self, groups: Mapping[tuple[str, int, int], Sequence[Batch]]) -> list[Member]:
        """Return the members of rows: alarms first."""
        first: list[Member] = []
        rest: list[Member] = []
        for kind, grade, partition in sorted(groups, key=_readings_first):
            for alarm, part in _by_alarm(columns.concat(groups[kind, grade, partition])):
                (first if alarm else rest).extend(self._rows(kind, grade, part))
        return [*first, *rest]

    def expired(self, count: int, now: int, position: int) -> Span:
        """Return the span that tells how many readings expired before they could go up."""
        counts = Ledger()
        counts.add(now // ledger.HOUR_US, "", SOURCE, f"{ledger.WITHHELD}.expired", count)
        return Span([*self._ledgers(counts)], position, 0, counts.totals())

    def _ledgers(self, counts: Ledger) -> Iterator[Member]:
        """Yield the ledger, in parts if it is too large for a message."""
        if len(counts):
            for payload in counts.encoded(self.payload_bytes_max):
                yield Member(f"ledger.{self.node}", payload, self.store.ledger_ttl_h)

    def _rows(self, kind: str, grade: int, batch: Batch) -> Iterator[Member]:
        """Yield the members of one kind and grade, each small enough for a message."""
        payload = columns.encode(batch)
        if len(payload) <= self.payload_bytes_max or len(batch) < 2:
            ttl_h = self.store.readings_ttl_h if kind == READINGS else self.store.observations_ttl_h
            yield Member(f"{kind}.{self.node}.all.{grade}", payload, ttl_h)
            return
        half = len(batch) // 2
        for part in (slice(0, half), slice(half, None)):
            yield from self._rows(kind, grade, batch.take(np.arange(len(batch), dtype=np.int64)[part]))


def _shed_of(batch: Batch, shed: Sequence[Shed]) -> BOOL:
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


def _count(counts: Ledger, batch: Batch, kind: str, *, sign: int = 1) -> None:
    """Count the rows by device and hour of arrival, as the node's own ledger does."""
    if not len(batch):
        return
    hours = batch.received // ledger.HOUR_US
    places = counts.places(batch.origins.device)
    for hour in np.unique(hours).tolist():
        rows = np.bincount(batch.origin[hours == hour], minlength=len(places))
        counts.add_counts(hour, SOURCE, kind, places, sign * rows)
