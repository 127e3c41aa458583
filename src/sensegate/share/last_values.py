"""Last value of every series of the log, in memory, and when each device was last heard.

A series is a device of a node with a property and a channel. Its last value is the reading with the latest phenomenon
time (or arrival, where the device's clock is ahead); of equal times the one that entered the log last, so that a
revision replaces what it revises. Entries may be applied in any order and repeatedly, with the same result.

Readers get numbers of series from `view` (columns to filter by), and `batches` of these numbers, on which masks,
filters and encoders work as on the log:

    view = values.view()
    numbers = np.flatnonzero((view.property == values.property_number("pm2_5")) & (view.grade <= 2))
    for part in values.batches(numbers):
        part.batch       # `columns.Batch`: value, text, time, received, quality, flags, revision, position, record id
        part.entry       # row -> sequence of its entry on this log; with `part.row` its cursor
    changed = values.changed_since(change)   # and `wait_changed` for a stream of changes

Numbers of series and devices are stable while the process lives.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from sensegate import metrics
from sensegate.authority.index import WordList
from sensegate.bus.batch import Batch, Origins, WordColumn
from sensegate.model import BOOL, F64, I32, I64, U8, U32
from sensegate.quantities.series import VARIABLES_MAX, SeriesIndex

SERIES_MAX = 2_000_000
"""Most series held; readings of further ones are counted as a limit that was reached, and have no last value."""
WORDS_MAX = 1 << 16
"""Most different divisions, departments, domains or profile versions; as `SERIES_MAX`."""
_GROWTH = 1024

T = TypeVar("T", bound=np.generic)

ROW = np.dtype([
    ("device", "<i4"),
    ("property", "<i4"),
    ("value", "<f8"),
    ("time", "<i8"),
    ("received", "<i8"),
    ("entry", "<i8"),
    ("seq", "<i8"),
    ("row", "<u4"),
    ("index", "<u4"),
    ("partition", "<i8"),
    ("flags", "<u4"),
    ("quality", "u1"),
    ("time_quality", "u1"),
    ("revision", "u1"),
    ("grade", "u1"),
    ("division", "<i4"),
    ("department", "<i4"),
    ("domain", "<i4"),
    ("profile", "<i4"),
    ("lon", "<f8"),
    ("lat", "<f8"),
])  # fmt: skip
"""The stored columns of a series."""
_BYTES = np.dtype((np.void, ROW.itemsize))
"""A row as bytes: numpy copies a row of many fields field by field, which takes ten times as long."""
_SAME_IN_BATCH = ("value", "time", "received", "flags", "quality", "time_quality", "revision", "seq", "index")
"""Columns that a batch has under the same names."""
_WORDS = ("division", "department", "domain", "profile")


class SeriesView(msgspec.Struct, frozen=True, eq=False):
    """Columns over all series, by number; valid until the next `await`. Indices lead to the tables of `LastValues`."""

    device: I32
    """Index into `devices`."""
    property: I32
    """Index into `properties`."""
    value: F64
    """Canonical unit; NaN where the value is a string."""
    time: I64
    received: I64
    flags: U32
    quality: U8
    grade: U8
    division: I32
    department: I32
    domain: I32
    profile: I32
    lon: F64
    lat: F64
    change: I64
    """Number of the change in which the value was last replaced, see `changed_since`."""


class LastBatch(msgspec.Struct, frozen=True, eq=False):
    """Last values of series of one node, as a batch; its rows are in no particular order."""

    batch: Batch
    """Properties have the names of feeds, ``name`` or ``name#channel``."""
    number: I64
    """Row -> number of its series."""
    entry: I64
    """Row -> sequence of the entry on this log."""
    row: U32
    """Row -> row of that entry."""


class SavedTables(msgspec.Struct, frozen=True):
    """The content of a `LastValues`, as it is stored."""

    devices: list[tuple[str, str]]
    heard: bytes
    properties: list[str]
    words: list[list[str]]
    """Divisions, departments, domains, profiles."""
    rows: bytes
    text: dict[int, str]


