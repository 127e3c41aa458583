"""Rows of a segment in memory: columns of numbers, with tables of the words and origins to which these refer.

Rows come from entries of the log or from files, are joined, sorted and written; nothing is an object for each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate.bus.batch import Batch
from sensegate.clock import HOUR_US
from sensegate.model import BOOL, F64, I32, I64, U8, U32
from sensegate.quantities.sorting import radix_argsort

_Number = TypeVar("_Number", bound=np.generic)
NO_TEXT = -1
ORIGIN_WORDS = ("node", "device", "division", "department", "domain", "profile")


class CodedWords(msgspec.Struct, frozen=True, eq=False):
    """Column of words: a table of words, and the place in it of each element."""

    table: list[str]
    place: I32

    def take(self, elements: I64 | slice) -> CodedWords:
        """Return the column of some elements."""
        return CodedWords(self.table, self.place[elements])

    def sorted(self) -> CodedWords:
        """Return the same column with a table in alphabetical order."""
        order = sorted(range(len(self.table)), key=self.table.__getitem__)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return CodedWords([self.table[old] for old in order], rank[self.place])

    def starts_with(self, prefix: str) -> BOOL:
        """Return for each element whether its word starts with a prefix."""
        return np.array([word.startswith(prefix) for word in self.table], np.bool_)[self.place]


class SegmentOrigins(msgspec.Struct, frozen=True, eq=False):
    """Origins of rows; equal ones may stand in several places."""

    node: CodedWords
    device: CodedWords
    division: CodedWords
    department: CodedWords
    domain: CodedWords
    profile: CodedWords
    partition: I32
    lon: F64
    """Degrees; NaN: unknown."""
    lat: F64
    grade: U8

    def __len__(self) -> int:
        return len(self.grade)

    def take(self, entries: I64) -> SegmentOrigins:
        """Return some entries."""
        return SegmentOrigins(
            **{name: getattr(self, name).take(entries) for name in ORIGIN_WORDS},
            partition=self.partition[entries],
            lon=self.lon[entries],
            lat=self.lat[entries],
            grade=self.grade[entries],
        )

    def distinct(self) -> tuple[SegmentOrigins, U32]:
        """Return the origins, of equal ones of a device that follow one another the first, and where each is now."""
        order = radix_argsort(self.device.place)
        origins = self.take(order)
        differs = np.ones(len(order), np.bool_)
        differs[1:] = False
        # An unknown position is NaN, which differs from itself: compared by its bits.
        columns = (origins.partition, origins.grade, origins.lon.view(np.int64), origins.lat.view(np.int64))
        for column in (*(getattr(origins, name).place for name in ORIGIN_WORDS), *columns):
            differs[1:] |= column[1:] != column[:-1]
        place = np.empty(len(order), np.uint32)
        place[order] = (np.cumsum(differs) - 1).astype(np.uint32)
        return origins.take(np.flatnonzero(differs)), place


class SegmentRows(msgspec.Struct, frozen=True, eq=False):
    """Columns of rows; element *i* of all describes one reading."""

    origins: SegmentOrigins
    origin: U32
    """Row -> entry of `origins`."""
    property: CodedWords
    time: I64
    received: I64
    """Arrival, ms UTC."""
    value: F64
    """NaN: the row is a text, or has no number."""
    text: CodedWords | None
    """Text of each row, `NO_TEXT`: it has none; None: no row has one."""
    quality: U8
    time_quality: U8
    revision: U8
    flags: U32
    entry: I64
    """Sequence of the entry of the log."""
    seq: I64
    """Sequence of the entry in which the record was first committed."""
    index: U32

    def __len__(self) -> int:
        return len(self.origin)

    def take(self, rows: I64) -> SegmentRows:
        """Return some rows, in the order of their numbers."""
        return SegmentRows(
            self.origins,
            self.origin[rows],
            self.property.take(rows),
            self.time[rows],
            self.received[rows],
            self.value[rows],
            None if self.text is None else self.text.take(rows),
            _taken(self.quality, rows),
            _taken(self.time_quality, rows),
            _taken(self.revision, rows),
            _taken(self.flags, rows),
            self.entry[rows],
            self.seq[rows],
            self.index[rows],
        )

    def sorted(self) -> SegmentRows:
        """Return the rows by property, device, time, entry and index; of rows in the order of the log."""
        names, devices = self.property.sorted(), self.origins.device.sorted()
        key = names.place.astype(np.int64) * max(1, len(devices.table)) + devices.place[self.origin]
        order = _time_order(self, key, radix_argsort(key))
        origins = msgspec.structs.replace(self.origins, device=devices)
        return msgspec.structs.replace(self, property=names, origins=origins).take(order)


def _taken(column: NDArray[_Number], rows: I64) -> NDArray[_Number]:
    """Return some elements of a column that is often zero throughout."""
    return column[rows] if column.any() else np.zeros(len(rows), column.dtype)


def _time_order(rows: SegmentRows, key: I64, order: I64) -> I64:
    """Return an order by series as one by series, time, entry and index; sorts the series with late rows only."""
    sorted_key, time = key[order], rows.time[order]
    places = np.flatnonzero((sorted_key[1:] == sorted_key[:-1]) & (time[1:] <= time[:-1]))
    if not len(places):
        return order
    before, after = order[places], order[places + 1]
    is_late = (rows.time[after] < rows.time[before]) | (rows.entry[after] < rows.entry[before])
    is_late |= (rows.entry[after] == rows.entry[before]) & (rows.index[after] < rows.index[before])
    concerned = np.flatnonzero(np.isin(sorted_key, key[after[is_late]]))
    part = order[concerned]
    order[concerned] = part[np.lexsort((rows.index[part], rows.entry[part], rows.time[part], key[part]))]
    return order


# ── where rows come from ──────────────────────────────────────────────────────────────────────────────


class WordNumbers:
    """Numbers of words, in the order in which they first came."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, words: Sequence[str]) -> I32:
        """Return the number of each word."""
        try:
            return np.fromiter(map(self._known.__getitem__, words), np.int32, len(words))
        except KeyError:
            for word in words:
                self._known.setdefault(word, len(self._known))
        return np.fromiter(map(self._known.__getitem__, words), np.int32, len(words))

    @property
    def table(self) -> list[str]:
        """The words, by number."""
        return list(self._known)


