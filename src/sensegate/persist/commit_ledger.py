"""Computation of the ledger of a commit, vectorised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensegate.authority.index import DeviceIndex
from sensegate.bus import ledger as kinds
from sensegate.bus.ledger import Ledger
from sensegate.clock import HOUR_US
from sensegate.model import BOOL, I64, Delivery, Fields, Readings, RejectedValue
from sensegate.persist.duplicates import DedupResult
from sensegate.persist.identity import ACCEPTED, EQUAL, UNCHANGED, VERDICTS
from sensegate.persist.slices import BatchSlice
from sensegate.quantities.quality import Flag


class _Cells:
    """Counts per (hour and source, device)."""

    def __init__(self, devices: I64, ids: Sequence[str], places: Sequence[tuple[int, str]], place: I64) -> None:
        """Create the cells of `devices` (with `ids`); `places`: (hour, source) pairs; `place`: pair of each message."""
        self._lookup = np.full(int(devices[-1]) + 2 if len(devices) else 1, len(devices), np.int64)
        self._lookup[devices] = np.arange(len(devices))
        self._width = len(devices) + 1
        self.pairs = places
        """(hour, source) of each row of cells."""
        self.place = place
        self.ledger = Ledger()
        self._ids = self.ledger.device_numbers([*ids, ""])

    def count(self, kind: str, message: I64, device: I64, sign: int = 1) -> None:
        """Count each row as one of a kind; device -1: unknown. `sign` -1 takes them out again."""
        if not len(message):
            return
        # Index -1 finds the last element of the lookup, the column of unknown devices.
        cell = self._lookup[device]
        if len(self.pairs) > 1:
            cell = cell + self.place[message] * self._width
        counts = np.bincount(cell, minlength=self._width * len(self.pairs))
        for number, (hour, source) in enumerate(self.pairs):
            self.ledger.add_counts(
                hour, source, kind, self._ids, sign * counts[number * self._width : (number + 1) * self._width]
            )


_PARTS_OF_ACCEPTED = (
    (Flag.CONFLICT, kinds.CONFLICT),
    (Flag.LATE, kinds.LATE),
    (Flag.FUTURE, kinds.FUTURE),
    (Flag.NOT_DEDUPLICATED, kinds.NOT_DEDUPLICATED),
    (Flag.REDELIVERED, kinds.REDELIVERED),
)
"""Parts of the accepted readings that are counted separately, too."""


def _hours_and_sources(deliveries: Sequence[Delivery], received: I64) -> tuple[list[tuple[int, str]], I64]:
    """Return the (hour, source) pairs and the number of each message's pair."""
    hour = received // HOUR_US
    sources = sorted({delivery.source for delivery in deliveries})
    if len(sources) == 1 and int(hour.min()) == int(hour.max()):
        return [(int(hour[0]), sources[0])], np.zeros(len(received), np.int64)
    source = np.repeat(
        [sources.index(delivery.source) for delivery in deliveries], [len(delivery.messages) for delivery in deliveries]
    )
    different, place = np.unique(hour * len(sources) + source, return_inverse=True)
    pairs = [divmod(device, len(sources)) for device in different.tolist()]
    return [(first, sources[second]) for first, second in pairs], place.astype(np.int64)


def commit_ledger(part: BatchSlice, judgement: DedupResult, index: DeviceIndex) -> Ledger:
    """Return the ledger of a commit; `index`: of the device registry.

    Raises:
        Unbalanced: it does not balance, which is a bug.
    """
    cells, owner = _open_cells(part, part.messages.received, index)
    everyone, good = np.arange(len(owner)), np.ones(len(owner), np.bool_)
    fields = part.fields
    cells.count(kinds.MESSAGES, everyone, owner)
    for reason in sorted({message.reason for message in fields.quarantined}):
        messages = np.array([message.message for message in fields.quarantined if message.reason is reason], np.int64)
        good[messages] = False
        cells.count(f"{kinds.QUARANTINED}.{reason.value}", messages, owner[messages])
    for batch in fields.quarantined:
        if batch.count > 1:
            hour, source = cells.pairs[int(cells.place[batch.message])]
            for kind in (kinds.MESSAGES, f"{kinds.QUARANTINED}.{batch.reason.value}"):
                cells.ledger.add(hour, "", source, kind, batch.count - 1)
    cells.count(kinds.DECODED, everyone[good], owner[good])
    return _finish(cells, part, judgement)


def reprocessing_ledger(part: BatchSlice, judgement: DedupResult, index: DeviceIndex, now: int) -> Ledger:
    """Return the ledger of a commit of reprocessed messages, counted in the present hour.

    Raises:
        Unbalanced: it does not balance, which is a bug.
    """
    cells, owner = _open_cells(part, np.full(len(part.messages), now, np.int64), index)
    everyone, good = np.arange(len(owner)), np.ones(len(owner), np.bool_)
    good[[quarantined.message for quarantined in part.fields.quarantined]] = False
    was_quarantined = np.repeat(
        [delivery.recorded_in == "quarantine" for delivery in part.deliveries],
        [len(delivery.messages) for delivery in part.deliveries],
    )
    cells.count(kinds.REDECODED, everyone, owner)
    for kind, mask in (
        (kinds.STILL_REFUSED, ~good),
        (kinds.RECOVERED, good & was_quarantined),
        (kinds.REREAD, good & ~was_quarantined),
    ):
        cells.count(kind, everyone[mask], owner[mask])
    readings = part.readings
    for kind, rows in (
        (kinds.REVISED, np.flatnonzero(judgement.accepted & (judgement.revision > 0))),
        (kinds.ADDED, np.flatnonzero(judgement.accepted & (judgement.revision == 0))),
    ):
        cells.count(kind, readings.message[rows].astype(np.int64), readings.device[rows].astype(np.int64))
    return _finish(cells, part, judgement)


