"""Readings as columns in memory: a `Batch` is the self-contained content of one message of the log."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import isnan
from typing import Any

import msgspec
import numpy as np

from sensegate.model import BOOL, F64, I64, U8, U16, U32, U64


class WordColumn(msgspec.Struct, frozen=True, eq=False):
    """Dictionary-encoded column of strings: the distinct values in `table`, and an index into it per entry."""

    table: list[str]
    index: U16

    def __getitem__(self, entry: int) -> str:
        return self.table[int(self.index[entry])]

    def __len__(self) -> int:
        return len(self.index)

    def tolist(self) -> list[str]:
        """Return the string of each entry."""
        return [self.table[index] for index in self.index.tolist()]

    def take(self, entries: Any) -> WordColumn:
        """Return the column of the given entries, with a sorted table without unused values."""
        index = self.index[entries]
        used = np.flatnonzero(np.bincount(index, minlength=len(self.table))).tolist()
        order = sorted(used, key=self.table.__getitem__)
        place = np.zeros(max(len(self.table), 1), np.uint16)
        place[order] = np.arange(len(order))
        return WordColumn([self.table[old] for old in order], place[index])

    @classmethod
    def of(cls, words: Sequence[str]) -> WordColumn:
        """Return the column of a sequence of strings, with a sorted table."""
        table = sorted(set(words))
        place = {word: index for index, word in enumerate(table)}
        return cls(table, np.array([place[word] for word in words], np.uint16))


class Origins(msgspec.Struct, frozen=True, eq=False):
    """Origins of readings: one entry per (device, profile version), in the order of device ids."""

    device: list[str]
    division: WordColumn
    department: WordColumn
    domain: WordColumn
    profile: WordColumn
    """``vendor/model@version``."""
    lon: F64
    lat: F64
    """WGS-84 degrees to seven decimals; NaN where the device has no position."""
    grade: U8

    def __len__(self) -> int:
        return len(self.device)

    def take(self, entries: I64) -> Origins:
        """Return the given entries."""
        device = self.device
        return Origins(
            [device[entry] for entry in entries.tolist()],
            self.division.take(entries),
            self.department.take(entries),
            self.domain.take(entries),
            self.profile.take(entries),
            self.lon[entries],
            self.lat[entries],
            self.grade[entries],
        )


class LocalColumns(msgspec.Struct, frozen=True, eq=False):
    """Columns that only the committing node needs, to rebuild its dedup index from the log."""

    key: I64
    path: U16
    identity: U8
    """Kind of identity (index in `persist.duplicates.KINDS`)."""
    message: U32
    """Row -> index in `digest`."""
    digest: U64
    """Digest of each message's bytes."""


