"""The records of a member's two lanes, and how a claim and a span change them. Pure.

A span is fenced by the number of each record to which it applies; the node's statements about its own log are checked
against the records before. The counts are the centre's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sensegate.bus.commit_records import NO_WRITER, STORED_MAX, LaneRecord, WithheldRange, Writer
from sensegate.bus.ledger import REFUSED_BY_CENTRE, WITHHELD
from sensegate.errors import PermissionDenied
from sensegate.tiers.protocol import NATURAL_MAX, Lane, LaneUpdate, SpanRequest

RELEASED = "released"
"""Rows of `withheld.<reason>` that were forwarded later; counted in the lane records, not in the ledger."""
READMITTED = "readmitted"
"""Rows of `refused_by_centre.<reason>` that were accepted later; counted in the same way."""
_REVERSALS = {WITHHELD: RELEASED, REFUSED_BY_CENTRE: READMITTED}
"""Ledger kind -> kind under which its negative counts are summed."""
TOTALS_MAX = 1_000
"""Most kinds in a record; further ones are counted together under `OTHER`."""
OTHER = "other"
PAST_MAX = 64
"""Most earlier epochs of a log in a record."""

Records = Mapping[Lane, LaneRecord]
Ranges = tuple[tuple[int, int], ...]


def is_stale(records: Records, request: SpanRequest) -> bool:
    """Return whether a span applies to records that are not the present ones."""
    return any(update.base_number != records[update.lane].number for update in request.updates)


def is_writer(record: LaneRecord, request: SpanRequest) -> bool:
    """Return whether a span comes from the present writer, or from a later claim of it at another centre."""
    present, writer = record.writer, request.writer
    is_newer = writer.id == present.id and writer.epoch > present.epoch
    return request.log_epoch == record.log_epoch and bool(present.id) and (writer == present or is_newer)


def advance(
    records: Records, request: SpanRequest, counts: Mapping[str, int], *, written: int = 0, now: int = 0, width_us: int
) -> dict[Lane, LaneRecord]:
    """Return the records of the lanes that a span updates.

    Args:
        records: the present ones, to which the span applies.
        request: the span.
        counts: ledger kind -> count of what is written.
        written: bytes that are written.
        now: time of the centre, µs UTC.
        width_us: length of the periods in which written bytes are counted.

    Raises:
        PermissionDenied: the span contradicts the records.
    """
    updates = {update.lane: update for update in request.updates}
    if len(updates) != len(request.updates):
        raise PermissionDenied("span: it updates a lane twice; update the node, or skip it")
    credited = Lane.LIVE if Lane.LIVE in updates else Lane.BACKLOG
    _check(records, updates)
    result = {}
    for lane, update in updates.items():
        record = records[lane]
        result[lane] = LaneRecord(
            request.span_id,
            record.number + 1,
            request.committed_at,
            record.log_epoch,
            update.position,
            update.ranges,
            add_counts(record.totals, counts) if lane is credited else record.totals,
            record.previous_totals,
            update.withheld,
            max(record.reached, update.position, *(until for _, until in update.ranges), 0),
            request.writer,
            record.past_epochs,
            record.refused,
            add_stored(record.stored, written, now, width_us) if lane is credited else record.stored,
        )
    return result


def _check(records: Records, updates: Mapping[Lane, LaneUpdate]) -> None:
    """Check the updates of lanes against their records. Raises `PermissionDenied`."""
    live, backlog = records[Lane.LIVE], records[Lane.BACKLOG]
    assigned = list(backlog.ranges)
    reached = max(live.position, live.reached, backlog.reached)
    if update := updates.get(Lane.LIVE):
        if update.ranges:
            raise PermissionDenied("span: the live lane has ranges; update the node, or skip it")
        if update.position < live.position:
            raise PermissionDenied(
                f"span: the live lane's position {update.position} lies before {live.position}; restart the node"
            )
        reached = max(reached, update.position)
        if update.position > live.position:
            assigned.append((live.position, update.position))
    if update := updates.get(Lane.BACKLOG):
        _check_ranges(update.ranges, merge_ranges(assigned))
        if update.position > reached:
            raise PermissionDenied(
                f"span: the backlog's position {update.position} lies behind {reached}; restart the node"
            )
    for update in updates.values():
        if any(not 0 <= part.after < part.until <= reached for part in update.withheld):
            raise PermissionDenied("span: a withheld range lies outside the log; restart the node")


def _check_ranges(ranges: Ranges, assigned: Ranges) -> None:
    end = -1
    for after, until in ranges:
        if not end <= after < until:
            raise PermissionDenied("span: the backlog's ranges are not in order; restart the node")
        if not any(first <= after and until <= last for first, last in assigned):
            raise PermissionDenied(
                f"span: the backlog's range {after}-{until} was not assigned to it; restart the node"
            )
        end = until


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the ranges in order, adjacent and overlapping ones merged."""
    result: list[tuple[int, int]] = []
    for after, until in sorted(ranges):
        if result and after <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], until))
        else:
            result.append((after, until))
    return tuple(result)


