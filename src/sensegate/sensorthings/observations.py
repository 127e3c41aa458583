"""Observations: last values from memory, periods from the history and the log, on masked columns.

A reading that was revised is one Observation: the last revision counts, under the id of the first. A withdrawn one is
left out. Readings are found by phenomenon time, which late data may have at any later place of the log; so the log is
searched from a day before the period to its end, within limits of rows and time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from sensegate.errors import TooMuch
from sensegate.history.query import HistoryQueries, RowOptions
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.quantities.quality import Flag, flag_words, quality_word
from sensegate.sensorthings.ids import identity_of, node_number, observation_id, observation_ids
from sensegate.sensorthings.instants import Span
from sensegate.sensorthings.kinds import KINDS, Entity
from sensegate.sensorthings.structure import SeenDatastream
from sensegate.sensorthings.view import CallerView, ObservationSource
from sensegate.share import records, scans
from sensegate.share.feeds import FeedSelection
from sensegate.share.last_values import LastValues
from sensegate.share.masks import DEVICE, Masks, hidden_rows
from sensegate.share.matching import matches
from sensegate.share.reader import LogReader, RowsEntry

ROWS_MAX = 500_000
"""Most rows that one request may match, before its filter."""
SCANNED_MAX = 20_000_000
"""Most rows of the log that one request may search."""
SCAN_S = 8.0
"""Longest search of the log."""
STREAMS_MAX = 500
"""More Datastreams than this are found by the whole selection, not by their names."""
_AHEAD_US = 86_400_000_000
"""Clocks of devices may be so far ahead of the arrival of their readings."""
_PROBES_MAX = 64
_HISTORY_PAGE = 5_000
_WITHDRAWN = np.uint32(Flag.WITHDRAWN)
_MAY_REPEAT = np.uint32(Flag.CONFLICT | Flag.NOT_DEDUPLICATED)
"""Flags of readings beside which there may be another one of the same time."""
_KIND = KINDS["Observation"]
_NARROWER = (
    "give bounds of phenomenonTime in $filter, or fewer Datastreams; set history.enabled for long periods, and "
    "GET /api/v1/feeds/FEED/aggregate for means"
)
FEATURE = "FeatureOfInterest"
"""Name under which the id of another FeatureOfInterest stands among what an Observation has beside its result."""
Wanted = Mapping[tuple[str, str], SeenDatastream]
"""(name of the device, property name of feeds) -> Datastream."""


class ArrivalSpan(msgspec.Struct, frozen=True):
    """Period of arrival, µs UTC; the end is excluded."""

    begin: int
    end: int
    of_first: bool = False
    """True if a revised reading counts by the arrival of its first revision; otherwise by that of its last."""


class ReadRows(msgspec.Struct, frozen=True, eq=False):
    """Masked rows of a batch, with the Datastream of each."""

    batch: Any
    """Masked columns."""
    rows: Any
    streams: list[SeenDatastream]
    stream: Any
    """Row -> index in `streams`."""
    entry: int
    """Sequence on this log; 0: of the history."""
    reading: Any
    """Row -> true time, by which revisions of a reading are recognised; None where it is not known."""


class ObservationSet:
    """Observations of several Datastreams in order of time; entities are made of those that are asked for."""

    def __init__(
        self, view: CallerView, parts: Sequence[ReadRows], *, descending: bool, arrival: ArrivalSpan | None = None
    ) -> None:
        """`arrival`: leaves out what arrived at another time."""
        self._view = view
        self._parts = parts
        size = sum(len(part.rows) for part in parts)
        self._part = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
        self._place = np.concatenate([np.arange(len(part.rows)) for part in parts]) if size else _NONE
        self.times = _joined([part.batch.time[part.rows] for part in parts])
        self._first = np.arange(size)
        """Row -> the row of its first known revision, whose id it has."""
        chosen = self._newest(size)
        flags = _joined([part.batch.flags[part.rows].astype(np.int64) for part in parts])
        chosen = chosen[(flags[chosen] & int(_WITHDRAWN)) == 0]
        self._received = _joined([part.batch.received[part.rows] for part in parts])
        if arrival is not None:
            chosen = chosen[self._has_arrived(chosen, arrival)]
        sequence = self._sequences()
        index = _joined([part.batch.index[part.rows].astype(np.int64) for part in parts])
        first = self._first[chosen]
        order = np.lexsort((index[first], sequence[first], self.times[chosen]))
        self._order = chosen[order[::-1] if descending else order]
        self._identity = sequence, index

    def __len__(self) -> int:
        return len(self._order)

    def _sequences(self) -> Any:
        columns = []
        for part in self._parts:
            sequence = part.batch.seq[part.rows]
            columns.append(np.where(sequence == 0, part.entry, sequence))
        return _joined(columns)

    def _newest(self, size: int) -> Any:
        """Return the rows without those that another row revises or repeats."""
        if not size:
            return _NONE
        known = [part.reading is not None for part in self._parts]
        reading = _joined([
            part.reading if part.reading is not None else -np.arange(1, len(part.rows) + 1) for part in self._parts
        ])  # fmt: skip
        streams = {stream.id: number for number, stream in enumerate(_streams_of(self._parts))}
        numbers = [np.array([streams[stream.id] for stream in part.streams], np.int64) for part in self._parts]
        stream = _joined([
            number[part.stream] + (0 if is_known else (place + 1) * len(streams))
            for place, (number, part, is_known) in enumerate(zip(numbers, self._parts, known, strict=True))
        ])  # fmt: skip
        revision = _joined([part.batch.revision[part.rows].astype(np.int64) for part in self._parts])
        order = np.lexsort((np.arange(size), self._sequences(), revision, reading, stream))
        same = (stream[order][1:] == stream[order][:-1]) & (reading[order][1:] == reading[order][:-1])
        begins = np.flatnonzero(np.append(np.True_, ~same))
        ends = np.append(begins[1:], size) - 1
        self._first[order[ends]] = order[begins]
        return order[ends]

    def _has_arrived(self, chosen: Any, arrival: ArrivalSpan) -> Any:
        """Return which rows arrived in a period."""
        rows = self._first[chosen] if arrival.of_first else chosen
        has_arrived = (self._received[rows] >= arrival.begin) & (self._received[rows] < arrival.end)
        if not arrival.of_first or self._view.mask.time_s:
            return has_arrived
        # Where the first revision is not among the rows, it arrived before them.
        revision = _joined([part.batch.revision[part.rows].astype(np.int64) for part in self._parts])
        return has_arrived & (revision[rows] == 0)

    def arrivals(self, begin: int, end: int) -> list[int]:
        """Return when the first known revisions of a range arrived, µs UTC."""
        times: list[int] = self._received[self._first[self._order[begin:end]]].tolist()
        return times

    def ids(self, begin: int, end: int) -> list[int]:
        """Return the ids of a range."""
        sequence, index = self._identity
        first = self._first[self._order[begin:end]]
        nodes = [self._parts[part].batch.node for part in self._part[first].tolist()]
        return [
            observation_id(node, *identity)
            for node, *identity in zip(nodes, sequence[first].tolist(), index[first].tolist(), strict=True)
        ]

    def at(self, place: int) -> int:
        """Return the phenomenon time at a place, µs UTC."""
        return int(self.times[self._order[place]])

    def entities(self, begin: int, end: int) -> list[Entity]:
        """Return the entities of a range."""
        rows = self._order[begin:end]
        ids = self.ids(begin, end)
        made: list[Entity | None] = [None] * len(rows)
        parts = self._part[rows]
        for number in np.unique(parts).tolist():
            places = np.flatnonzero(parts == number)
            part = self._parts[number]
            inside = self._place[rows[places]]
            streams = [part.streams[stream] for stream in part.stream[inside].tolist()]
            numbers = [ids[place] for place in places.tolist()]
            for place, entity in zip(
                places.tolist(), entities_of(self._view, part.batch, part.rows[inside], streams, numbers), strict=True
            ):
                made[place] = entity
        return [entity for entity in made if entity is not None]

    def place_after(self, moment: int, number: int, *, descending: bool) -> int:
        """Return the place of the first Observation after the one with a time and id."""
        times = self.times[self._order]
        if descending:
            begin = len(times) - int(np.searchsorted(times[::-1], moment, "right"))
            end = len(times) - int(np.searchsorted(times[::-1], moment, "left"))
        else:
            begin, end = int(np.searchsorted(times, moment, "left")), int(np.searchsorted(times, moment, "right"))
        ids = self.ids(begin, end)
        return begin + ids.index(number) + 1 if number in ids else end

    def cut(self, edge: int, *, descending: bool) -> int:
        """Return how many of the first Observations lie before an edge in time."""
        times = self.times[self._order]
        if descending:
            return len(times) - int(np.searchsorted(times[::-1], edge, "right"))
        return int(np.searchsorted(times, edge, "left"))


class ReadObservations(msgspec.Struct, frozen=True, eq=False):
    """Observations that were read."""

    rows: ObservationSet
    size: int
    """Number of the first rows that are certain to be complete."""
    is_complete: bool
    """True if these are all of the period."""


class UpdatedObservation(msgspec.Struct, frozen=True, eq=False):
    """An Observation that an entry of the log adds or revises."""

    entity: Entity
    entry: int
    """Sequence of the entry."""
    is_revision: bool = False


class _Search(msgspec.Struct, frozen=True, eq=False):
    """Criteria of a search for Observations."""

    view: CallerView
    selection: FeedSelection
    wanted: Wanted
    span: Span
    arrival: ArrivalSpan | None = None


class ObservationReader:
    """Reads Observations of Datastreams."""

    def __init__(self, values: LastValues, reader: LogReader, masks: Masks, history: HistoryQueries | None) -> None:
        self._values = values
        self._reader = reader
        self._masks = masks
        self._history = history

    async def catch_up(self) -> None:
        """Return when all that the log holds now is read."""
        await self._reader.catch_up()

    # ── last values ───────────────────────────────────────────────────────────────────────────────────

    def latest(self, view: CallerView, streams: Collection[SeenDatastream]) -> dict[int, Entity]:
        """Return the last Observation of each Datastream that has one, by the id of the Datastream."""
        numbers = {number: stream for stream in streams for number in stream.numbers}
        scans.add(len(numbers))
        matched: dict[int, Entity] = {}
        for last in self._values.batches(np.array(sorted(numbers), np.int64)):
            batch = last.batch
            rows = np.flatnonzero((batch.flags & _WITHDRAWN) == 0)
            if view.mask:
                rows = rows[~hidden_rows(batch, view.mask)[rows]]
                batch = self._masks.apply(batch, view.mask)
            owners = [numbers[number] for number in last.number[rows].tolist()]
            for entity in entities_of(view, batch, rows, owners, _ids_of(batch, rows)):
                source = _source_of(entity)
                # Of a device that moved, the newer one of its series.
                known = matched.get(source.datastream.id)
                if known is None or _source_of(known).time < source.time:
                    matched[source.datastream.id] = entity
        return matched

    # ── periods ───────────────────────────────────────────────────────────────────────────────────────

    async def read(
        self,
        view: CallerView,
        streams: Collection[SeenDatastream],
        span: Span,
        limit: int,
        *,
        descending: bool,
        arrival: ArrivalSpan | None = None,
    ) -> ReadObservations:
        """Return at least `limit` Observations of a period (its end is excluded), or all where it has fewer.

        Args:
            view: what the caller sees.
            streams: Datastreams whose Observations are wanted.
            span: period of phenomenon time.
            limit: how many are wanted.
            descending: the newest first.
            arrival: period of arrival; None: whenever they arrived.

        Raises:
            TooMuch: it would read too much.
            Unavailable: the log or the history does not answer.
        """
        selection = view.admission.selection
        if selection is None or not streams:
            return ReadObservations(ObservationSet(view, [], descending=descending), 0, is_complete=True)
        wanted = {(stream.thing.word, stream.name): stream for stream in streams}
        search = _Search(view, _narrowed(selection, streams), wanted, span, arrival)
        rows = await self._of_log(search, self._history.end if self._history else 0)
        while True:
            past: list[ReadRows] = []
            edge: int | None = None
            if self._history is not None:
                past, edge = await self._of_history(self._history, search, limit, descending=descending)
            matched = ObservationSet(view, [*past, *rows], descending=descending, arrival=arrival)
            if edge is None:
                return ReadObservations(matched, len(matched), is_complete=True)
            # Beyond the edge the history has rows that were not read.
            size = matched.cut(edge, descending=descending)
            if size >= limit:
                return ReadObservations(matched, size, is_complete=False)
            limit = max(limit * 2, _HISTORY_PAGE)
            if limit > ROWS_MAX:
                raise TooMuch(f"the query reads more than {ROWS_MAX} Observations; {_NARROWER}")

    async def _of_history(
        self,
        history: HistoryQueries,
        search: _Search,
        limit: int,
        *,
        descending: bool,
    ) -> tuple[list[ReadRows], int | None]:
        """Return rows of the history, and the time up to which they are complete; None: these are all."""
        count = min(limit + 1_000, ROWS_MAX)
        # Under a mask of times revisions cannot be recognised by what it shows: the scan leaves revised rows out.
        mask, span = search.view.mask, search.span
        has_times = not mask.time_s
        parts, key = await history.rows(
            search.selection, span.begin, span.end, count, RowOptions(descending=descending, revisions=has_times)
        )
        rows = [
            matched
            for part in parts
            if (matched := _chosen(part.batch, part.rows, search.wanted, 0, part.batch.time if has_times else None))
            is not None
        ]
        return rows, None if key is None else mask.period_start(key[0])

    async def _of_log(self, search: _Search, after: int) -> list[ReadRows]:
        """Return the rows of a period on the log after a sequence. Raises `TooMuch`."""
        reader, span = self._reader, search.span
        await reader.catch_up()
        first, _ = await reader.log.bounds()
        position = max(after, first - 1)
        # What revises a row arrives after it: a row that is left out for it is one that arrived too early.
        begin = span.begin if search.arrival is None else max(span.begin, search.arrival.begin)
        if begin > _AHEAD_US:
            position = max(position, await reader.log.sequence_at(begin - _AHEAD_US) - 1)
        matched: list[ReadRows] = []
        count = scanned = 0
        until = time.monotonic() + SCAN_S
        while True:
            read = await reader.read(position)
            for entry in read.entries:
                if search.selection.wants_subject(entry.subject):
                    scanned += len(entry.batch)
                    scans.add(len(entry.batch))
                    if (part := self._matching(search, entry)) is not None:
                        matched.append(part)
                        count += len(part.rows)
            if count > ROWS_MAX or scanned > SCANNED_MAX or time.monotonic() > until:
                raise TooMuch(f"the query reads too much of the log; {_NARROWER}")
            if read.end <= position:
                return matched
            position = read.end
            await asyncio.sleep(0)

    def _matching(self, search: _Search, entry: RowsEntry) -> ReadRows | None:
        rows = matches(entry.batch, search.selection)
        if not len(rows):
            return None
        batch = self._masks.masked(entry.batch, entry.sequence, search.view.mask)
        times = batch.time[rows]
        rows = rows[(times >= search.span.begin) & (times < search.span.end)]
        return _chosen(batch, rows, search.wanted, entry.sequence, entry.batch.time)

    # ── updates ───────────────────────────────────────────────────────────────────────────────────────

    async def updated(
        self, view: CallerView, streams: Collection[SeenDatastream], entries: Sequence[RowsEntry]
    ) -> list[UpdatedObservation]:
        """Return the Observations of Datastreams that entries of the log add or revise, without withdrawn ones.

        Raises:
            TooMuch: too much is revised.
            Unavailable: the log or the history does not answer.
        """
        selection = view.admission.selection
        if selection is None:
            return []
        wanted = {(stream.thing.word, stream.name): stream for stream in streams}
        search = _Search(view, _narrowed(selection, streams), wanted, Span(*Span.ALL))
        updated: list[UpdatedObservation] = []
        revised: dict[int, dict[int, int]] = {}
        for entry in entries:
            if not selection.wants_subject(entry.subject):
                continue
            scans.add(len(entry.batch))
            part = self._matching(search, entry)
            if part is None:
                continue
            batch, rows = part.batch, part.rows
            flags = batch.flags[rows]
            is_present = (flags & _WITHDRAWN) == 0
            is_revised = (batch.revision[rows] != 0) | ((flags & _MAY_REPEAT) != 0)
            fresh = np.flatnonzero(is_present & ~is_revised)
            owners = [part.streams[stream] for stream in part.stream[fresh].tolist()]
            ids = _ids_of(batch, rows[fresh], part.entry)
            updated += [
                UpdatedObservation(entity, entry.sequence)
                for entity in entities_of(view, batch, rows[fresh], owners, ids)
            ]
            for place in np.flatnonzero(is_present & is_revised).tolist():
                times = revised.setdefault(part.streams[int(part.stream[place])].id, {})
                times[int(batch.time[rows[place]])] = entry.sequence
        for number, times in revised.items():
            stream, span = view.structure.datastreams[number], Span(min(times), max(times) + 1)
            read = await self.read(view, [stream], span, ROWS_MAX // 2, descending=False)
            updated += [
                UpdatedObservation(entity, times[_source_of(entity).time], is_revision=True)
                for entity in read.rows.entities(0, len(read.rows))
                if _source_of(entity).time in times
            ]
        return updated

    # ── one Observation ───────────────────────────────────────────────────────────────────────────────

    async def find(self, view: CallerView, number: int) -> Entity | None:
        """Return the Observation of an id as it is now; None: there is none that the caller sees. Raises `TooMuch`."""
        if view.admission.selection is None:
            return None
        row = await self._row_of(view, view.admission.selection, number)
        if row is None:
            return None
        source = _source_of(row)
        span = Span(source.time, source.time + 1)
        read = await self.read(view, [source.datastream], span, ROWS_MAX // 2, descending=False)
        ids = read.rows.ids(0, len(read.rows))
        if not ids:
            return None
        place = ids.index(number) if number in ids else len(ids) - 1
        entity = read.rows.entities(place, place + 1)[0]
        # A later revision has an id of its own; the address stays the one that was asked for.
        return Entity(entity.kind, number, entity.values, entity.source)

    async def _row_of(self, view: CallerView, selection: FeedSelection, number: int) -> Entity | None:
        """Return the row that has an id, in whatever revision."""
        identity = identity_of(number)
        search = _Search(view, selection, view.structure.by_pair, Span(*Span.ALL))
        await self._reader.catch_up()
        entry = await self._entry_of(number)
        if entry is not None and selection.wants_subject(entry.subject):
            part = self._matching(search, entry)
            if part is not None and (matched := _with_id(view, part, number)) is not None:
                return matched
        if self._history is not None:
            parts, _ = await self._history.rows(
                selection, *Span.ALL, 64, RowOptions(revisions=True, identity=(identity.sequence, identity.index))
            )
            for past in parts:
                part = _chosen(past.batch, past.rows, search.wanted, 0, None)
                if part is not None and (matched := _with_id(view, part, number)) is not None:
                    return matched
        latest = self.latest(view, view.structure.datastreams.values())
        return next((entity for entity in latest.values() if entity.id == number), None)

    async def _entry_of(self, number: int) -> RowsEntry | None:
        """Return the entry of this log that holds the record of an id; None: it is not retained, or never was.

        Entries of this gateway's own commits have the sequence of their records; those of another node keep its order,
        so that theirs is found by bisection.
        """
        identity = identity_of(number)
        first, last = await self._reader.log.bounds()
        if first <= identity.sequence <= last:
            read = await self._reader.read(identity.sequence - 1)
            for entry in read.entries:
                if entry.sequence == identity.sequence and node_number(entry.batch.node) == identity.node:
                    return entry
                if entry.sequence > identity.sequence:
                    break
        low, high = first - 1, last
        for _ in range(_PROBES_MAX):
            if low >= high:
                return None
            middle = (low + high) // 2
            probed = await self._entry_after(middle, high, identity.node)
            if probed is None:
                high = middle
                continue
            sequences = probed.batch.seq
            if bool(((sequences == identity.sequence) & (probed.batch.index == identity.index)).any()):
                return probed
            if int(sequences.max()) < identity.sequence:
                low = probed.sequence
            elif middle == low:
                return None
            else:
                high = middle
        return None

    async def _entry_after(self, position: int, end: int, node: int) -> RowsEntry | None:
        """Return the first entry of another node with rows after a position."""
        for _ in range(_PROBES_MAX):
            read = await self._reader.read(position)
            for entry in read.entries:
                if entry.sequence > end:
                    return None
                if len(entry.batch) and node_number(entry.batch.node) == node:
                    return entry
            if read.end <= position or read.end >= end:
                return None
            position = read.end
        return None


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────

_NONE: Any = np.zeros(0, np.int64)


def _joined(columns: Sequence[Any]) -> Any:
    return np.concatenate(columns) if columns else _NONE


def _streams_of(parts: Sequence[ReadRows]) -> list[SeenDatastream]:
    return list({stream.id: stream for part in parts for stream in part.streams}.values())


def _narrowed(selection: FeedSelection, streams: Collection[SeenDatastream]) -> FeedSelection:
    """Return a selection of the devices and properties of Datastreams, as far as these are named by what is stored."""
    if len(streams) > STREAMS_MAX:
        return selection
    properties = tuple(sorted({stream.measured for stream in streams}))
    if DEVICE in selection.mask.hash:
        return msgspec.structs.replace(selection, properties=properties)
    devices = tuple(sorted({stream.thing.device for stream in streams}))
    return msgspec.structs.replace(selection, properties=properties, devices=devices)


def _chosen(batch: Any, rows: Any, wanted: Wanted, entry: int, reading: Any) -> ReadRows | None:
    """Return the rows that belong to Datastreams; None: there are none. `reading`: true time of all rows."""
    if not len(rows):
        return None
    size = len(batch.properties)
    pairs, inverse = np.unique(batch.origin[rows].astype(np.int64) * size + batch.property[rows], return_inverse=True)
    streams: list[SeenDatastream] = []
    places = []
    for pair in pairs.tolist():
        stream = wanted.get((batch.origins.device[pair // size], batch.properties[pair % size]))
        places.append(-1 if stream is None else len(streams))
        if stream is not None:
            streams.append(stream)
    stream_of = np.array(places, np.int64)[inverse.reshape(-1)]
    kept = stream_of >= 0
    if not kept.any():
        return None
    rows = rows[kept]
    return ReadRows(batch, rows, streams, stream_of[kept], entry, None if reading is None else reading[rows])


def _ids_of(batch: Any, rows: Any, entry: int = 0) -> list[int]:
    return observation_ids(batch.node, records.sequences_of(batch, rows, entry), batch.index[rows].tolist())


def _with_id(view: CallerView, part: ReadRows, number: int) -> Entity | None:
    ids = _ids_of(part.batch, part.rows, part.entry)
    if number not in ids:
        return None
    place = ids.index(number)
    streams = [part.streams[part.stream[place]]]
    return entities_of(view, part.batch, part.rows[place : place + 1], streams, [number])[0]


def _source_of(entity: Entity) -> ObservationSource:
    assert isinstance(entity.source, ObservationSource)  # noqa: S101 - as `entities_of` makes them
    return entity.source


def entities_of(
    view: CallerView, batch: Any, rows: Any, streams: Sequence[SeenDatastream], ids: Sequence[int]
) -> list[Entity]:
    """Return rows of a masked batch as Observations."""
    times, received = batch.time[rows], batch.received[rows]
    kinds = [_result_kind(name) for name in batch.properties]
    profiles = batch.origins.profile
    entities = []
    extras = {stream.id: view.extras_of(stream) for stream in streams} if view.has_extras else {}
    for row, stream, number, moment, text, arrival, index, value, quality, flags, revision, origin in zip(
        rows.tolist(),
        streams,
        ids,
        times.tolist(),
        records.iso(times),
        records.iso(received),
        batch.property[rows].tolist(),
        batch.value[rows].tolist(),
        batch.quality[rows].tolist(),
        batch.flags[rows].tolist(),
        batch.revision[rows].tolist(),
        batch.origin[rows].tolist(),
        strict=True,
    ):
        values: dict[str, object] = {
            "phenomenonTime": text,
            "resultTime": arrival,
            "result": _result(kinds[index], value, batch.text.get(row)),
            "resultQuality": _quality(quality, flags),
            "parameters": {"revision": revision, "profile": profiles[origin]},
        }
        feature = stream.thing.feature_id
        if extras and (extra := extras[stream.id].get(moment)) is not None:
            values |= {name: value for name, value in extra.items() if name != FEATURE}
            feature = int(str(extra.get(FEATURE, feature)))
        entities.append(Entity(_KIND, number, values, ObservationSource(stream, feature, moment)))
    return entities


def _result_kind(name: str) -> str:
    index = PROPERTIES.find(records.base_name(name))
    if index < 0:
        return "number"
    row = PROPERTIES[index]
    if row.kind is ValueKind.BOOLEAN:
        return "truth"
    return "count" if row.counter and row.unit == "1" else "number"


def _result(kind: str, value: float, text: str | None) -> object:
    if text is not None:
        return text
    if math.isnan(value):
        return None
    if kind == "truth":
        return bool(value)
    return int(value) if kind == "count" and value.is_integer() else value


_QUALITIES: dict[tuple[int, int], dict[str, object]] = {}
_QUALITIES_MAX = 4_096


def _quality(code: int, flags: int) -> dict[str, object]:
    known = _QUALITIES.get((code, flags))
    if known is None:
        known = {"quality": quality_word(code), "flags": list(flag_words(flags))}
        if len(_QUALITIES) < _QUALITIES_MAX:
            _QUALITIES[code, flags] = known
    return known
