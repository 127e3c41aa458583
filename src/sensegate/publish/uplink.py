"""The node's log -> the centre's log, exactly once, in two lanes.

Each lane of a node has a record at the centre (``commit.<node>.live``, ``commit.<node>.backlog``), replaced in the
same atomic write as the readings and fenced by its expected sequence. The live lane goes on from its position; what
has grown old while the link was down is opened as a *range* of the backlog lane, in one atomic write that moves the
live lane past it and puts the range into the backlog's record. So every entry of the node's log is given to exactly
one lane, and each lane resumes from its own record, whatever was lost on the way: after any doubt the record is read
again, and the same span is built again from the log.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.filling import fill
from sensegate.bus.ledger import ACCEPTED, FORWARDED, WITHHELD
from sensegate.bus.record import Kept, LaneRecord, decode_commit, decode_lane, encode_lane
from sensegate.clock import Clock
from sensegate.config import StoreConfig, UplinkConfig
from sensegate.errors import Fenced, Lost, Overloaded, SensegateError, StoreFull
from sensegate.model import Entry, Member, Shed
from sensegate.ports import Log
from sensegate.publish.span import Packer, Span, whole_commits
from sensegate.quantities.quality import Flag

RANGES_MAX = 256
"""Most ranges of the backlog; with more the live lane sends everything itself, in order."""
KEPT_MAX = 32
"""Most parts of the log of which mode orders kept something back; with more nothing is kept back."""
BEHIND = 5.0
"""A live lane this many times `backlog_after_s` behind opens a range although the link was never lost."""
FULL_ROWS = 1_000
"""So many rows share a span's fixed cost well; it is not worth waiting longer for more, nor long for far fewer."""
FETCH_ENTRIES = 2_000
POLL_S = 5.0
BACKLOG_WRITE_S = 0.5
"""A backlog message should take no longer than this: a live one may have to wait for it."""
BACKLOG_BYTES_MIN = 65_536

_log = structlog.get_logger("uplink")


class Lane(StrEnum):
    """The two ways up."""

    LIVE = "live"
    BACKLOG = "backlog"


class _Held(msgspec.Struct):
    """A lane's record as it stands at the centre."""

    record: LaneRecord
    sequence: int
    """Of the record on the centre's log; 0: there is none yet."""