def clip_ranges(ranges: Iterable[tuple[int, int]], lower: int, upper: int) -> Ranges:
    """Return the ranges limited to (lower, upper]."""
    return tuple((max(after, lower), min(until, upper)) for after, until in ranges if after < upper and until > lower)


def clip_withheld(ranges: Iterable[WithheldRange], lower: int, upper: int) -> tuple[WithheldRange, ...]:
    """Return the withheld ranges limited to (lower, upper]."""
    return tuple(
        msgspec.structs.replace(part, after=max(part.after, lower), until=min(part.until, upper))
        for part in ranges
        if part.after < upper and part.until > lower
    )


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────


def add_counts(totals: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, int]:
    """Return totals with counts added; negative counts of a reason are summed as reversals, too."""
    result = dict(totals)
    for kind, count in counts.items():
        _add(result, kind, count)
        family, _, reason = kind.partition(".")
        if count < 0 and family in _REVERSALS:
            _add(result, f"{_REVERSALS[family]}.{reason}", -count)
    return result


def _add(totals: dict[str, int], kind: str, count: int) -> None:
    if kind not in totals and len(totals) >= TOTALS_MAX:
        kind = f"{kind.partition('.')[0]}.{OTHER}"
    total = totals.get(kind, 0) + count
    totals[kind] = max(-NATURAL_MAX, min(NATURAL_MAX, total))


def add_stored(before: Sequence[tuple[int, int]], written: int, now: int, width_us: int) -> tuple[tuple[int, int], ...]:
    """Return the bytes written by period, with `written` bytes added to the present one."""
    if not written:
        return tuple(before)
    period = now // width_us
    if before and before[-1][0] >= period:
        return (*before[:-1], (before[-1][0], before[-1][1] + written))
    return (*before[-(STORED_MAX - 1) :], (period, written))


def stored_bytes(records: Iterable[LaneRecord], now: int, width_us: int, ttl_us: int) -> int:
    """Return how many bytes of lanes are still on the log, by the periods in which they were written."""
    oldest = (now - ttl_us) // width_us
    return sum(count for record in records for period, count in record.stored if period >= oldest)


# ── claims ──────────────────────────────────────────────────────────────────────────────────────────────


def new_record(log_epoch: str, position: int) -> LaneRecord:
    """Return the record of a lane that has sent nothing yet."""
    return LaneRecord("", 0, 0, log_epoch, position)


def restart(record: LaneRecord, log_epoch: str, position: int) -> LaneRecord:
    """Return a lane's record for a new log of the node."""
    past = (*record.past_epochs, record.log_epoch)[-PAST_MAX:]
    return msgspec.structs.replace(
        record,
        log_epoch=log_epoch,
        position=position,
        ranges=(),
        withheld=(),
        previous_totals=record.totals,
        reached=0,
        past_epochs=past,
        refused=0,
        writer=NO_WRITER,
    )


def truncate(record: LaneRecord, log_end: int) -> LaneRecord:
    """Return a lane's record for a log that has lost entries at its end.

    Entries after `log_end` are new although the lane had passed their sequences: without this they would never go up.
    """
    return msgspec.structs.replace(
        record,
        position=min(record.position, log_end),
        ranges=clip_ranges(record.ranges, -1, log_end),
        withheld=clip_withheld(record.withheld, -1, log_end),
    )


def with_writer(record: LaneRecord, writer: Writer) -> LaneRecord:
    """Return a lane's record with another writer."""
    return msgspec.structs.replace(record, number=record.number + 1, span_id="", writer=writer)
