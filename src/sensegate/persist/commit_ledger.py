"""Computation of the ledger of a commit, vectorised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensegate.authority.index import DeviceIndex
from sensegate.bus import ledger as kinds
from sensegate.bus.ledger import Ledger
from sensegate.clock import HOUR_US
from sensegate.model import I32, I64, Delivery, Fields, Readings, RejectedValue
from sensegate.persist.duplicates import DedupResult
from sensegate.persist.identity import ACCEPTED, EQUAL, UNCHANGED, VERDICTS
from sensegate.persist.slices import BatchSlice
from sensegate.quantities.quality import Flag


class _Cells:
    """Counts per (hour and source, device) of each kind."""

    def __init__(self, devices: I64, index: DeviceIndex, places: Sequence[tuple[int, str]], place: I64) -> None:
        """Create the cells of `devices`; `places`: (hour, source) pairs; `place`: pair of each message."""
        # The last column is that of unknown devices: index -1 finds it in the lookup.
        self._width = len(devices) + 1
        self._lookup = np.full(int(devices[-1]) + 2 if len(devices) else 1, len(devices), np.int64)
        self._lookup[devices] = np.arange(len(devices))
        self.pairs = places
        """(hour, source) of each row of cells."""
        self.place = place
        ids = index.ids
        names = [*map(ids.__getitem__, devices.tolist()), ""]
        self.ledger = Ledger.of_devices(names, *_places_of_devices(devices, index))
        self._counts: dict[str, I64] = {}

    def cells(self, message: I32 | I64, device: I32 | I64) -> I64:
        """Return the cell of each row; device -1: unknown."""
        cell: I64 = self._lookup[device]
        if len(self.pairs) > 1:
            cell += self.place[message] * self._width
        return cell

    def count(self, kind: str, cells: I64, sign: int = 1) -> None:
        """Count each row as one of a kind; `sign` -1 takes them out."""
        if not len(cells):
            return
        counts = np.bincount(cells, minlength=self._width * len(self.pairs))
        if sign < 0:
            counts = -counts
        if (known := self._counts.get(kind)) is not None:
            counts = counts + known
        self._counts[kind] = counts

    def finish(self) -> Ledger:
        """Return the ledger with what was counted."""
        ledger = self.ledger
        counts = np.array(list(self._counts.values()), np.int64).reshape(len(self._counts), -1)
        row, cell = np.nonzero(counts)
        kinds = np.array([ledger.kind_number(kind) for kind in self._counts], np.int64)
        hours = np.array([hour for hour, _ in self.pairs], np.int64)
        sources = np.array([ledger.source_number(source) for _, source in self.pairs], np.int64)
        if len(self.pairs) == 1:
            ledger.add_cells(hours, sources, kinds[row], cell, counts[row, cell])
        else:
            pair, device = np.divmod(cell, self._width)
            ledger.add_cells(hours[pair], sources[pair], kinds[row], device, counts[row, cell])
        return ledger


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
    fields = part.fields
    cells.count(kinds.MESSAGES, owner)
    good = owner
    if fields.quarantined:
        is_good = np.ones(len(owner), np.bool_)
        for reason in sorted({message.reason for message in fields.quarantined}):
            messages = np.array(
                [message.message for message in fields.quarantined if message.reason is reason], np.int64
            )
            is_good[messages] = False
            cells.count(f"{kinds.QUARANTINED}.{reason.value}", owner[messages])
        for batch in fields.quarantined:
            if batch.count > 1:
                hour, source = cells.pairs[int(cells.place[batch.message])]
                for kind in (kinds.MESSAGES, f"{kinds.QUARANTINED}.{batch.reason.value}"):
                    cells.ledger.add(hour, "", source, kind, batch.count - 1)
        good = owner[is_good]
    cells.count(kinds.DECODED, good)
    return _finish(cells, part, judgement)


def reprocessing_ledger(part: BatchSlice, judgement: DedupResult, index: DeviceIndex, now: int) -> Ledger:
    """Return the ledger of a commit of reprocessed messages, counted in the present hour.

    Raises:
        Unbalanced: it does not balance, which is a bug.
    """
    cells, owner = _open_cells(part, np.full(len(part.messages), now, np.int64), index)
    good = np.ones(len(owner), np.bool_)
    good[[quarantined.message for quarantined in part.fields.quarantined]] = False
    was_quarantined = np.repeat(
        [delivery.recorded_in == "quarantine" for delivery in part.deliveries],
        [len(delivery.messages) for delivery in part.deliveries],
    )
    cells.count(kinds.REDECODED, owner)
    for kind, mask in (
        (kinds.STILL_REFUSED, ~good),
        (kinds.RECOVERED, good & was_quarantined),
        (kinds.REREAD, good & ~was_quarantined),
    ):
        cells.count(kind, owner[mask])
    readings = part.readings
    for kind, rows in (
        (kinds.REVISED, np.flatnonzero(judgement.accepted & (judgement.revision > 0))),
        (kinds.ADDED, np.flatnonzero(judgement.accepted & (judgement.revision == 0))),
    ):
        cells.count(kind, cells.cells(readings.message[rows], readings.device[rows]))
    return _finish(cells, part, judgement)


def _open_cells(piece: BatchSlice, counted: I64, index: DeviceIndex) -> tuple[_Cells, I64]:
    """Return the empty cells of a commit and the cell of each message; `counted`: time under which it is counted."""
    messages, fields = piece.messages, piece.fields
    rejected = [*fields.rejected, *piece.rejected]
    count = len(messages)
    size = len(index)
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
    seen = np.zeros(size + 1, np.bool_)
    seen[owner] = True
    seen[fields.device] = True
    for more in (rejected, fields.downsampled):
        if more:
            seen[np.array([values.device for values in more], np.int64)] = True
    cells = _Cells(np.flatnonzero(seen[:-1]), index, pairs, place)
    return cells, cells.cells(np.arange(count), owner)


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
            cells.count(kind, cells.cells(message, device))
    for taken in fields.removed:
        hour, source = cells.pairs[int(cells.place[taken.message])]
        cells.ledger.add(hour, "", source, f"{kinds.REMOVED}.{taken.format}.{taken.field}", taken.count)
    if fields.ignored:
        hour, source = cells.pairs[0]
        cells.ledger.add(hour, "", source, kinds.IGNORED, fields.ignored)
    ledger = cells.finish()
    ledger.check()
    return ledger


def _places_of_devices(devices: I64, index: DeviceIndex) -> tuple[list[str], I64]:
    """Return the places (``division`` or ``division/department``) of devices: a table, an index for each device.

    A last element with an empty place stands for unknown devices.
    """
    divisions, departments = index.divisions.all, index.departments.all
    code = index.division[devices].astype(np.int64) * len(departments) + index.department[devices]
    different, place = np.unique(code, return_inverse=True)
    pairs = [divmod(pair, len(departments)) for pair in different.tolist()]
    table = [
        f"{divisions[division]}/{departments[department]}" if departments[department] else divisions[division]
        for division, department in pairs
    ]
    return [*table, ""], np.append(place, len(table))


def _count_values(cells: _Cells, fields: Fields, rejected: Sequence[RejectedValue]) -> None:
    def cells_of(values: Sequence[RejectedValue]) -> I64:
        messages = np.array([value.message for value in values], np.int64)
        return cells.cells(messages, np.array([value.device for value in values], np.int64))

    cells.count(kinds.VALUES, cells.cells(fields.message, fields.device))
    if fields.rejected:  # these have no rows; values rejected by `normalise` have
        cells.count(kinds.VALUES, cells_of(fields.rejected))
    for reason in sorted({value.reason for value in rejected}):
        cells.count(
            f"{kinds.REJECTED}.{reason.value}", cells_of([value for value in rejected if value.reason is reason])
        )


def _count_readings(cells: _Cells, readings: Readings, judgement: DedupResult) -> None:
    if not len(readings):
        return
    cell = cells.cells(readings.message, readings.device)
    totals = np.bincount(judgement.kind, minlength=len(VERDICTS)).tolist()
    for code, word in enumerate(VERDICTS):
        if not totals[code]:
            continue
        rows = cell if totals[code] == len(cell) else cell[judgement.kind == code]
        if code == EQUAL:
            cells.count(kinds.EQUAL, rows)
            cells.count(kinds.VALUES, rows, sign=-1)
            continue
        name = word if code == ACCEPTED else f"{kinds.SUPPRESSED if code == UNCHANGED else kinds.DUPLICATE}.{word}"
        cells.count(name, rows)
    marked = int(np.bitwise_or.reduce(judgement.flags))
    for flag, name in _PARTS_OF_ACCEPTED:
        if marked & flag:
            cells.count(name, cell[judgement.accepted & ((judgement.flags & np.uint32(flag)) != 0)])
