"""The records of a member's two lanes: how a claim and a span change them. Pure.

A span is fenced by the number of each record on which it builds; what the node says of its own log is held against the
records before. The counts are the centre's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sensegate.bus.commit_records import NO_WRITER, STORED_MAX, LaneRecord, WithheldRange, Writer
from sensegate.bus.ledger import REFUSED_BY_CENTRE, WITHHELD
from sensegate.errors import PermissionDenied
from sensegate.tiers.protocol import PLACE_MAX, Lane, LaneMove, SpanRequest

RELEASED = "released"
"""Rows of `withheld.<reason>` that came up afterwards; stands in the lanes' records, not in the ledger."""
READMITTED = "readmitted"
"""Rows of `refused_by_centre.<reason>` that were taken afterwards; likewise."""
_TAKEN_BACK = {WITHHELD: RELEASED, REFUSED_BY_CENTRE: READMITTED}
TOTALS_MAX = 1_000
"""Kinds that a record counts; more are counted together."""
OTHER = "other"
PAST_MAX = 64

Records = Mapping[Lane, LaneRecord]
Ranges = tuple[tuple[int, int], ...]


def stale(records: Records, request: SpanRequest) -> bool:
    """Return whether a span builds on records that are not the present ones."""
    return any(move.base != records[move.lane].number for move in request.moves)


def is_writer(record: LaneRecord, request: SpanRequest) -> bool:
    """Return whether a span is of the writer that stands, or of one that claimed later at another centre."""
    present, writer = record.writer, request.writer
    newer = writer.id == present.id and writer.epoch > present.epoch
    return request.life == record.log_epoch and bool(present.id) and (writer == present or newer)


def moved(
    records: Records, request: SpanRequest, counts: Mapping[str, int], *, wrote: int = 0, now: int = 0, width_us: int
) -> dict[Lane, LaneRecord]:
    """Return the records of the lanes that a span moves.

    Args:
        records: as they stand; the span builds on them.
        request: the span.
        counts: ledger kind -> count of what was written.
        wrote: bytes that were written.
        now: time of the centre, µs UTC.
        width_us: of the stretches of time in which written bytes are counted.

    Raises:
        PermissionDenied: the span contradicts the records.
    """
    moves = {move.lane: move for move in request.moves}
    if len(moves) != len(request.moves):
        raise PermissionDenied("span: it moves a lane twice; update the node, or skip it")
    credited = Lane.LIVE if Lane.LIVE in moves else Lane.BACKLOG
    _check(records, moves)
    result = {}
    for lane, move in moves.items():
        record = records[lane]
        result[lane] = LaneRecord(
            request.span_id,
            record.number + 1,
            request.committed_at,
            record.log_epoch,
            move.position,
            move.ranges,
            added(record.totals, counts) if lane is credited else record.totals,
            record.previous_totals,
            move.kept,
            max(record.reached, move.position, *(until for _, until in move.ranges), 0),
            request.writer,
            record.past_epochs,
            record.refused,
            stored(record.stored, wrote, now, width_us) if lane is credited else record.stored,
        )
    return result


def _check(records: Records, moves: Mapping[Lane, LaneMove]) -> None:
    live, backlog = records[Lane.LIVE], records[Lane.BACKLOG]
    given = list(backlog.ranges)
    reached = max(live.position, live.reached, backlog.reached)
    if move := moves.get(Lane.LIVE):
        if move.ranges:
            raise PermissionDenied("span: the live lane has ranges; update the node, or skip it")
        if move.position < live.position:
            raise PermissionDenied(
                f"span: the live lane's position {move.position} lies before {live.position}; restart the node"
            )
        reached = max(reached, move.position)
        if move.position > live.position:
            given.append((live.position, move.position))
    if move := moves.get(Lane.BACKLOG):
        _check_ranges(move.ranges, merged(given))
        if move.position > reached:
            raise PermissionDenied(
                f"span: the backlog's position {move.position} lies behind {reached}; restart the node"
            )
    for move in moves.values():
        if any(not 0 <= part.after < part.until <= reached for part in move.kept):
            raise PermissionDenied("span: a part that was kept back lies outside the log; restart the node")