class LastValues:
    """Last values by series number."""

    def __init__(self, *, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self._series = SeriesIndex()
        self._rows: NDArray[np.void] = np.zeros(0, ROW)
        self._changes: I64 = np.zeros(0, np.int64)
        self._place: I64 = np.zeros(0, np.int64)
        """Scratch: series -> row of the batch that is being applied."""
        self._text: dict[int, str] = {}
        self._heard: I64 = np.zeros(0, np.int64)
        self._device: dict[str, dict[str, int]] = {}
        """Node -> device id -> device number."""
        self.devices: list[tuple[str, str]] = []
        """(node, device id) by device number; append-only, as all tables."""
        self._properties = WordList()
        self._words = {name: WordList() for name in _WORDS}
        self._change = 0
        self._changed: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._series)

    @property
    def properties(self) -> list[str]:
        """Property names of feeds, ``name`` or ``name#channel``, by property number."""
        return self._properties.all

    def words(self, column: str) -> list[str]:
        """Return the table of column ``division``, ``department``, ``domain`` or ``profile``."""
        return self._words[column].all

    def device_number(self, node: str, device: str) -> int:
        """Return the number of a node's device; -1: it has no last value."""
        return self._device.get(node, {}).get(device, -1)

    def device_numbers(self, device: str) -> list[int]:
        """Return the numbers of the devices of all nodes that have an id."""
        return [known[device] for known in self._device.values() if device in known]

    def series_of(self, node: str, device: str) -> I64:
        """Return the numbers of the series of a device."""
        number = self.device_number(node, device)
        return np.flatnonzero(self._rows["device"][: len(self)] == number) if number >= 0 else np.zeros(0, np.int64)

    def heard(self, node: str, device: str) -> int:
        """Return the latest arrival of a reading of a device, µs UTC; 0: unknown."""
        number = self.device_number(node, device)
        return int(self._heard[number]) if number >= 0 else 0

    def view(self) -> SeriesView:
        """Return the columns over all series."""
        rows, size = self._rows, len(self)
        columns = {name: rows[name][:size] for name in SeriesView.__struct_fields__ if name != "change"}
        return SeriesView(**columns, change=self._changes[:size])

    # ── changes ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def change(self) -> int:
        """Number of the last change."""
        return self._change

    def changed_since(self, change: int) -> I64:
        """Return the numbers of the series whose value was replaced after a change."""
        return np.flatnonzero(self._changes[: len(self)] > change)

    async def wait_changed(self, change: int) -> None:
        """Return once a value was replaced after a change."""
        while self._change <= change:
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._changed,))

    # ── taking ────────────────────────────────────────────────────────────────────────────────────────

    def apply(self, batch: Batch, entry: int) -> None:
        """Take the readings of an entry of the log; of a batch whose properties have the names of feeds."""
        if not len(batch):
            return
        origins = self._origins(batch)
        rows = _last_of_runs(batch)
        property_ = self._numbered(self._properties, batch.properties, VARIABLES_MAX)[batch.property[rows]]
        device = origins["device"][batch.origin[rows]]
        held = (device >= 0) & (property_ >= 0)
        if not held.all():
            metrics.LIMIT_HITS.labels("last_values").inc(int((~held).sum()))
            if not held.any():
                return
            rows, device, property_ = rows[held], device[held], property_[held]
        np.maximum.at(self._heard, device, batch.received[rows])
        number = self._number(device, property_)
        if not (known := number >= 0).all():
            metrics.LIMIT_HITS.labels("last_values").inc(int((~known).sum()))
            rows, number, property_ = rows[known], number[known], property_[known]
        key = np.minimum(batch.time[rows], batch.received[rows])
        chosen = self._latest(number, key)
        rows, number, key, property_ = rows[chosen], number[chosen], key[chosen], property_[chosen]
        before = np.minimum(self._rows["time"][number], self._rows["received"][number])
        of_entry = self._rows["entry"][number]
        later = (entry > of_entry) | ((entry == of_entry) & (rows > self._rows["row"][number]))
        fresh: BOOL = (key > before) | ((key == before) & later) | (of_entry == 0)
        if fresh.any():
            rows, number, property_ = rows[fresh], number[fresh], property_[fresh]
            taken = origins.view(_BYTES)[batch.origin[rows]].view(ROW)
            taken["property"], taken["entry"], taken["row"] = property_, entry, rows
            self._replace(batch, taken, rows, number)

    def _origins(self, batch: Batch) -> NDArray[np.void]:
        """Return what each entry of the batch's origins contributes; the device of one beyond a limit is -1."""
        origins = batch.origins
        table = np.zeros(len(origins), ROW)
        known = self._device.setdefault(batch.node, {})
        for device in origins.device:
            if device not in known and len(self.devices) < self._series_max:
                known[device] = len(self.devices)
                self.devices.append((batch.node, device))
        if len(self.devices) > len(self._heard):
            self._heard = _grown(self._heard, len(self.devices) * 3 // 2 + _GROWTH)
        table["device"] = [known.get(device, -1) for device in origins.device]
        for name in _WORDS:
            column: WordColumn = getattr(origins, name)
            table[name] = self._numbered(self._words[name], column.table, WORDS_MAX)[column.index]
            table["device"][table[name] < 0] = -1
        table["grade"], table["lon"], table["lat"] = origins.grade, origins.lon, origins.lat
        return table

    @staticmethod
    def _numbered(table: WordList, words: list[str], most: int) -> I32:
        """Return the number of each word in a table, which takes new ones while it has room; else -1."""
        room = len(table.all) < most - len(words)
        return np.array([table.index(word) if room else table.find(word) for word in words], np.int32)

    def _number(self, device: I32, property_: I32) -> I32:
        if len(self._series) + len(device) > self._series_max:
            return self._series.find(device, property_)
        number = self._series.resolve(device, property_)
        if len(self._series) > len(self._rows):
            size = len(self._series) * 3 // 2 + _GROWTH
            self._rows = _grown(self._rows, size)
            self._changes, self._place = _grown(self._changes, size), _grown(self._place, size)
        return number

    def _latest(self, number: I32, key: I64) -> I64:
        """Return the places of the latest row of each series: by key, of equal keys the last."""
        places = np.arange(len(number))
        self._place[number] = places
        if (self._place[number] == places).all():
            return places
        # A batch is ordered by series: where arrival is the order of time too, the last of each run is the latest.
        is_end = np.append(number[1:] != number[:-1], np.True_)
        if is_end.sum() == (self._place[number] == places).sum() and (is_end[:-1] | (key[1:] >= key[:-1])).all():
            return np.flatnonzero(is_end)
        order = np.lexsort((places, key, number))
        last = np.append(number[order][1:] != number[order][:-1], np.True_)
        latest: I64 = order[last]
        return latest

    def _replace(self, batch: Batch, taken: NDArray[np.void], rows: I64, number: I32) -> None:
        """Replace the values of series by rows of a batch; `taken` has what these do not say."""
        for name in _SAME_IN_BATCH:
            taken[name] = getattr(batch, name)[rows]
        taken["partition"] = batch.partition
        taken["seq"] = np.where(taken["seq"] == 0, taken["entry"], taken["seq"])
        self._rows.view(_BYTES)[number] = taken.view(_BYTES)
        if self._text or batch.text:
            for series, row in zip(number.tolist(), rows.tolist(), strict=True):
                if (text := batch.text.get(row)) is not None:
                    self._text[series] = text
                else:
                    self._text.pop(series, None)
        self._change += 1
        self._changes[number] = self._change
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    # ── giving ────────────────────────────────────────────────────────────────────────────────────────

    def of_device(self, node: str, device: str) -> list[LastBatch]:
        """Return the last values of a device of a node."""
        return self.batches(self.series_of(node, device))

    def batches(self, numbers: I64) -> list[LastBatch]:
        """Return the last values of series, a batch for each node and partition."""
        if not len(numbers):
            return []
        rows = self._rows[numbers]
        table = WordList()
        if len(self._device) == 1:
            table.index(next(iter(self._device)))
            node = np.zeros(len(rows), np.int64)
        else:
            used, place = np.unique(rows["device"], return_inverse=True)
            nodes = [table.index(self.devices[device][0]) for device in used.tolist()]
            node = np.array(nodes, np.int64)[place.reshape(-1)]
        group = np.unique(np.stack([node, rows["partition"]]), axis=1, return_inverse=True)
        of_row = group[1].reshape(-1)
        return [
            self._batch(table.all[int(group[0][0, at])], int(group[0][1, at]), numbers[of_row == at])
            for at in range(group[0].shape[1])
        ]

    def _batch(self, node: str, partition: int, numbers: I64) -> LastBatch:
        rows = self._rows[numbers]
        parts = [rows[name] for name in ("device", *_WORDS, "grade")]
        parts += [rows[name].copy().view("<i8") for name in ("lon", "lat")]
        order = np.lexsort(tuple(parts[::-1]))
        differs = np.zeros(len(rows), np.bool_)
        for part in parts:
            differs[1:] |= part[order][1:] != part[order][:-1]
        entry = np.empty(len(rows), np.uint32)
        entry[order] = np.cumsum(differs)
        first = rows[order[np.flatnonzero(differs | (np.arange(len(rows)) == 0))]]
        used, kind = np.unique(rows["property"], return_inverse=True)
        texts = ((place, self._text.get(number)) for place, number in enumerate(numbers.tolist()))
        batch = Batch(
            node,
            partition,
            Origins(
                [self.devices[device][1] for device in first["device"].tolist()],
                self._word_column("division", first),
                self._word_column("department", first),
                self._word_column("domain", first),
                self._word_column("profile", first),
                first["lon"],
                first["lat"],
                first["grade"],
            ),
            [self.properties[property_] for property_ in used.tolist()],
            entry,
            kind.reshape(-1).astype(np.uint16),
            rows["time"],
            rows["received"],
            rows["value"],
            {place: text for place, text in texts if text is not None} if self._text else {},
            rows["quality"],
            rows["flags"],
            rows["time_quality"],
            rows["revision"],
            rows["seq"],
            rows["index"],
        )
        return LastBatch(batch, numbers, rows["entry"], rows["row"])

    def _word_column(self, name: str, rows: NDArray[np.void]) -> WordColumn:
        words = self.words(name)
        return WordColumn.of([words[at] for at in rows[name].tolist()])

    # ── storing ───────────────────────────────────────────────────────────────────────────────────────

    def save(self) -> SavedTables:
        """Return a copy of everything, to be stored."""
        return SavedTables(
            list(self.devices),
            self._heard[: len(self.devices)].tobytes(),
            list(self.properties),
            [list(self.words(name)) for name in _WORDS],
            self._rows[: len(self)].tobytes(),
            dict(self._text),
        )

    def restore(self, saved: SavedTables, *, entry_max: int, received_min: int) -> None:
        """Take what was stored, except entries after `entry_max` and values that arrived before `received_min`.

        Raises:
            ValueError: it is not consistent; then nothing is taken.
        """
        rows = np.frombuffer(saved.rows, ROW)
        heard = np.frombuffer(saved.heard, "<i8")
        limits = {"device": len(saved.devices), "property": len(saved.properties)}
        limits |= {name: len(table) for name, table in zip(_WORDS, saved.words, strict=True)}
        if len(self) or len(heard) != len(saved.devices) or len(rows) > self._series_max:
            raise ValueError("last values: the sizes are inconsistent")
        if any(bool(((rows[name] < 0) | (rows[name] >= most)).any()) for name, most in limits.items()):
            raise ValueError("last values: an index is out of range")
        kept = np.flatnonzero((rows["entry"] <= entry_max) & (rows["received"] >= received_min))
        self._series.restore(rows["device"][kept].copy(), rows["property"][kept].copy())
        self.devices = list(saved.devices)
        for number, (node, device) in enumerate(self.devices):
            self._device.setdefault(node, {})[device] = number
        self._heard = heard.astype(np.int64)
        for table, words in zip(
            (self._properties, *self._words.values()), (saved.properties, *saved.words), strict=True
        ):
            for word in words:
                table.index(word)
        self._rows = rows[kept]
        self._changes, self._place = np.zeros(len(kept), np.int64), np.zeros(len(kept), np.int64)
        place = dict(zip(kept.tolist(), range(len(kept)), strict=True))
        self._text = {place[number]: text for number, text in saved.text.items() if number in place}


def _last_of_runs(batch: Batch) -> I64:
    """Return the rows of a batch among which the latest of each series is, ascending.

    Rows are ordered by property and device: where arrival is the order of time too, the last of each run will do.
    """
    follows = (batch.origin[1:] == batch.origin[:-1]) & (batch.property[1:] == batch.property[:-1])
    rises = (batch.time[1:] >= batch.time[:-1]) & (batch.received[1:] >= batch.received[:-1])
    if not (rises | ~follows).all():
        return np.arange(len(batch))
    return np.flatnonzero(np.append(~follows, np.True_))


def _grown(column: NDArray[T], size: int) -> NDArray[T]:
    grown = np.zeros(size, column.dtype)
    grown[: len(column)] = column
    return grown