def rows_of_entries(parts: Sequence[tuple[int, Batch]]) -> SegmentRows:
    """Return the rows of entries of the log, (sequence, rows of the entry); there is at least one."""
    words = {name: WordNumbers() for name in ORIGIN_WORDS}
    names, texts = WordNumbers(), WordNumbers()
    places: Mapping[str, list[I32]] = {name: [] for name in ORIGIN_WORDS}
    origin, property_ = [], []
    count = 0
    for _, batch in parts:
        table = batch.origins
        places["node"].append(np.full(len(table), words["node"].of([batch.node])[0], np.int32))
        places["device"].append(words["device"].of(table.device))
        for name, column in (
            ("division", table.division),
            ("department", table.department),
            ("domain", table.domain),
            ("profile", table.profile),
        ):
            places[name].append(words[name].of(column.table)[column.index])
        origin.append(batch.origin + np.uint32(count))
        property_.append(names.of(batch.properties)[batch.property])
        count += len(table)
    batches = [batch for _, batch in parts]
    sizes = [len(batch) for batch in batches]
    coded = {name: CodedWords(words[name].table, np.concatenate(places[name])) for name in ORIGIN_WORDS}
    entry = np.repeat(np.array([sequence for sequence, _ in parts], np.int64), sizes)
    seq = np.concatenate([batch.seq for batch in batches])
    origins, place = SegmentOrigins(
        **coded,
        partition=np.repeat(
            np.array([batch.partition for batch in batches], np.int32), [len(batch.origins) for batch in batches]
        ),
        lon=np.concatenate([batch.origins.lon for batch in batches]),
        lat=np.concatenate([batch.origins.lat for batch in batches]),
        grade=np.concatenate([batch.origins.grade for batch in batches]),
    ).distinct()
    return SegmentRows(
        origins,
        place[np.concatenate(origin)],
        CodedWords(names.table, np.concatenate(property_)),
        np.concatenate([batch.time for batch in batches]),
        np.concatenate([batch.received for batch in batches]) // 1_000,
        np.concatenate([batch.value for batch in batches]),
        _texts_of(batches, sizes, texts),
        np.concatenate([batch.quality for batch in batches]),
        np.concatenate([batch.time_quality for batch in batches]),
        np.concatenate([batch.revision for batch in batches]),
        np.concatenate([batch.flags for batch in batches]),
        entry,
        np.where(seq == 0, entry, seq),
        np.concatenate([batch.index for batch in batches]),
    )


def _texts_of(batches: Sequence[Batch], sizes: Sequence[int], numbers: WordNumbers) -> CodedWords | None:
    if not any(batch.text for batch in batches):
        return None
    place = np.full(sum(sizes), NO_TEXT, np.int32)
    begin = 0
    for batch, size in zip(batches, sizes, strict=True):
        if batch.text:
            rows = np.fromiter(batch.text, np.int64, len(batch.text))
            place[begin + rows] = numbers.of([*batch.text.values()])
        begin += size
    return CodedWords(numbers.table, place)