class Batch(msgspec.Struct, frozen=True, eq=False):
    """Readings of one message of the log; row *i* of all columns describes one reading."""

    node: str
    partition: int
    origins: Origins
    properties: list[str]
    origin: U32
    """Row -> entry of `origins`."""
    property: U16
    """Row -> index in `properties`."""
    time: I64
    """Phenomenon time, µs UTC."""
    received: I64
    """Arrival, µs UTC, whole milliseconds."""
    value: F64
    """Canonical unit; NaN where the row is in `text`."""
    text: dict[int, str]
    quality: U8
    flags: U32
    time_quality: U8
    revision: U8
    seq: I64
    """Sequence of the log entry in which the record was first committed; with `index` its identity. 0: this entry."""
    index: U32
    local: LocalColumns | None = None
    channels: list[str] = []
    """Channel of each element of `properties` (one of several equal sensors of a device); empty: no channels."""

    def __len__(self) -> int:
        return len(self.origin)

    def record_id(self, row: int) -> str:
        """Return the id of a record, which is the same on every tier and in every delivery."""
        return f"{self.node}-{self.partition}-{self.seq[row]:014d}-{self.index[row]}"

    def variables(self) -> list[tuple[str, str]]:
        """Return (property, channel) for each number of the column `property`."""
        return list(zip(self.properties, self.channels or [""] * len(self.properties), strict=True))

    def take(self, mask: BOOL | I64) -> Batch:
        """Return the rows of a mask or of indices; tables shrink to the values in use."""
        rows: I64 = np.flatnonzero(mask) if mask.dtype == np.bool_ else mask.astype(np.int64)
        origin, entries = _used(self.origin[rows], len(self.origins))
        kind, kinds = _used(self.property[rows], len(self.properties))
        return Batch(
            self.node,
            self.partition,
            self.origins.take(entries),
            [self.properties[old] for old in kinds.tolist()],
            origin.astype(np.uint32),
            kind.astype(np.uint16),
            self.time[rows],
            self.received[rows],
            self.value[rows],
            _text_of(self.text, rows, len(self)),
            self.quality[rows],
            self.flags[rows],
            self.time_quality[rows],
            self.revision[rows],
            self.seq[rows],
            self.index[rows],
            self._local_of(rows),
            [self.channels[old] for old in kinds.tolist()] if self.channels else [],
        )

    def _local_of(self, rows: I64) -> LocalColumns | None:
        if self.local is None:
            return None
        message, used = _used(self.local.message[rows], len(self.local.digest))
        part = self.local
        return LocalColumns(
            part.key[rows], part.path[rows], part.identity[rows], message.astype(np.uint32), part.digest[used]
        )

    def without_local(self) -> Batch:
        """Return the batch without local columns, as other tiers get it."""
        return msgspec.structs.replace(self, local=None)


def _text_of(text: dict[int, str], rows: I64, size: int) -> dict[int, str]:
    """Return the texts of the given rows (each given once) under their new row numbers."""
    if not text:
        return {}
    place = np.full(size, -1, np.int64)
    place[rows] = np.arange(len(rows))
    new = place[np.fromiter(text, np.int64, len(text))].tolist()
    return {row: word for row, word in zip(new, text.values(), strict=True) if row >= 0}


def _used(index: Any, size: int) -> tuple[I64, I64]:
    """Return (index into the used entries, the used entries)."""
    entries = np.flatnonzero(np.bincount(index, minlength=size))
    place = np.zeros(max(size, 1), np.int64)
    place[entries] = np.arange(len(entries))
    return place[index], entries


def _no_words() -> WordColumn:
    return WordColumn([], np.empty(0, np.uint16))


EMPTY = Batch(
    "",
    0,
    Origins([], _no_words(), _no_words(), _no_words(), _no_words(), np.empty(0), np.empty(0), np.empty(0, np.uint8)),
    [],
    np.empty(0, np.uint32),
    np.empty(0, np.uint16),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty(0),
    {},
    np.empty(0, np.uint8),
    np.empty(0, np.uint32),
    np.empty(0, np.uint8),
    np.empty(0, np.uint8),
    np.empty(0, np.int64),
    np.empty(0, np.uint32),
)
"""A batch without rows."""