def _open_cells(piece: BatchSlice, counted: I64, index: DeviceIndex) -> tuple[_Cells, I64]:
    """Return the empty cells of a commit and the device of each message; `counted`: time under which it is counted."""
    ids = index.ids
    messages, fields = piece.messages, piece.fields
    rejected = [*fields.rejected, *piece.rejected]
    count = len(messages)
    pairs, place = _hours_and_sources(piece.deliveries, counted)
    # A message belongs to the device of its first value, even if that was rejected.
    owner = np.full(count, -1, np.int64)
    for message in fields.quarantined:
        owner[message.message] = message.device
    for value in reversed(rejected):
        owner[value.message] = value.device
    for group in reversed(fields.downsampled):
        owner[group.message] = group.device
    owner[fields.message[::-1]] = fields.device[::-1]
    seen = np.zeros(len(ids) + 1, np.bool_)
    seen[owner] = True
    seen[fields.device] = True
    seen[np.array([value.device for value in rejected], np.int64)] = True
    seen[np.array([group.device for group in fields.downsampled], np.int64)] = True
    devices = np.flatnonzero(seen[:-1])
    names = [ids[device] for device in devices.tolist()]
    cells = _Cells(devices, names, pairs, place)
    cells.ledger.set_places(names, _places_of_devices(devices, index))
    return cells, owner


def _finish(cells: _Cells, piece: BatchSlice, judgement: DedupResult) -> Ledger:
    """Count the values, check the balance, and return the ledger."""
    fields = piece.fields
    _count_values(cells, fields, [*fields.rejected, *piece.rejected])
    _count_readings(cells, piece.readings, judgement)
    if fields.downsampled:
        message = np.repeat(
            [group.message for group in fields.downsampled], [group.count for group in fields.downsampled]
        )
        device = np.repeat(
            [group.device for group in fields.downsampled], [group.count for group in fields.downsampled]
        )
        for kind in (kinds.VALUES, kinds.DOWNSAMPLED):
            cells.count(kind, message.astype(np.int64), device.astype(np.int64))
    for taken in fields.removed:
        hour, source = cells.pairs[int(cells.place[taken.message])]
        cells.ledger.add(hour, "", source, f"{kinds.REMOVED}.{taken.format}.{taken.field}", taken.count)
    if fields.ignored:
        hour, source = cells.pairs[0]
        cells.ledger.add(hour, "", source, kinds.IGNORED, fields.ignored)
    cells.ledger.check()
    return cells.ledger


def _places_of_devices(devices: I64, index: DeviceIndex) -> list[str]:
    """Return ``division`` or ``division/department`` of each device."""
    divisions, departments = index.divisions.all, index.departments.all
    pairs = zip(index.division[devices].tolist(), index.department[devices].tolist(), strict=True)
    return [
        f"{divisions[division]}/{departments[department]}" if departments[department] else divisions[division]
        for division, department in pairs
    ]


def _count_values(cells: _Cells, fields: Fields, rejected: Sequence[RejectedValue]) -> None:
    def columns(values: Sequence[RejectedValue]) -> tuple[I64, I64]:
        messages = np.array([value.message for value in values], np.int64)
        return messages, np.array([value.device for value in values], np.int64)

    message, device = columns(fields.rejected)  # these have no rows; values rejected by `normalise` have
    cells.count(
        kinds.VALUES,
        np.concatenate([fields.message.astype(np.int64), message]),
        np.concatenate([fields.device.astype(np.int64), device]),
    )
    for reason in sorted({value.reason for value in rejected}):
        cells.count(
            f"{kinds.REJECTED}.{reason.value}", *columns([value for value in rejected if value.reason is reason])
        )


def _count_readings(cells: _Cells, readings: Readings, judgement: DedupResult) -> None:
    def count(kind: str, mask: BOOL) -> None:
        rows = np.flatnonzero(mask)
        if rows.size:
            cells.count(kind, readings.message[rows].astype(np.int64), readings.device[rows].astype(np.int64))

    totals = np.bincount(judgement.kind, minlength=len(VERDICTS))
    for code, word in enumerate(VERDICTS):
        if totals[code]:
            if code == EQUAL:
                rows = np.flatnonzero(judgement.kind == code)
                message, device = readings.message[rows].astype(np.int64), readings.device[rows].astype(np.int64)
                cells.count(kinds.EQUAL, message, device)
                cells.count(kinds.VALUES, message, device, sign=-1)
                continue
            name = word if code == ACCEPTED else f"{kinds.SUPPRESSED if code == UNCHANGED else kinds.DUPLICATE}.{word}"
            count(name, judgement.kind == code)
    keep = judgement.accepted
    marked = int(np.bitwise_or.reduce(judgement.flags)) if len(judgement.flags) else 0
    for flag, name in _PARTS_OF_ACCEPTED:
        if marked & flag:
            count(name, keep & ((judgement.flags & np.uint32(flag)) != 0))
