"""The ledger of one commit, counted in columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sensegate.authority.index import DeviceIndex
from sensegate.bus import ledger as kinds
from sensegate.bus.ledger import HOUR_US, Ledger
from sensegate.model import BOOL, I64, Delivery, Fields, Readings, RejectedValue
from sensegate.persist.duplicates import Judgement
from sensegate.persist.identity import ACCEPTED, UNCHANGED, VERDICTS
from sensegate.persist.slices import Slice
from sensegate.quantities.quality import Flag


class _Cells:
    """Counts by (hour and source, device): one number a cell."""

    def __init__(self, devices: I64, ids: Sequence[str], places: Sequence[tuple[int, str]], place: I64) -> None:
        """Take the devices that may occur, their ids, the (hour, source) pairs, and each message's pair."""
        self._lookup = np.full(int(devices[-1]) + 2 if len(devices) else 1, len(devices), np.int64)
        self._lookup[devices] = np.arange(len(devices))
        self._width = len(devices) + 1
        self.pairs = places
        """(hour, source) of each row of cells."""
        self.place = place
        self.ledger = Ledger()
        self._ids = self.ledger.places([*ids, ""])

    def count(self, kind: str, message: I64, device: I64) -> None:
        """Count one of a kind for each row; device -1 is not known."""
        if not len(message):
            return
        # The last element of the lookup is what -1 finds: the column of those not known.
        cell = self._lookup[device]
        if len(self.pairs) > 1:
            cell = cell + self.place[message] * self._width
        counts = np.bincount(cell, minlength=self._width * len(self.pairs))
        for number, (hour, source) in enumerate(self.pairs):
            self.ledger.add_counts(
                hour, source, kind, self._ids, counts[number * self._width : (number + 1) * self._width]
            )


_PARTS = (
    (Flag.CONFLICT, kinds.CONFLICT),
    (Flag.LATE, kinds.LATE),
    (Flag.FUTURE, kinds.FUTURE),
    (Flag.NOT_DEDUPLICATED, kinds.NOT_DEDUPLICATED),
)
"""Parts of what was accepted, counted beside it."""


def _places(deliveries: Sequence[Delivery], received: I64) -> tuple[list[tuple[int, str]], I64]:
    """Return the (hour, source) pairs and the number of each message's pair."""
    hour = received // HOUR_US
    sources = sorted({delivery.source for delivery in deliveries})
    if len(sources) == 1 and int(hour.min()) == int(hour.max()):
        return [(int(hour[0]), sources[0])], np.zeros(len(received), np.int64)
    source = np.repeat(
        [sources.index(delivery.source) for delivery in deliveries], [len(one.messages) for one in deliveries]
    )
    different, place = np.unique(hour * len(sources) + source, return_inverse=True)
    pairs = [divmod(one, len(sources)) for one in different.tolist()]
    return [(first, sources[second]) for first, second in pairs], place.astype(np.int64)


def tally(piece: Slice, judgement: Judgement, index: DeviceIndex) -> Ledger:
    """Return the ledger of a commit; `index` is the registry's.

    Raises:
        Unbalanced: if it does not balance: a bug.
    """
    cells, owner = _open(piece, piece.messages.received, index)
    everyone, good = np.arange(len(owner)), np.ones(len(owner), np.bool_)
    fields = piece.fields
    cells.count(kinds.MESSAGES, everyone, owner)
    for reason in sorted({one.reason for one in fields.quarantined}):
        some = np.array([one.message for one in fields.quarantined if one.reason is reason], np.int64)
        good[some] = False
        cells.count(f"{kinds.QUARANTINED}.{reason.value}", some, owner[some])
    cells.count(kinds.DECODED, everyone[good], owner[good])
    return _closed(cells, piece, judgement)


def tally_again(piece: Slice, judgement: Judgement, index: DeviceIndex, now: int) -> Ledger:
    """Return the ledger of a commit of messages decoded once more, counted in the hour in which that is done.

    Raises:
        Unbalanced: if it does not balance: a bug.
    """
    cells, owner = _open(piece, np.full(len(piece.messages), now, np.int64), index)
    everyone, good = np.arange(len(owner)), np.ones(len(owner), np.bool_)
    good[[one.message for one in piece.fields.quarantined]] = False
    kept = np.repeat(
        [one.again == "quarantine" for one in piece.deliveries], [len(one.messages) for one in piece.deliveries]
    )
    cells.count(kinds.REDECODED, everyone, owner)
    for kind, some in (
        (kinds.STILL_REFUSED, ~good),
        (kinds.RECOVERED, good & kept),
        (kinds.REREAD, good & ~kept),
    ):
        cells.count(kind, everyone[some], owner[some])
    readings = piece.readings
    for kind, rows in (
        (kinds.REVISED, np.flatnonzero(judgement.keep & (judgement.revision > 0))),
        (kinds.ADDED, np.flatnonzero(judgement.keep & (judgement.revision == 0))),
    ):
        cells.count(kind, readings.message[rows].astype(np.int64), readings.device[rows].astype(np.int64))
    return _closed(cells, piece, judgement)


