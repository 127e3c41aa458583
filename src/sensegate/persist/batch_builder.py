"""Building of the batches of the log from accepted readings, one per (city, grade)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from sensegate.authority.index import DeviceIndex
from sensegate.bus.columns import Batch, LocalColumns, Origins, WordColumn
from sensegate.model import I32, I64, U32, U64, Readings
from sensegate.persist.duplicates import DedupResult
from sensegate.persist.identity import SpecColumns
from sensegate.quantities.sorting import radix_argsort

_PLACE = 1e7


class CommitOrigin(msgspec.Struct, frozen=True):
    """Fields common to all batches of a commit."""

    node: str
    partition: int


class JudgedReadings(msgspec.Struct, frozen=True, eq=False):
    """Readings with the result of their deduplication and the digests of their messages."""

    readings: Readings
    judgement: DedupResult
    digest: U64


class _Entries(msgspec.Struct, frozen=True, eq=False):
    """The (device, profile) pairs of the rows, ordered by group, then device id."""

    device: I64
    profile: I64
    group: I64
    """Group of each entry: city * 256 + grade."""
    of_row: I64


def _entries(device: I32, profile: I64, index: DeviceIndex, *, single_group: bool) -> _Entries:
    size = len(index)
    profiles = int(profile.max()) + 1
    seen = np.zeros(size, np.bool_)
    seen[device] = True
    devices = np.flatnonzero(seen)
    # Of the columns by device only the elements of `devices` are written and read.
    by_device = np.empty(size, np.int64)
    by_device[device] = profile
    if bool((by_device[device] == profile).all()):
        code = devices * profiles + by_device[devices]
        place = None
    else:
        code, place = np.unique(device.astype(np.int64) * profiles + profile, return_inverse=True)
        devices = code // profiles
    group = np.zeros(len(code), np.int64)
    if not single_group:
        group = index.city[devices].astype(np.int64) * 256 + index.grade[devices]
    order = radix_argsort((group << size.bit_length()) | index.ranks(devices))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    if place is None:
        lookup = np.empty(size, np.int64)
        lookup[devices] = rank
        of_row = lookup[device]
    else:
        of_row = rank[place]
    return _Entries(devices[order], (code % profiles)[order], group[order], of_row)


def build_batches(
    judged: JudgedReadings,
    rows: I64,
    specs: SpecColumns,
    index: DeviceIndex,
    commit_origin: CommitOrigin,
    *,
    single_group: bool = False,
) -> Iterator[tuple[int, Batch]]:
    """Yield (group, batch) of the given rows, in the order of `bus.columns`; `single_group`: all in group 0."""
    if not rows.size:
        return
    readings = judged.readings
    spec = readings.spec[rows]
    variable = specs.variable.take(spec)
    entries = _entries(readings.device[rows], specs.profile.take(spec), index, single_group=single_group)
    count = len(entries.group)
    borders = np.flatnonzero(entries.group[1:] != entries.group[:-1]) + 1
    # Rows in order of (group, variable, entry, arrival); entries are numbered by group.
    place = variable * count
    place += entries.of_row
    if borders.size:
        of_group = np.zeros(count, np.int64)
        of_group[borders] = len(specs.names) * count
        place += np.cumsum(of_group)[entries.of_row]
    order = radix_argsort(place)
    rows, variable, origin = rows[order], variable[order], entries.of_row[order]
    entry_limits = [0, *borders.tolist(), count]
    rows_before = np.cumsum(np.bincount(entries.of_row, minlength=count)) if borders.size else [len(rows)]
    start = 0
    for first, last in itertools.pairwise(entry_limits):
        group_number = int(entries.group[first])
        end = int(rows_before[last - 1]) if borders.size else len(rows)
        origins = _origins(entries.device[first:last], entries.profile[first:last], specs, index)
        where = (origin[start:end] - first).astype(np.uint32)
        yield (
            group_number,
            _batch(
                judged,
                rows[start:end],
                variable[start:end],
                where,
                origins,
                names=specs.names,
                commit_origin=commit_origin,
            ),
        )
        start = end


def _batch(
    judged: JudgedReadings,
    rows: I64,
    variable: I64,
    origin: U32,
    origins: Origins,
    *,
    names: list[tuple[str, str]],
    commit_origin: CommitOrigin,
) -> Batch:
    readings, judgement, digest = judged.readings, judged.judgement, judged.digest
    is_next = np.empty(len(variable), np.bool_)
    is_next[0] = False
    np.not_equal(variable[1:], variable[:-1], out=is_next[1:])
    pairs = [names[pair] for pair in (int(variable[0]), *variable[is_next].tolist())]
    message = readings.message[rows]
    messages = np.flatnonzero(np.bincount(message, minlength=len(digest)))
    place = np.zeros(len(digest), np.uint32)
    place[messages] = np.arange(len(messages))
    text: dict[int, str] = {}
    if readings.text:
        text_rows = np.fromiter(readings.text, np.int64, len(readings.text))
        back = np.full(len(readings), -1, np.int64)
        back[rows] = np.arange(len(rows))
        words = zip(back[text_rows].tolist(), readings.text.values(), strict=True)
        text = {row: word for row, word in words if row >= 0}
    zeros = np.zeros(len(rows), np.int64)
    return Batch(
        commit_origin.node,
        commit_origin.partition,
        origins,
        [name for name, _ in pairs],
        origin,
        np.cumsum(is_next, dtype=np.uint16),
        readings.time[rows],
        readings.received[rows] // 1_000 * 1_000,
        readings.value[rows],
        text,
        readings.quality[rows],
        judgement.flags[rows],
        readings.time_quality[rows],
        judgement.revision[rows],
        zeros,
        zeros.astype(np.uint32),
        LocalColumns(
            readings.key[rows],
            readings.path[rows],
            judgement.identity[rows],
            place[message],
            digest[messages],
        ),
        [channel for _, channel in pairs] if any(channel for _, channel in pairs) else [],
    )


def _origins(device: I64, profile: I64, specs: SpecColumns, index: DeviceIndex) -> Origins:
    ids = index.ids
    return Origins(
        [ids[number] for number in device.tolist()],
        _word_column(index.division[device], index.divisions.all),
        _word_column(index.department[device], index.departments.all),
        _word_column(index.domain[device], index.domains.all),
        _word_column(profile, specs.profiles),
        np.rint(index.lon[device] * _PLACE) / _PLACE,
        np.rint(index.lat[device] * _PLACE) / _PLACE,
        index.grade[device],
    )


def _word_column(code: I64 | I32, table: Sequence[str]) -> WordColumn:
    used = np.flatnonzero(np.bincount(code)).tolist()
    if len(used) == 1:
        return WordColumn([table[used[0]]], np.zeros(len(code), np.uint16))
    used.sort(key=table.__getitem__)
    place = np.empty(max(used) + 1, np.uint16)
    place[used] = np.arange(len(used))
    return WordColumn([table[index] for index in used], place[code])
