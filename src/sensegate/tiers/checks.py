"""Judge what a member sends, part by part, before anything of it is written. Pure: no clock, no log, no network.

    payload ─▶ decoded within limits ─▶ whose is it ─▶ which devices are refused ─▶ taken: rows by grade
                                                    └▶ refused: the rows of these devices, with the reason

Only what no table can hold is refused: what does not decode, claims more rows than it has bytes, is of another node,
lies outside the member's areas or is of a device that another member owns. What is merely odd (times, properties,
profiles or quality codes that are not known here) is taken and marked: a city with a wrong clock keeps its day.
A refusal concerns the whole part or all rows of some devices in it, so that it can be named, and sent again, exactly.
The life of a reading, roll-ups and the fence are the centre's own: nothing here looks for them in what was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np

from sensegate.authority.device_rules import good_id
from sensegate.bus import columns, ledger, sequences
from sensegate.bus.batch import Batch
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import ROW_KINDS
from sensegate.bus.packing import Oversized
from sensegate.errors import Unbalanced
from sensegate.model import BOOL, I64, U8
from sensegate.quantities.quality import TABLE, Flag, TimeQuality
from sensegate.tiers.verdict import (
    Checked,
    CheckedLedger,
    CheckedSequences,
    DeviceOwnership,
    Mark,
    MemberFacts,
    Reason,
    Refusal,
    Rules,
    Taken,
)

ROWS_MAX = 1 << 18
"""Most rows of a part: about 20 MB of columns in memory."""
BYTES_MAX = 64 * 1024**2
"""Largest batch of rows after decompression."""
LEDGER_BYTES_MAX = 16 * 1024**2
NAME_BYTES_MAX = 256
COUNT_MAX = 1 << 50
PARTITIONS = 1_000
GRADE_MAX = 4
AHEAD_US = 300_000_000
"""An arrival further ahead of the centre's clock is marked."""
TIME_MIN_US, TIME_MAX_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999: what ISO 8601, and every table downstream, can write."""
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
) -> Checked:
    """Judge a part of readings or observations.

    Args:
        payload: a batch as `bus.columns` encodes it.
        kind: ``readings`` or ``observations``.
        grade: that under which the member sends it.
        sender: the member, known by the account in which the request came.
        rules: what the rows are held against.
        now: the centre's clock, µs UTC.
        only: of a part that is sent again, the devices that were refused; rows of others were taken then. None: all.
    """
    try:
        batch = _whole(payload, kind, grade, sender)
    except _Refused as refused:
        return Checked(refusals=(refused.refusal(payload),))
    if only is not None:
        batch = batch.take(_rows_of(batch, only))
    if not len(batch):
        return Checked()
    refused_devices, claims = _judged_devices(batch, sender, rules.devices)
    refusals = []
    good = np.ones(len(batch), np.bool_)
    for reason, devices in refused_devices.items():
        rows = _rows_of(batch, devices)
        good &= ~rows
        part = batch.take(rows)
        detail = f"{_DETAILS[reason]}: {_named(devices)}"[:200]
        refusals.append(Refusal(reason, detail, len(part), tuple(devices), columns.encode(part)))
    batch = batch.take(good)
    marks: dict[str, int] = {}
    taken = tuple(
        Taken(kind, raised, part) for raised, part in _by_grade(_marked(batch, rules, now, marks), grade, rules, marks)
    )
    return Checked(taken, tuple(refusals), marks, tuple(claims))


_DETAILS = {
    Reason.NAME: "names that are no device ids",
    Reason.AREA: "divisions outside the member's areas, of devices",
    Reason.FOREIGN_DEVICE: "devices that another member owns",
    Reason.DEVICE_LIMIT: "the member owns as many devices as one may; not taken",
    Reason.TIME: "times outside the years 1 to 9999, of devices",
}


def _named(names: Sequence[str]) -> str:
    """Return some names for people."""
    shown = ", ".join(repr(name[:40])[1:-1] for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _whole(payload: bytes, kind: str, grade: int, sender: MemberFacts) -> Batch:
    """Return the batch of a part that is not to be refused as a whole. Raises `_Refused`."""
    if kind not in ROW_KINDS or not 1 <= grade <= GRADE_MAX:
        raise _Refused(Reason.KIND, f"{kind[:20]!r} of grade {grade}; known are {' and '.join(ROW_KINDS)}, 1 to 4")
    try:
        batch = columns.decode(payload, rows_max=ROWS_MAX, bytes_max=BYTES_MAX).without_local()
    except Oversized as why:
        raise _Refused(Reason.OVERSIZED, str(why)) from why
    except ValueError as why:
        raise _Refused(Reason.UNREADABLE, str(why)) from why
    rows = len(batch)
    if batch.node != sender.node or not 0 <= batch.partition < PARTITIONS:
        what = f"rows of {batch.node[:40]!r}, partition {batch.partition}; the member's node is {sender.node}"
        raise _Refused(Reason.FOREIGN_NODE, what, rows)
    if rows and int(batch.seq.min()) < 1:
        raise _Refused(Reason.IDENTITY, "rows without the sequence of their first commit", rows)
    origins = batch.origins
    tables = (origins.division, origins.department, origins.domain, origins.profile)
    for names in (batch.properties, batch.channels, *(words.table for words in tables)):
        if wrong := next((name for name in names if not _storable(name)), None):
            raise _Refused(Reason.NAME, f"a name that cannot be kept: {wrong[:40]!r}", rows)
    return batch


def _storable(name: str) -> bool:
    return len(name) <= NAME_BYTES_MAX and len(name.encode()) <= NAME_BYTES_MAX and _CONTROLS.isdisjoint(name)


def _rows_of(batch: Batch, devices: Collection[str]) -> BOOL:
    """Return which rows are of these devices."""
    wanted = frozenset(devices)
    mask: BOOL = np.fromiter((device in wanted for device in batch.origins.device), np.bool_, len(batch.origins))
    return mask[batch.origin]


def _judged_devices(
    batch: Batch, sender: MemberFacts, ownership: DeviceOwnership
) -> tuple[dict[Reason, list[str]], list[str]]:
    """Return (reason -> devices that are refused, devices that become the member's), each in order of id."""
    origins = batch.origins
    inside = [_within(code, sender.areas) for code in origins.division.table]
    division = origins.division.index.tolist()
    odd_times: set[int] = set(np.unique(batch.origin[_impossible(batch)]).tolist())
    verdicts: dict[str, Reason] = {}
    for entry in np.unique(batch.origin).tolist():
        device = origins.device[entry]
        if device in verdicts:
            continue
        if not good_id(device):
            verdicts[device] = Reason.NAME
        elif not inside[division[entry]]:
            verdicts[device] = Reason.AREA
        elif entry in odd_times:
            verdicts[device] = Reason.TIME
    claims: list[str] = []
    room = ownership.room(sender.member)
    for device in sorted({origins.device[entry] for entry in np.unique(batch.origin).tolist()} - verdicts.keys()):
        if ownership.owner(device):
            if not ownership.may_send(sender.member, device):
                verdicts[device] = Reason.FOREIGN_DEVICE
        elif len(claims) >= room:
            verdicts[device] = Reason.DEVICE_LIMIT
        else:
            claims.append(device)
    refused: dict[Reason, list[str]] = {}
    for device in sorted(verdicts):
        refused.setdefault(verdicts[device], []).append(device)
    return refused, claims


def _within(code: str, areas: Sequence[str]) -> bool:
    """Return whether a division is one of the areas, or lies in one. Short codes."""
    return code.isascii() and code.isdigit() and any(code.startswith(area) for area in areas)


def _impossible(batch: Batch) -> BOOL:
    """Return which rows have a time that no table can write."""
    out = np.zeros(len(batch), np.bool_)
    for column in (batch.time, batch.received):
        out |= (column < TIME_MIN_US) | (column > TIME_MAX_US)
    return out


def _marked(batch: Batch, rules: Rules, now: int, marks: dict[str, int]) -> Batch:
    """Return the batch with what is odd about it marked, and counted in `marks`."""
    ahead = batch.received > now + AHEAD_US
    names = np.fromiter((not rules.knows_property(name) for name in batch.properties), np.bool_, len(batch.properties))
    profiles = batch.origins.profile
    unknown = np.fromiter((not rules.knows_profile(name) for name in profiles.table), np.bool_, len(profiles.table))
    codes = np.fromiter((code not in TABLE for code in range(256)), np.bool_, 256)
    places = _no_places(batch)
    found: dict[Mark, BOOL] = {
        Mark.CLOCK: ahead,
        Mark.PROPERTY: names[batch.property] if len(names) else ahead,
        Mark.PROFILE: unknown[profiles.index][batch.origin] if len(unknown) else ahead,
        Mark.QUALITY: codes[batch.quality] | (batch.time_quality >= len(TimeQuality)),
        Mark.PLACE: places[batch.origin] if len(places) else ahead,
    }
    for mark, rows in found.items():
        if count := int(rows.sum()):
            marks[mark] = marks.get(mark, 0) + count
    origins = batch.origins
    if places.any():
        lon, lat = (np.where(places, np.nan, degrees) for degrees in (origins.lon, origins.lat))
        origins = msgspec.structs.replace(origins, lon=lon, lat=lat)
    flags = np.where(ahead, batch.flags | np.uint32(Flag.CLOCK), batch.flags)
    return msgspec.structs.replace(batch, origins=origins, flags=flags)


def _no_places(batch: Batch) -> BOOL:
    """Return which devices have coordinates that are none; NaN is no place, and none that is wrong."""
    lon, lat = batch.origins.lon, batch.origins.lat
    wrong: BOOL = (np.abs(lon) > 180) | (np.abs(lat) > 90)
    return wrong


def _by_grade(batch: Batch, grade: int, rules: Rules, marks: dict[str, int]) -> list[tuple[int, Batch]]:
    """Return the rows by the grade that they must have, as (grade, rows): never a lower one than was said."""
    if not len(batch):
        return []
    needed = np.minimum(
        np.maximum(_floors(batch, rules.floor), np.maximum(batch.origins.grade[batch.origin], grade)), 4
    )
    if raised := int((needed > grade).sum()):
        marks[Mark.GRADE] = marks.get(Mark.GRADE, 0) + raised
    parts = []
    for level in np.unique(needed).tolist():
        part = batch.take(needed == level)
        origins = msgspec.structs.replace(part.origins, grade=np.full(len(part.origins), level, np.uint8))
        parts.append((level, msgspec.structs.replace(part, origins=origins)))
    return parts


def _floors(batch: Batch, floor: Callable[[str, str], int]) -> U8:
    """Return per row the least grade of its property and department."""
    department = batch.origins.department
    wide = max(len(department.table), 1)
    code: I64 = batch.property.astype(np.int64) * wide + department.index[batch.origin]
    pairs, inverse = np.unique(code, return_inverse=True)
    least = [floor(batch.properties[pair // wide], department.table[pair % wide]) for pair in pairs.tolist()]
    return np.clip(np.array(least, np.int64), 1, GRADE_MAX).astype(np.uint8)[inverse]


# ── counts and numbers ───────────────────────────────────────────────────────────────────────────────

_KINDS = frozenset(
    {
        ledger.MESSAGES, ledger.DECODED, ledger.QUARANTINED, ledger.VALUES, ledger.ACCEPTED, ledger.CONFLICT,
        ledger.LATE, ledger.FUTURE, ledger.NOT_DEDUPLICATED, ledger.IGNORED, ledger.DUPLICATE, ledger.SUPPRESSED,
        ledger.REJECTED, ledger.FORWARDED, ledger.WITHHELD, ledger.REDECODED, ledger.RECOVERED, ledger.REREAD,
        ledger.STILL_REFUSED, ledger.DOWNSAMPLED, ledger.REMOVED, ledger.RETURNED, ledger.MOVED_OUT, ledger.MOVED_IN,
        ledger.MOVED_FORCED, ledger.REVISED, ledger.ADDED, ledger.REFUSED_BY_CENTRE,
    }
)  # fmt: skip
_RELEASABLE = f"{ledger.WITHHELD}.mode"
"""What mode orders kept back is taken from it once it came up: the one kind whose count may be negative."""


def check_ledger(payload: bytes, *, sender: MemberFacts) -> CheckedLedger:
    """Judge a ledger: counts in range, the balance of each hour, source and device; places elsewhere are left out."""
    try:
        counts = _decoded_ledger(payload)
        marks = _demand_sane(counts, sender)
    except _Refused as refused:
        return CheckedLedger(refusal=refused.refusal(payload))
    return CheckedLedger(counts, marks=marks)


def _decoded_ledger(payload: bytes) -> Ledger:
    try:
        return Ledger.decode(payload, bytes_max=LEDGER_BYTES_MAX)
    except Oversized as why:
        raise _Refused(Reason.OVERSIZED, str(why)) from why
    except ValueError as why:
        raise _Refused(Reason.UNREADABLE, str(why)) from why


def _demand_sane(counts: Ledger, sender: MemberFacts) -> dict[str, int]:
    """Return the marks of a ledger that may be added to the sums. Raises `_Refused`."""
    devices, sources, kinds = counts.names()
    if wrong := next((name for names in (devices, sources, kinds) for name in names if not _storable(name)), None):
        raise _Refused(Reason.NAME, f"a name that cannot be kept: {wrong[:40]!r}")
    negative, greatest = counts.extremes()
    if any(kind != _RELEASABLE for kind in negative):
        raise _Refused(Reason.COUNT, f"negative counts of {_named(negative)}")
    if greatest > COUNT_MAX:
        raise _Refused(Reason.COUNT, f"a count of {greatest}; at most {COUNT_MAX}")
    hours = counts.hours()
    if hours and not 0 <= hours[0] <= hours[-1] < ledger.HOURS:
        raise _Refused(Reason.COUNT, f"counts of the hours {hours[0]} to {hours[-1]} since 1970")
    try:
        counts.check()
    except Unbalanced as why:
        raise _Refused(Reason.BALANCE, str(why)) from why
    # Counts of a device elsewhere stay the node's own: without them nothing would balance. Nobody there sees them.
    marks = {
        Mark.LEDGER_KIND: sum(kind.partition(".")[0] not in _KINDS for kind in kinds),
        Mark.LEDGER_PLACE: counts.retain_places(lambda division: _within(division, sender.areas)),
    }
    return {mark: count for mark, count in marks.items() if count}


def check_sequences(payload: bytes) -> CheckedSequences:
    """Judge the sequence numbers that devices gave their messages."""
    try:
        runs = sequences.decode(payload)
    except ValueError as why:
        return CheckedSequences(refusal=Refusal(Reason.UNREADABLE, str(why)[:200], payload=payload))
    if wrong := next((name for name in (runs.epoch, *runs.devices) if not _storable(name)), None):
        detail = f"a name that cannot be kept: {wrong[:40]!r}"
        return CheckedSequences(refusal=Refusal(Reason.NAME, detail, payload=payload))
    return CheckedSequences(runs)
