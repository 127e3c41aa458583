"""Checks of the parts that a member sends, before anything is written. Pure: no clock, no log, no network.

    payload ─▶ decoded within limits ─▶ source and names ─▶ devices ─▶ accepted: rows by grade
                                                                    └▶ refused: rows of some devices, with the reason

Rows are refused only if no table can hold them: they cannot be decoded, claim more rows than they have bytes, name
another node, lie outside the member's areas or belong to a device of another member. Rows that merely do not conform
(times, properties, profiles or quality codes that are not known here) are accepted and marked: a city with a wrong
clock keeps its readings of that day. A refusal covers the whole part or all rows of some devices in it, so that exactly
these can be sent again. Retention, roll-ups and fences are set by the centre and never read from a request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np

from sensegate.authority.device_rules import is_valid_id
from sensegate.bus import columns, ledger, sequences
from sensegate.bus.batch import Batch
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import ALARM_EVENTS, SHARED_KINDS
from sensegate.bus.packing import Oversized
from sensegate.errors import Unbalanced
from sensegate.model import BOOL, I64, U8
from sensegate.quantities.quality import TABLE, Flag, TimeQuality
from sensegate.tiers.protocol import PART_ROWS_MAX
from sensegate.tiers.verdict import (
    AcceptedRows,
    CheckedLedger,
    CheckedRows,
    CheckedSequences,
    DeviceOwnership,
    MemberFacts,
    Reason,
    Refusal,
    RowMark,
    Rules,
)

BYTES_MAX = 64 * 1024**2
"""Largest part of rows after decompression."""
LEDGER_BYTES_MAX = 16 * 1024**2
NAME_BYTES_MAX = 256
COUNT_MAX = 1 << 50
PARTITIONS = 1_000
GRADE_MAX = 4
AHEAD_US = 300_000_000
"""A time of arrival further ahead of the centre's clock is marked."""
TIME_MIN_US, TIME_MAX_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, which ISO 8601 and every downstream table can hold."""
_CONTROLS = frozenset(map(chr, (*range(32), 127)))


class _Refused(Exception):
    def __init__(self, reason: Reason, detail: str, rows: int = 0) -> None:
        self.reason, self.detail, self.rows = reason, detail, rows
        super().__init__(detail)

    def refusal(self, payload: bytes) -> Refusal:
        return Refusal(self.reason, self.detail[:200], self.rows, (), payload)


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────


def check_rows(
    payload: bytes,
    kind: str,
    grade: int,
    *,
    sender: MemberFacts,
    rules: Rules,
    now: int,
    only: Collection[str] | None = None,
) -> CheckedRows:
    """Check a part of readings, observations or events of alarms.

    Args:
        payload: a batch as `bus.columns` encodes it.
        kind: ``readings``, ``observations`` or ``alarms``.
        grade: classification level under which the member sends it.
        sender: the member, known by the account in which the request came.
        rules: against which the rows are checked.
        now: time of the centre, µs UTC.
        only: devices whose rows are checked where a part is sent again; the others were accepted before. None: all.
    """
    try:
        batch = _decode_batch(payload, kind, grade, sender)
    except _Refused as refused:
        return CheckedRows(refusals=(refused.refusal(payload),))
    if only is not None:
        batch = batch.take(_rows_of(batch, only))
    if not len(batch):
        return CheckedRows()
    # A gateway reports alarms under its own id, too: only readings make a member the owner of a device.
    refused_devices, claims = _judge_devices(batch, sender, rules.devices, may_claim=kind != ALARM_EVENTS)
    refusals = []
    accepted_rows = np.ones(len(batch), np.bool_)
    for reason, devices in refused_devices.items():
        rows = _rows_of(batch, devices)
        accepted_rows &= ~rows
        part = batch.take(rows)
        detail = f"{_DETAILS[reason]}: {_sample_of(devices)}"[:200]
        refusals.append(Refusal(reason, detail, len(part), tuple(devices), columns.encode(part)))
    batch = batch.take(accepted_rows)
    marks: dict[str, int] = {}
    accepted = tuple(
        AcceptedRows(kind, raised, part)
        for raised, part in _by_grade(_mark_rows(batch, kind, rules, now, marks), grade, rules, marks)
    )
    return CheckedRows(accepted, tuple(refusals), marks, tuple(claims))


_DETAILS = {
    Reason.NAME: "invalid device ids",
    Reason.AREA: "divisions outside the member's areas, of devices",
    Reason.FOREIGN_DEVICE: "devices that another member owns",
    Reason.DEVICE_LIMIT: "the member owns as many devices as it may; refused",
    Reason.TIME: "times outside the years 1 to 9999, of devices",
}


def _sample_of(names: Sequence[str]) -> str:
    """Return the first names as text for operators."""
    shown = ", ".join(repr(name[:40])[1:-1] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _decode_batch(payload: bytes, kind: str, grade: int, sender: MemberFacts) -> Batch:
    """Decode a part. Raises `_Refused` where it is refused as a whole."""
    if kind not in SHARED_KINDS or not 1 <= grade <= GRADE_MAX:
        raise _Refused(Reason.KIND, f"{kind[:20]!r} of grade {grade}; valid are {', '.join(SHARED_KINDS)}, 1 to 4")
    try:
        batch = columns.decode(payload, rows_max=PART_ROWS_MAX, bytes_max=BYTES_MAX).without_local()
    except Oversized as why:
        raise _Refused(Reason.OVERSIZED, str(why)) from why
    except ValueError as why:
        raise _Refused(Reason.UNREADABLE, str(why)) from why
    rows = len(batch)
    if batch.node != sender.node or not 0 <= batch.partition < PARTITIONS:
        detail = f"rows of {batch.node[:40]!r}, partition {batch.partition}; the member's node is {sender.node}"
        raise _Refused(Reason.FOREIGN_NODE, detail, rows)
    if rows and int(batch.seq.min()) < 1:
        raise _Refused(Reason.IDENTITY, "rows without the sequence of their first commit", rows)
    origins = batch.origins
    tables = (origins.division, origins.department, origins.domain, origins.profile)
    for names in (batch.properties, batch.channels, *(words.table for words in tables)):
        if wrong := next((name for name in names if not _storable(name)), None):
            raise _Refused(Reason.NAME, f"a name that cannot be stored: {wrong[:40]!r}", rows)
    return batch


def _storable(name: str) -> bool:
    return len(name) <= NAME_BYTES_MAX and len(name.encode()) <= NAME_BYTES_MAX and _CONTROLS.isdisjoint(name)


def _rows_of(batch: Batch, devices: Collection[str]) -> BOOL:
    """Return the mask of the rows of these devices."""
    selected = frozenset(devices)
    mask: BOOL = np.fromiter((device in selected for device in batch.origins.device), np.bool_, len(batch.origins))
    return mask[batch.origin]


def _judge_devices(
    batch: Batch, sender: MemberFacts, ownership: DeviceOwnership, *, may_claim: bool
) -> tuple[dict[Reason, list[str]], list[str]]:
    """Return (reason -> refused devices, devices that the member comes to own), each in order of id.

    Unless it `may_claim`, it comes to own none, and rows of devices without an owner count against no limit.
    """
    origins = batch.origins
    inside = [_within(code, sender.areas) for code in origins.division.table]
    division = origins.division.index.tolist()
    bad_times: set[int] = set(np.unique(batch.origin[_impossible_times(batch)]).tolist())
    verdicts: dict[str, Reason] = {}
    for entry in np.unique(batch.origin).tolist():
        device = origins.device[entry]
        if device in verdicts:
            continue
        if not is_valid_id(device):
            verdicts[device] = Reason.NAME
        elif not inside[division[entry]]:
            verdicts[device] = Reason.AREA
        elif entry in bad_times:
            verdicts[device] = Reason.TIME
    claims: list[str] = []
    room = ownership.room(sender.member)
    for device in sorted({origins.device[entry] for entry in np.unique(batch.origin).tolist()} - verdicts.keys()):
        if ownership.owner(device):
            if not ownership.may_send(sender.member, device):
                verdicts[device] = Reason.FOREIGN_DEVICE
        elif may_claim and len(claims) >= room:
            verdicts[device] = Reason.DEVICE_LIMIT
        elif may_claim:
            claims.append(device)
    refused: dict[Reason, list[str]] = {}
    for device in sorted(verdicts):
        refused.setdefault(verdicts[device], []).append(device)
    return refused, claims


def _within(code: str, areas: Sequence[str]) -> bool:
    """Return whether a division is one of the areas or lies in one (short codes)."""
    return code.isascii() and code.isdigit() and any(code.startswith(area) for area in areas)


def _impossible_times(batch: Batch) -> BOOL:
    """Return the mask of the rows with a time that no table can hold."""
    out = np.zeros(len(batch), np.bool_)
    for column in (batch.time, batch.received):
        out |= (column < TIME_MIN_US) | (column > TIME_MAX_US)
    return out


def _mark_rows(batch: Batch, kind: str, rules: Rules, now: int, marks: dict[str, int]) -> Batch:
    """Return the batch with flags and coordinates corrected; add its nonconformities to `marks`."""
    ahead = batch.received > now + AHEAD_US
    names = np.fromiter((not rules.knows_property(name) for name in batch.properties), np.bool_, len(batch.properties))
    profiles = batch.origins.profile
    unknown = np.fromiter((not rules.knows_profile(name) for name in profiles.table), np.bool_, len(profiles.table))
    codes = np.fromiter((code not in TABLE for code in range(256)), np.bool_, 256)
    places = _invalid_coordinates(batch)
    masks: dict[RowMark, BOOL] = {
        RowMark.CLOCK: ahead,
        RowMark.PROPERTY: names[batch.property] if len(names) else ahead,
        RowMark.PROFILE: unknown[profiles.index][batch.origin] if len(unknown) else ahead,
        RowMark.QUALITY: codes[batch.quality] | (batch.time_quality >= len(TimeQuality)),
        RowMark.PLACE: places[batch.origin] if len(places) else ahead,
    }
    if kind == ALARM_EVENTS:  # of no property of the table, and of a gateway that has no profile
        del masks[RowMark.PROPERTY], masks[RowMark.PROFILE]
    for mark, rows in masks.items():
        if count := int(rows.sum()):
            marks[mark] = marks.get(mark, 0) + count
    origins = batch.origins
    if places.any():
        lon, lat = (np.where(places, np.nan, degrees) for degrees in (origins.lon, origins.lat))
        origins = msgspec.structs.replace(origins, lon=lon, lat=lat)
    flags = np.where(ahead, batch.flags | np.uint32(Flag.CLOCK), batch.flags)
    return msgspec.structs.replace(batch, origins=origins, flags=flags)


def _invalid_coordinates(batch: Batch) -> BOOL:
    """Return the mask of the origins with invalid coordinates; NaN means that there are none."""
    lon, lat = batch.origins.lon, batch.origins.lat
    invalid: BOOL = (np.abs(lon) > 180) | (np.abs(lat) > 90)
    return invalid


def _by_grade(batch: Batch, grade: int, rules: Rules, marks: dict[str, int]) -> list[tuple[int, Batch]]:
    """Return the rows as (grade, rows) by the grade that they need, which is never lower than the stated one."""
    if not len(batch):
        return []
    needed = np.minimum(
        np.maximum(_floors(batch, rules.floor), np.maximum(batch.origins.grade[batch.origin], grade)), 4
    )
    if raised := int((needed > grade).sum()):
        marks[RowMark.GRADE] = marks.get(RowMark.GRADE, 0) + raised
    parts = []
    for level in np.unique(needed).tolist():
        part = batch.take(needed == level)
        origins = msgspec.structs.replace(part.origins, grade=np.full(len(part.origins), level, np.uint8))
        parts.append((level, msgspec.structs.replace(part, origins=origins)))
    return parts


def _floors(batch: Batch, floor: Callable[[str, str], int]) -> U8:
    """Return the least grade of each row, by its property and department."""
    department = batch.origins.department
    width = max(len(department.table), 1)
    code: I64 = batch.property.astype(np.int64) * width + department.index[batch.origin]
    pairs, inverse = np.unique(code, return_inverse=True)
    least = [floor(batch.properties[pair // width], department.table[pair % width]) for pair in pairs.tolist()]
    return np.clip(np.array(least, np.int64), 1, GRADE_MAX).astype(np.uint8)[inverse]


# ── ledgers and sequences ──────────────────────────────────────────────────────────────────────────────

_KINDS = frozenset(
    {
        ledger.MESSAGES, ledger.DECODED, ledger.QUARANTINED, ledger.VALUES, ledger.ACCEPTED, ledger.CONFLICT,
        ledger.LATE, ledger.FUTURE, ledger.NOT_DEDUPLICATED, ledger.REDELIVERED,
        ledger.IGNORED, ledger.DUPLICATE, ledger.SUPPRESSED,
        ledger.REJECTED, ledger.FORWARDED, ledger.WITHHELD, ledger.REDECODED, ledger.RECOVERED, ledger.REREAD,
        ledger.STILL_REFUSED, ledger.DOWNSAMPLED, ledger.REMOVED, ledger.RETURNED, ledger.MOVED_OUT, ledger.MOVED_IN,
        ledger.MOVED_FORCED, ledger.REVISED, ledger.ADDED, ledger.EQUAL, ledger.REFUSED_BY_CENTRE,
    }
)  # fmt: skip
_RELEASABLE = f"{ledger.WITHHELD}.mode"
"""The one kind whose count may be negative: rows withheld by mode orders are taken out when they are forwarded."""


def check_ledger(payload: bytes, *, sender: MemberFacts) -> CheckedLedger:
    """Check a ledger: ranges, and the balance of each hour, source and device; foreign divisions are removed."""
    try:
        counts = _decode_ledger(payload)
        marks = _check_counts(counts, sender)
    except _Refused as refused:
        return CheckedLedger(refusal=refused.refusal(payload))
    return CheckedLedger(counts, marks=marks)


def _decode_ledger(payload: bytes) -> Ledger:
    try:
        return Ledger.decode(payload, bytes_max=LEDGER_BYTES_MAX)
    except Oversized as why:
        raise _Refused(Reason.OVERSIZED, str(why)) from why
    except ValueError as why:
        raise _Refused(Reason.UNREADABLE, str(why)) from why


def _check_counts(counts: Ledger, sender: MemberFacts) -> dict[str, int]:
    """Check the counts and return the marks of the ledger. Raises `_Refused`."""
    devices, sources, kinds = counts.names()
    if wrong := next((name for names in (devices, sources, kinds) for name in names if not _storable(name)), None):
        raise _Refused(Reason.NAME, f"a name that cannot be stored: {wrong[:40]!r}")
    negative, greatest = counts.extremes()
    if any(kind != _RELEASABLE for kind in negative):
        raise _Refused(Reason.COUNT, f"negative counts of {_sample_of(negative)}")
    if greatest > COUNT_MAX:
        raise _Refused(Reason.COUNT, f"a count of {greatest}; at most {COUNT_MAX}")
    hours = counts.hours()
    if (
        len(hours) > ledger.ENTRY_HOURS_MAX
    ):  # each has an entry of its own in the hourly sums, which are written at once
        raise _Refused(Reason.COUNT, f"counts of {len(hours)} hours; at most {ledger.ENTRY_HOURS_MAX}")
    if hours and not 0 <= hours[0] <= hours[-1] < ledger.HOURS:
        raise _Refused(Reason.COUNT, f"counts of the hours {hours[0]} to {hours[-1]} since 1970")
    try:
        counts.check()
    except Unbalanced as why:
        raise _Refused(Reason.BALANCE, str(why)) from why
    # Counts of a device outside the areas stay, or nothing would balance; without its division nobody there sees them.
    marks = {
        RowMark.LEDGER_KIND: sum(kind.partition(".")[0] not in _KINDS for kind in kinds),
        RowMark.LEDGER_PLACE: counts.retain_places(lambda division: _within(division, sender.areas)),
    }
    return {mark: count for mark, count in marks.items() if count}


def check_sequences(payload: bytes) -> CheckedSequences:
    """Check the sequence numbers that devices gave their messages."""
    try:
        runs = sequences.decode(payload)
    except ValueError as why:
        return CheckedSequences(refusal=Refusal(Reason.UNREADABLE, str(why)[:200], payload=payload))
    if wrong := next((name for name in (runs.epoch, *runs.devices) if not _storable(name)), None):
        detail = f"a name that cannot be stored: {wrong[:40]!r}"
        return CheckedSequences(refusal=Refusal(Reason.NAME, detail, payload=payload))
    return CheckedSequences(runs)