def _check_ranges(ranges: Ranges, given: Ranges) -> None:
    end = -1
    for after, until in ranges:
        if not end <= after < until:
            raise PermissionDenied("span: the backlog's ranges are not in order; restart the node")
        if not any(first <= after and until <= last for first, last in given):
            raise PermissionDenied(f"span: the backlog's range {after}-{until} was not given to it; restart the node")
        end = until


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in order, those that meet as one."""
    result: list[tuple[int, int]] = []
    for after, until in sorted(ranges):
        if result and after <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], until))
        else:
            result.append((after, until))
    return tuple(result)


def clipped(ranges: Iterable[tuple[int, int]], lower: int, upper: int) -> Ranges:
    """Return what of ranges lies in (lower, upper]."""
    return tuple((max(after, lower), min(until, upper)) for after, until in ranges if after < upper and until > lower)


def clipped_kept(kept: Iterable[WithheldRange], lower: int, upper: int) -> tuple[WithheldRange, ...]:
    """Return what of parts that were kept back lies in (lower, upper]."""
    return tuple(
        msgspec.structs.replace(part, after=max(part.after, lower), until=min(part.until, upper))
        for part in kept
        if part.after < upper and part.until > lower
    )


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────


def added(totals: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, int]:
    """Return totals with counts added; what is taken back of a reason is counted as taken back, too."""
    result = dict(totals)
    for kind, count in counts.items():
        _add(result, kind, count)
        family, _, reason = kind.partition(".")
        if count < 0 and family in _TAKEN_BACK:
            _add(result, f"{_TAKEN_BACK[family]}.{reason}", -count)
    return result


def _add(totals: dict[str, int], kind: str, count: int) -> None:
    if kind not in totals and len(totals) >= TOTALS_MAX:
        kind = f"{kind.partition('.')[0]}.{OTHER}"
    total = totals.get(kind, 0) + count
    totals[kind] = max(-PLACE_MAX, min(PLACE_MAX, total))


def stored(before: Sequence[tuple[int, int]], wrote: int, now: int, width_us: int) -> tuple[tuple[int, int], ...]:
    """Return what was written by stretch of time, `wrote` bytes now."""
    if not wrote:
        return tuple(before)
    stretch = now // width_us
    if before and before[-1][0] >= stretch:
        return (*before[:-1], (before[-1][0], before[-1][1] + wrote))
    return (*before[-(STORED_MAX - 1) :], (stretch, wrote))


def kept_bytes(records: Iterable[LaneRecord], now: int, width_us: int, ttl_us: int) -> int:
    """Return how many bytes of some lanes still stand on the log, as far as their stretches of time tell."""
    oldest = (now - ttl_us) // width_us
    return sum(count for record in records for stretch, count in record.stored if stretch >= oldest)


# ── claims ──────────────────────────────────────────────────────────────────────────────────────────────


def fresh(life: str, position: int) -> LaneRecord:
    """Return the record of a lane of which nothing came yet."""
    return LaneRecord("", 0, 0, life, position)


def anew(record: LaneRecord, life: str, position: int) -> LaneRecord:
    """Return a lane's record for another life of the node's log."""
    past = (*record.past_epochs, record.log_epoch)[-PAST_MAX:]
    return msgspec.structs.replace(
        record,
        log_epoch=life,
        position=position,
        ranges=(),
        withheld=(),
        previous_totals=record.totals,
        reached=0,
        past_epochs=past,
        refused=0,
        writer=NO_WRITER,
    )


def shortened(record: LaneRecord, ended: int) -> LaneRecord:
    """Return a lane's record for a log that ends with less than the lane had brought up.

    What lies behind that end is new, whatever its sequence: it would never go up.
    """
    return msgspec.structs.replace(
        record,
        position=min(record.position, ended),
        ranges=clipped(record.ranges, -1, ended),
        withheld=clipped_kept(record.withheld, -1, ended),
    )


def claimed(record: LaneRecord, writer: Writer) -> LaneRecord:
    """Return a lane's record with another writer."""
    return msgspec.structs.replace(record, number=record.number + 1, span_id="", writer=writer)