def concat(batches: Sequence[Batch]) -> Batch:
    """Return the rows of several batches of one node and partition as one batch, without local columns.

    Rows are in the order of `encode`; equal (property, device) keep the order in which the batches were given.

    Raises:
        ValueError: they are of different nodes or partitions.
    """
    first = batches[0]
    if any(batch.node != first.node or batch.partition != first.partition for batch in batches):
        raise ValueError("batches of different nodes or partitions")
    if len(batches) == 1:
        return ordered(first.without_local())
    entries: dict[tuple[Any, ...], int] = {}
    origin_parts, property_parts, text = [], [], {}
    names: dict[tuple[str, str], int] = {}
    start = 0
    for batch in batches:
        place = np.array([entries.setdefault(key, len(entries)) for key in _entry_keys(batch.origins)], np.uint32)
        origin_parts.append(place[batch.origin] if len(batch) else np.empty(0, np.uint32))
        kinds = np.array([names.setdefault(name, len(names)) for name in batch.variables()], np.uint16)
        property_parts.append(kinds[batch.property] if len(batch) else np.empty(0, np.uint16))
        text.update({row + start: word for row, word in batch.text.items()})
        start += len(batch)
    columns = zip(*entries, strict=True) if entries else iter([()] * 8)
    device, division, department, domain, profile, lon, lat, grade = (list(column) for column in columns)
    joined = Batch(
        first.node,
        first.partition,
        Origins(
            device,
            WordColumn.of(division),
            WordColumn.of(department),
            WordColumn.of(domain),
            WordColumn.of(profile),
            np.array([np.nan if x is None else x for x in lon], np.float64),
            np.array([np.nan if x is None else x for x in lat], np.float64),
            np.array(grade, np.uint8),
        ),
        [name for name, _ in names],
        np.concatenate(origin_parts),
        np.concatenate(property_parts),
        np.concatenate([batch.time for batch in batches]),
        np.concatenate([batch.received for batch in batches]),
        np.concatenate([batch.value for batch in batches]),
        text,
        np.concatenate([batch.quality for batch in batches]),
        np.concatenate([batch.flags for batch in batches]),
        np.concatenate([batch.time_quality for batch in batches]),
        np.concatenate([batch.revision for batch in batches]),
        np.concatenate([batch.seq for batch in batches]),
        np.concatenate([batch.index for batch in batches]),
        channels=[channel for _, channel in names] if any(channel for _, channel in names) else [],
    )
    return ordered(joined)


def _entry_keys(origins: Origins) -> list[tuple[Any, ...]]:
    # NaN is not equal to itself, so an unknown position is None in the key.
    lon = [None if isnan(degrees) else degrees for degrees in origins.lon.tolist()]
    lat = [None if isnan(degrees) else degrees for degrees in origins.lat.tolist()]
    return list(
        zip(
            origins.device,
            origins.division.tolist(),
            origins.department.tolist(),
            origins.domain.tolist(),
            origins.profile.tolist(),
            lon,
            lat,
            origins.grade.tolist(),
            strict=True,
        )
    )


def ordered(batch: Batch) -> Batch:
    """Return the batch with tables sorted by name and rows sorted by (property, device), stable."""
    names, devices = batch.variables(), batch.origins.device
    names_sorted = all(a < b for a, b in itertools.pairwise(names))
    devices_sorted = all(a <= b for a, b in itertools.pairwise(devices))
    property_, origin = batch.property.astype(np.int64), batch.origin.astype(np.int64)
    entries = None
    if not names_sorted:
        order = sorted(range(len(names)), key=names.__getitem__)
        property_ = _ranks(order)[property_]
        names = [names[old] for old in order]
    if not devices_sorted:
        entries = np.array(sorted(range(len(devices)), key=devices.__getitem__), np.int64)
        origin = _ranks(entries)[origin]
    rank = (property_ << 32) | origin
    if names_sorted and devices_sorted and bool((rank[1:] >= rank[:-1]).all()):
        return batch
    rows: I64 = np.argsort(rank, kind="stable")
    local = batch.local
    return Batch(
        batch.node,
        batch.partition,
        batch.origins if entries is None else batch.origins.take(entries),
        [name for name, _ in names],
        origin[rows].astype(np.uint32),
        property_[rows].astype(np.uint16),
        batch.time[rows],
        batch.received[rows],
        batch.value[rows],
        _text_of(batch.text, rows, len(batch)),
        batch.quality[rows],
        batch.flags[rows],
        batch.time_quality[rows],
        batch.revision[rows],
        batch.seq[rows],
        batch.index[rows],
        None
        if local is None
        else LocalColumns(local.key[rows], local.path[rows], local.identity[rows], local.message[rows], local.digest),
        [channel for _, channel in names] if batch.channels else [],
    )


def _ranks(order: Any) -> I64:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place
