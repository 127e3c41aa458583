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
    by_device = np.zeros(size, np.int64)
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
    ids = index.ids
    names = [(number, ids[device]) for number, device in zip(group.tolist(), devices.tolist(), strict=True)]
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    if place is None:
        lookup = np.zeros(size, np.int64)
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
    group = entries.group[entries.of_row]
    order = _sorted(group, variable, entries.of_row)
    rows, variable, origin, group = rows[order], variable[order], entries.of_row[order], group[order]
    limits = [0, *(np.flatnonzero(group[1:] != group[:-1]) + 1).tolist(), len(rows)]
    for start, end in itertools.pairwise(limits):
        group_number = int(group[start])
        first, last = np.searchsorted(entries.group, [group_number, group_number + 1]).tolist()
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


def _sorted(group: I64, variable: I64, entry: I64) -> I64:
    """Return the rows in order of (group, variable, entry, arrival)."""
    order = radix_argsort(entry)  # entries are numbered by group: this is also the order of the groups
    place = variable[order]
    group = group[order]
    place[1:] += np.cumsum(group[1:] != group[:-1]) * (int(variable.max()) + 1)
    return order[radix_argsort(place)]


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
    used = np.flatnonzero(np.bincount(variable, minlength=len(names)))
    kind = np.zeros(len(names), np.uint16)
    kind[used] = np.arange(len(used))
    pairs = [names[pair] for pair in used.tolist()]
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
        kind[variable],
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
    used.sort(key=table.__getitem__)
    place = np.zeros(int(code.max()) + 1, np.uint16)
    place[used] = np.arange(len(used))
    return WordColumn([table[index] for index in used], place[code])