class Uplink:
    """Forwards what the log holds until cancelled; a `ports.Sink`.

    `centre` is the centre's log as this node may use it (``JetStreamLog(nc, prefix="up.<node>.")``). Link down: the
    node goes on alone and this waits. Raises `Fenced` when another uplink of the node has taken over.
    """

    name = "uplink"

    def __init__(
        self,
        node: str,
        log: Log,
        centre: Log,
        config: UplinkConfig,
        clock: Clock,
        *,
        store: StoreConfig | None = None,
        payload_bytes_max: int = 1_000_000,
        shed: Callable[[], Sequence[Shed]] = tuple,
        began: int = 0,
        partition: int = 0,
    ) -> None:
        """`began`: with which sequence our log ended when this process began; 0: what the lanes say of it is sure."""
        self._node = node
        self._source = log
        self._centre = centre
        self._config = config
        self._clock = clock
        self._shed = shed
        self._packer = Packer(node, config.grade_max, store or StoreConfig(), payload_bytes_max)
        self._held: dict[Lane, _Held] = {}
        # Batch ids since the last confirmed write: one of them may still come through.
        self._tried: dict[Lane, deque[str]] = {lane: deque(maxlen=64) for lane in Lane}
        self._opening = asyncio.Lock()  # the backlog's record is written by both lanes
        self._resumed = True
        self._gap_s = 0.0
        self._sent_at = float("-inf")
        self._backlog_bytes = BACKLOG_BYTES_MIN * 4
        self._opened = asyncio.Event()
        self._began = began
        self._unsure = set(Lane) if began else set()
        self._own_record = f"commit.{node}-{partition}"
        self._settled = False
        self.connected = False
        """True while the last exchange with the centre was answered."""
        self.clock_offset_s: float | None = None
        """By how much the centre's clock was ahead of ours when its newest span was stored, transit included."""

    @property
    def totals(self) -> dict[str, int]:
        """Ledger kind -> count forwarded, withheld and carried up by both lanes, as the centre last confirmed it.

        Of this life of the node's log: its own books know nothing of one that was lost.
        """
        sums: dict[str, int] = {}
        for held in self._held.values():
            before = held.record.before
            for kind, count in held.record.totals.items():
                sums[kind] = sums.get(kind, 0) + count - before.get(kind, 0)
        return sums

    @property
    def sure(self) -> bool:
        """Whether both lanes' records were held against how our log began: from here on they are of this process."""
        return not self._unsure

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Ranges of the node's log that are still to be forwarded by the backlog lane."""
        held = self._held.get(Lane.BACKLOG)
        return held.record.ranges if held else ()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as lanes:
                lanes.create_task(self._lane(Lane.LIVE), name="uplink live")
                lanes.create_task(self._lane(Lane.BACKLOG), name="uplink backlog")
        except ExceptionGroup as both:
            raise both.exceptions[0] from None  # the other lane was cancelled

    async def _lane(self, lane: Lane) -> None:
        attempt = 0
        while True:
            try:
                if lane is Lane.LIVE:
                    if not await self.live():
                        await self._source.changed(self._held[lane].record.position, POLL_S)
                elif not await self.backlog():
                    await self._opened.wait()
                attempt = 0
            except (Lost, Overloaded, StoreFull) as why:
                wait_s = min(self._config.backoff_max_s, 0.05 * 2**attempt)
                attempt = min(attempt + 1, 16)
                if attempt == 1:
                    _log.warning("centre not reached; the node goes on alone", lane=lane, why=str(why))
                if isinstance(why, StoreFull):
                    metrics.LIMITED.labels("centre_full").inc()
                metrics.RESTARTS.labels(f"uplink {lane}").inc()
                await self._clock.sleep(wait_s)

    # ── live ─────────────────────────────────────────────────────────────────────────────────────────────

    async def live(self) -> bool:
        """Forward the next span; False if there was nothing new.

        Raises:
            Lost, Overloaded, StoreFull: not forwarded, or not known; call again.
            Fenced: another uplink of this node writes.
        """
        held = await self._record(Lane.LIVE)
        if await self._release(held):
            return True
        after = held.record.position
        entries = await self._fetch(after, self._config.backlog_bytes_max)
        if not entries:
            self._resumed = False
            self._show_lag(0)
            return await self._tell_expired(held)
        self._show_lag(entries[-1].sequence - after)
        limit_s = self._config.backlog_after_s * (1.0 if self._resumed else BEHIND)
        if entries[0].time < self._clock.now() - round(limit_s * 1e6) and await self._open_range(held):
            return True
        self._resumed = False
        waited_s = (self._clock.now() - entries[0].time) / 1e6
        wait_s = min(self._sent_at + self._gap_s - self._clock.monotonic(), self._gap_s - waited_s)
        if wait_s > 0:
            await self._clock.sleep(wait_s)
            # What was read is not read again; a part that is full already waits for nothing.
            if len(entries) < FETCH_ENTRIES // 2:
                entries = [*entries, *await self._fetch(entries[-1].sequence, self._config.backlog_bytes_max)]
        shed = self._shed_now(held.record, after)
        span = self._packer.span(whole_commits(entries), shed=shed)
        kept = self._kept(held.record, after, span, shed)
        now = self._clock.monotonic()
        since_s, self._sent_at = now - self._sent_at, now
        if not span.members:
            # Nothing to tell (raw messages, records): remembered here, moved at the centre with the next span.
            moved = msgspec.structs.replace(held.record, position=span.position, kept=kept)
            self._held[Lane.LIVE] = _Held(moved, held.sequence)
            return True
        record = self._next(held.record, span, position=span.position, kept=kept)
        await self._write(span.members, {Lane.LIVE: record})
        self._pace(span.rows, since_s)
        return True

    async def _tell_expired(self, held: _Held) -> bool:
        """With nothing left to forward, count what never went up because it had expired; return whether any had.

        Our own commit record says what was accepted, the lanes' records what became of it. Both only rise.
        """
        if self._settled:
            return False
        async with self._opening:
            backlog = await self._record(Lane.BACKLOG)
            if backlog.record.ranges:
                return False
            own = await self._source.last(self._own_record)
            if own is None or own.sequence > held.record.position:
                return False
            accepted, totals = decode_commit(own.payload).totals.get(ACCEPTED, 0), self.totals
            gone = accepted - sum(n for kind, n in totals.items() if kind.partition(".")[0] in {FORWARDED, WITHHELD})
            if gone > 0:
                span = self._packer.expired(gone, self._clock.now(), held.record.position)
                # With both lanes' records: a range that was opened by a late write of ours is no loss, and fences this.
                records = {
                    Lane.BACKLOG: self._next(backlog.record, None),
                    Lane.LIVE: self._next(held.record, span),
                }
                await self._write(span.members, records)
            self._settled = True
        if gone <= 0:
            return False
        _log.error(
            "readings expired before they could go up: no centre for longer than store.readings_ttl_h", count=gone
        )
        metrics.LIMITED.labels("uplink_expired").inc()
        return True

    def _show_lag(self, live: int) -> None:
        metrics.UPLINK_LAG.set(live + sum(until - after for after, until in self.ranges))

    def _pace(self, rows: int, since_s: float) -> None:
        """Set the least time between spans: little when idle, up to `span_ms` to fill one, no more than fills it."""
        span_s = self._config.span_ms / 1e3
        fills_s = FULL_ROWS * since_s / max(rows, 1)
        self._gap_s = max(0.1 * span_s, min(span_s, span_s * rows / FULL_ROWS, fills_s))

    async def _open_range(self, held: _Held) -> bool:
        """Give what is old to the backlog lane and move the live lane past it; False if it is the live lane's own."""
        since = self._clock.now() - round(self._config.backlog_after_s * 1e6)
        until = await self._source.sequence_at(since) - 1
        after = held.record.position
        if until <= after:
            return False
        async with self._opening:
            backlog = await self._record(Lane.BACKLOG)
            ranges = backlog.record.ranges
            if ranges and ranges[-1][1] == after:
                ranges = (*ranges[:-1], (ranges[-1][0], until))
            elif len(ranges) >= RANGES_MAX:
                metrics.LIMITED.labels("uplink_ranges").inc()
                return False
            else:
                ranges = (*ranges, (after, until))
            records = {
                Lane.BACKLOG: self._next(backlog.record, None, ranges=ranges),
                Lane.LIVE: self._next(held.record, None, position=until),
            }
            await self._write([], records)
        self._settled = False
        _log.info("what waited goes up beside the live lane", after=after, until=until)
        self._opened.set()
        return True

    # ── backlog ──────────────────────────────────────────────────────────────────────────────────────────

    async def backlog(self) -> bool:
        """Forward the next part of the oldest range; False if there is none. Raises as `live` does."""
        async with self._opening:
            held = await self._record(Lane.BACKLOG)
            step = await self._range(held.record) if held.record.ranges else await self._brought(held.record)
            if step is None:
                self._opened.clear()
                return False
            span, record = step
            same = record.ranges == held.record.ranges and len(record.kept) == len(held.record.kept)
            if same and not span.members:
                # Nothing of it was kept back: remembered here, moved at the centre with what comes next.
                self._held[Lane.BACKLOG] = _Held(msgspec.structs.replace(held.record, kept=record.kept), held.sequence)
            else:
                began = self._clock.monotonic()
                try:
                    await self._write(span.members, {Lane.BACKLOG: record})
                except Lost:
                    # What was given up as too slow would be so again: less of it may go through.
                    self._adapt(max(self._clock.monotonic() - began, BACKLOG_WRITE_S))
                    raise
                self._adapt(self._clock.monotonic() - began)
        await asyncio.sleep(0)  # whoever opens a range is not kept waiting
        return True

    async def _range(self, record: LaneRecord) -> tuple[Span, LaneRecord]:
        """Return the next part of the oldest range, and the record that says so."""
        (after, until), *rest = record.ranges
        entries = await self._within(after, until)
        if entries:
            entries = list(whole_commits(entries))
        shed = self._shed_now(record, after)
        span = self._packer.span(entries, Flag.BACKLOG, shed) if entries else Span([], until, 0, {})
        whole = not entries or entries[-1].sequence >= until
        ranges = tuple(rest) if whole else ((span.position, until), *rest)
        kept = self._kept(record, after, span, shed)
        return span, self._next(record, span, position=span.position, ranges=ranges, kept=kept)

    async def _brought(self, record: LaneRecord) -> tuple[Span, LaneRecord] | None:
        """Return the next part of what was kept back by orders that are over; None: there is none."""
        shed = self._shed()
        at = next((at for at, one in enumerate(record.kept) if not one.meets(shed)), -1)
        if at < 0:
            return None
        one = record.kept[at]
        entries = await self._within(one.after, one.until)
        span = self._packer.brought(entries, one) if entries else Span([], one.until, 0, {})
        rest = () if span.position >= one.until else (msgspec.structs.replace(one, after=span.position),)
        return span, self._next(record, span, kept=(*record.kept[:at], *rest, *record.kept[at + 1 :]))

    async def _within(self, after: int, until: int) -> list[Entry]:
        return [entry for entry in await self._fetch(after, self._backlog_bytes) if entry.sequence <= until]

    def _adapt(self, took_s: float) -> None:
        """Let one backlog message take about BACKLOG_WRITE_S, whatever the link: live readings wait behind it."""
        if took_s > BACKLOG_WRITE_S:
            self._backlog_bytes = max(BACKLOG_BYTES_MIN, self._backlog_bytes // 2)
        elif took_s < BACKLOG_WRITE_S / 4:
            self._backlog_bytes = min(self._config.backlog_bytes_max, self._backlog_bytes * 2)

    # ── what mode orders keep back ───────────────────────────────────────────────────────────────────────

    def _shed_now(self, record: LaneRecord, after: int) -> tuple[Shed, ...]:
        """Return what is left out of what follows a place; nothing where it could not be named in the record."""
        shed = tuple(self._shed())
        if shed and len(record.kept) >= KEPT_MAX and not self._goes_on(record.kept[-1], after, shed):
            metrics.LIMITED.labels("uplink_kept").inc()
            return ()
        return shed

    def _goes_on(self, kept: Kept, after: int, shed: tuple[Shed, ...]) -> bool:
        return (kept.until, kept.shed, kept.grade_max) == (after, shed, self._packer.grade_max)

    def _kept(self, record: LaneRecord, after: int, span: Span, shed: tuple[Shed, ...]) -> tuple[Kept, ...]:
        """Return what of the log went up without something, after a span that was made with `shed`."""
        if shed and record.kept and self._goes_on(record.kept[-1], after, shed):
            return (*record.kept[:-1], msgspec.structs.replace(record.kept[-1], until=span.position))
        if span.shed:
            return (*record.kept, Kept(after, span.position, shed, self._packer.grade_max))
        return record.kept

    async def _release(self, held: _Held) -> bool:
        """Give what orders kept back that are over to the backlog lane; False: there is nothing of the live lane's."""
        shed = self._shed()
        mine = self._held.get(Lane.BACKLOG)
        if mine and any(not one.meets(shed) for one in mine.record.kept):
            self._opened.set()
        free = [one for one in held.record.kept if not one.meets(shed)]
        if not free:
            return False
        async with self._opening:
            backlog = await self._record(Lane.BACKLOG)
            free = free[: max(0, KEPT_MAX - len(backlog.record.kept))]
            if not free:
                return False
            rest = tuple(one for one in held.record.kept if one not in free)
            records = {
                Lane.BACKLOG: self._next(backlog.record, None, kept=(*backlog.record.kept, *free)),
                Lane.LIVE: self._next(held.record, None, kept=rest),
            }
            await self._write([], records)
        _log.info("what a mode order kept back goes up", parts=len(free))
        self._opened.set()
        return True

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, after: int, bytes_max: int) -> list[Entry]:
        return await self._source.fetch(after, limit=FETCH_ENTRIES, max_bytes=bytes_max)

    def _next(
        self,
        record: LaneRecord,
        span: Span | None,
        *,
        position: int | None = None,
        ranges: tuple[tuple[int, int], ...] | None = None,
        kept: tuple[Kept, ...] | None = None,
    ) -> LaneRecord:
        totals = dict(record.totals)
        for kind, count in (span.counts if span else {}).items():
            totals[kind] = totals.get(kind, 0) + count
        return LaneRecord(
            secrets.token_hex(8),
            record.number + 1,
            self._clock.now(),
            self._source.epoch,
            record.position if position is None else position,
            record.ranges if ranges is None else ranges,
            totals,
            record.before,
            record.kept if kept is None else kept,
        )

    async def _record(self, lane: Lane) -> _Held:
        """Return the lane's record; read it at the centre if there was any doubt."""
        if held := self._held.get(lane):
            return held
        last = await self._centre.last(f"commit.{self._node}.{lane}")
        self.connected = True
        if last is None:
            held = _Held(LaneRecord("", 0, 0, self._source.epoch, await self._beginning()), 0)
        else:
            held = _Held(decode_lane(last.payload), last.sequence)
            if lane is Lane.LIVE:
                self.clock_offset_s = (last.time - held.record.committed_at) / 1e6
            if held.record.life != self._source.epoch:
                _log.warning("the node's log is a new one: its lanes begin anew", lane=lane, life=held.record.life)
                fresh = msgspec.structs.replace(
                    held.record,
                    life=self._source.epoch,
                    position=await self._beginning(),
                    ranges=(),
                    kept=(),
                    before=held.record.totals,
                )
                held = _Held(fresh, held.sequence)
            elif lane in self._unsure:
                held = _Held(await self._shortened(held.record), held.sequence)
        self._unsure.discard(lane)
        self._held[lane] = held
        return held

    async def _beginning(self) -> int:
        """Return the place before all of our log; it need not begin with 1."""
        return (await self._source.bounds())[0] - 1

    async def _shortened(self, record: LaneRecord) -> LaneRecord:
        """Return a lane's record as it is for a log that began with less than the lane had brought up.

        What lies behind that beginning is new, whatever its sequence: it would never go up.
        """
        began, reached = self._began, max(record.position, *(until for _, until in record.ranges), 0)
        if reached <= began:
            return record
        _, last = await self._source.bounds()
        _log.error("our log has lost its end: the centre has more of it", began=began, ends=last, had_reached=reached)
        metrics.LIMITED.labels("log_lost_end").inc()
        await fill(self._source, last, reached)
        ranges = tuple((after, min(until, began)) for after, until in record.ranges if after < began)
        kept = tuple(
            msgspec.structs.replace(one, until=min(one.until, began)) for one in record.kept if one.after < began
        )
        return msgspec.structs.replace(record, position=min(record.position, began), ranges=ranges, kept=kept)

    async def _write(self, members: list[Member], records: dict[Lane, LaneRecord]) -> None:
        """Write a span with its lanes' records; after any doubt forget them, so that they are read again."""
        written = list(members)
        for lane, record in records.items():
            expect = self._held[lane].sequence
            subject = f"commit.{self._node}.{lane}"
            written.append(Member(subject, encode_lane(record), rollup=True, expect=expect))
        try:
            last = await self._centre.write(written)
        except (SensegateError, asyncio.CancelledError) as why:
            for lane, record in records.items():
                self._held.pop(lane, None)
                self._tried[lane].append(record.batch_id)
            self.connected = False
            self._resumed = True
            self._opened.set()  # a range may have been opened after all
            if isinstance(why, Fenced) and await self._by_ourselves(records):
                raise Lost("an earlier write of ours came through after all; going on behind it") from why
            raise
        self.connected = True
        for place, (lane, record) in enumerate(reversed(records.items())):
            self._held[lane] = _Held(record, last - place)
            self._tried[lane].clear()

    async def _by_ourselves(self, records: dict[Lane, LaneRecord]) -> bool:
        """Tell whether what fenced us is an earlier write of our own."""
        for lane in records:
            last = await self._centre.last(f"commit.{self._node}.{lane}")
            if last is not None and decode_lane(last.payload).batch_id in self._tried[lane]:
                return True
        return False