def joined(parts: Sequence[SegmentRows]) -> SegmentRows:
    """Return the rows of several in their order; there is at least one."""
    if len(parts) == 1:
        return parts[0]
    bases = np.cumsum([0, *(len(part.origins) for part in parts)]).tolist()
    tables = [part.origins for part in parts]
    origins, place = SegmentOrigins(
        **{name: joined_words([getattr(table, name) for table in tables]) for name in ORIGIN_WORDS},
        partition=np.concatenate([table.partition for table in tables]),
        lon=np.concatenate([table.lon for table in tables]),
        lat=np.concatenate([table.lat for table in tables]),
        grade=np.concatenate([table.grade for table in tables]),
    ).distinct()
    return SegmentRows(
        origins,
        np.concatenate(
            [place[base : base + len(part.origins)][part.origin] for part, base in zip(parts, bases, strict=False)]
        ),
        joined_words([part.property for part in parts]),
        np.concatenate([part.time for part in parts]),
        np.concatenate([part.received for part in parts]),
        np.concatenate([part.value for part in parts]),
        _joined_texts(parts),
        np.concatenate([part.quality for part in parts]),
        np.concatenate([part.time_quality for part in parts]),
        np.concatenate([part.revision for part in parts]),
        np.concatenate([part.flags for part in parts]),
        np.concatenate([part.entry for part in parts]),
        np.concatenate([part.seq for part in parts]),
        np.concatenate([part.index for part in parts]),
    )


def joined_words(columns: Iterable[CodedWords]) -> CodedWords:
    """Return several columns of words as one."""
    numbers = WordNumbers()
    places = [numbers.of(column.table)[column.place] for column in columns]
    return CodedWords(numbers.table, np.concatenate(places))


def _joined_texts(parts: Sequence[SegmentRows]) -> CodedWords | None:
    if all(part.text is None for part in parts):
        return None
    numbers = WordNumbers()
    places = []
    for part in parts:
        if part.text is None:
            places.append(np.full(len(part), NO_TEXT, np.int32))
        else:
            # The last element is the place of rows without a text.
            places.append(np.append(numbers.of(part.text.table), np.int32(NO_TEXT))[part.text.place])
    return CodedWords(numbers.table, np.concatenate(places))


# ── hourly sums ───────────────────────────────────────────────────────────────────────────────────────


class HourlySums(msgspec.Struct, frozen=True, eq=False):
    """Sums of runs of sorted rows of one series and hour; a series and hour with several origins has several."""

    first: I64
    """First row of each run, which has its property, origin and flags."""
    hour: I64
    """Start, µs UTC."""
    count: I64
    numbers: I64
    """Rows with a number."""
    least: F64
    """NaN, as `most`, `total` and `last`: none has a number."""
    most: F64
    total: F64
    last: F64
    last_time: I64
    good: I64


def hourly_sums(rows: SegmentRows, flag: int) -> HourlySums:
    """Return the sums of sorted rows; rows with and without a flag are summed apart."""
    size = len(rows)
    if not size:
        nothing, none = np.zeros(0, np.int64), np.zeros(0)
        return HourlySums(nothing, nothing, nothing, nothing, none, none, none, none, nothing, nothing)
    hour = rows.time // HOUR_US
    differs = np.zeros(size, np.bool_)
    differs[0] = True
    columns: list[Any] = [rows.property.place, rows.origin, hour]
    if rows.flags.any():
        columns.append(rows.flags & np.uint32(flag))
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    first = np.flatnonzero(differs)
    end = np.append(first[1:], size)
    value, known = rows.value, ~np.isnan(rows.value)
    is_whole = bool(known.all())
    last = end - 1
    if not is_whole:
        last = np.maximum.reduceat(np.where(known, np.arange(size), -1), first)
    numbers = end - first if is_whole else np.add.reduceat(known.astype(np.int64), first)
    total = np.add.reduceat(value if is_whole else np.where(known, value, 0.0), first)
    return HourlySums(
        first,
        hour[first] * HOUR_US,
        end - first,
        numbers,
        (np.minimum if is_whole else np.fmin).reduceat(value, first),
        (np.maximum if is_whole else np.fmax).reduceat(value, first),
        total if is_whole else np.where(numbers > 0, total, np.nan),
        value[last] if is_whole else np.where(last >= 0, value[last], np.nan),
        rows.time[end - 1],
        np.add.reduceat((rows.quality == 0).astype(np.int64), first) if rows.quality.any() else end - first,
    )