def _open(piece: Slice, counted: I64, index: DeviceIndex) -> tuple[_Cells, I64]:
    """Return the empty cells of a commit, and the device to which each message belongs; `counted`: when it counts."""
    ids = index.ids
    messages, fields = piece.messages, piece.fields
    rejected = [*fields.rejected, *piece.rejected]
    count = len(messages)
    pairs, place = _places(piece.deliveries, counted)
    # A message belongs to the device of its first value, whatever became of it.
    owner = np.full(count, -1, np.int64)
    for one in fields.quarantined:
        owner[one.message] = one.device
    for lost in reversed(rejected):
        owner[lost.message] = lost.device
    for left in reversed(fields.thinned):
        owner[left.message] = left.device
    owner[fields.message[::-1]] = fields.device[::-1]
    seen = np.zeros(len(ids) + 1, np.bool_)
    seen[owner] = True
    seen[fields.device] = True
    seen[np.array([lost.device for lost in rejected], np.int64)] = True
    seen[np.array([left.device for left in fields.thinned], np.int64)] = True
    devices = np.flatnonzero(seen[:-1])
    names = [ids[device] for device in devices.tolist()]
    cells = _Cells(devices, names, pairs, place)
    cells.ledger.locate(names, _where(devices, index))
    return cells, owner


def _closed(cells: _Cells, piece: Slice, judgement: Judgement) -> Ledger:
    """Return the ledger with the values counted too; it balances."""
    fields = piece.fields
    _count_values(cells, fields, [*fields.rejected, *piece.rejected])
    _count_readings(cells, piece.readings, judgement)
    if fields.thinned:
        message = np.repeat([one.message for one in fields.thinned], [one.count for one in fields.thinned])
        device = np.repeat([one.device for one in fields.thinned], [one.count for one in fields.thinned])
        for kind in (kinds.VALUES, kinds.THINNED):
            cells.count(kind, message.astype(np.int64), device.astype(np.int64))
    for taken in fields.removed:
        hour, source = cells.pairs[int(cells.place[taken.message])]
        cells.ledger.add(hour, "", source, f"{kinds.REMOVED}.{taken.format}.{taken.field}", taken.count)
    if fields.ignored:
        hour, source = cells.pairs[0]
        cells.ledger.add(hour, "", source, kinds.IGNORED, fields.ignored)
    cells.ledger.check()
    return cells.ledger


def _where(devices: I64, index: DeviceIndex) -> list[str]:
    """Return ``division`` or ``division/department`` of each device."""
    divisions, departments = index.divisions.all, index.departments.all
    pairs = zip(index.division[devices].tolist(), index.department[devices].tolist(), strict=True)
    return [
        f"{divisions[division]}/{departments[department]}" if departments[department] else divisions[division]
        for division, department in pairs
    ]


def _count_values(cells: _Cells, fields: Fields, rejected: Sequence[RejectedValue]) -> None:
    def of(lost: Sequence[RejectedValue]) -> tuple[I64, I64]:
        return np.array([one.message for one in lost], np.int64), np.array([one.device for one in lost], np.int64)

    message, device = of(fields.rejected)  # these are no rows; those that normalise rejects are
    cells.count(
        kinds.VALUES,
        np.concatenate([fields.message.astype(np.int64), message]),
        np.concatenate([fields.device.astype(np.int64), device]),
    )
    for reason in sorted({lost.reason for lost in rejected}):
        cells.count(f"{kinds.REJECTED}.{reason.value}", *of([lost for lost in rejected if lost.reason is reason]))


def _count_readings(cells: _Cells, readings: Readings, judgement: Judgement) -> None:
    def count(kind: str, mask: BOOL) -> None:
        rows = np.flatnonzero(mask)
        if rows.size:
            cells.count(kind, readings.message[rows].astype(np.int64), readings.device[rows].astype(np.int64))

    found = np.bincount(judgement.kind, minlength=len(VERDICTS))
    for code, word in enumerate(VERDICTS):
        if found[code]:
            name = word if code == ACCEPTED else f"{kinds.SUPPRESSED if code == UNCHANGED else kinds.DUPLICATE}.{word}"
            count(name, judgement.kind == code)
    keep = judgement.keep
    marked = int(np.bitwise_or.reduce(judgement.flags)) if len(judgement.flags) else 0
    for flag, name in _PARTS:
        if marked & flag:
            count(name, keep & ((judgement.flags & np.uint32(flag)) != 0))
