"""The node's log -> the centre's log, exactly once, in two lanes.

Each lane of a node has a record at the centre (``commit.<node>.live``, ``commit.<node>.backlog``), replaced in the
same atomic write as the readings and fenced. The live lane goes on from its position; what has grown old while the
link was down is opened as a *range* of the backlog lane, in one span that moves the live lane past it and puts the
range into the backlog's record. So every entry of the node's log is given to exactly one lane, and each lane resumes
from its own record, whatever was lost on the way: after any doubt the record is asked for again (`exchange.py`), and
the same span is built again from the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.commit_records import LaneRecord, WithheldRange, decode_commit
from sensegate.bus.ledger import ACCEPTED, FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.clock import Clock, wait_or_sleep
from sensegate.config import UplinkConfig
from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.model import LogEntry, SheddingRule
from sensegate.ports import Log
from sensegate.quantities.quality import Flag
from sensegate.tiers.exchange import Exchange, LaneState, UplinkLink
from sensegate.tiers.protocol import Lane, LaneMove, Outcome, Part, PartRefusal, RefusedPart, Selection
from sensegate.tiers.span import Only, Packer, Span, whole_commits
from sensegate.tiers.writers import Claimant

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
REFUSED_TRIES = 4
"""A span that is refused is sent so often, and then only now and then."""
REFUSED_AGAIN_S = 60.0
CLAIM_AGAIN_S = 5.0
RESEND_MAX = 500
"""Most refused parts that wait to be sent once more."""

_log = structlog.get_logger("uplink")


class Stuck(msgspec.Struct, frozen=True):
    """A span that the centre refuses as a whole."""

    lane: Lane
    reason: str
    since: int
    """µs UTC."""
    tries: int
    after: int
    until: int
    """Entries in (after, until] of the log; equal: it brings none."""


class _Attempt(msgspec.Struct, frozen=True):
    """What a lane last tried to send."""

    after: int
    until: int
    skips: bool = False
    """Its rows were left out, as an operator has ordered."""


class Uplink:
    """Forwards what the log holds until cancelled. Link down: the node goes on alone, this waits."""

    name = "uplink"

    def __init__(
        self,
        log: Log,
        link: UplinkLink,
        claimant: Claimant,
        config: UplinkConfig,
        clock: Clock,
        *,
        node: str,
        shed: Callable[[], Sequence[SheddingRule]] = tuple,
        partition: int = 0,
    ) -> None:
        """`shed` says what mode orders keep here; `claimant` is that of the process, `link` of this connection."""
        self._source = log
        self._config = config
        self._clock = clock
        self._shed = shed
        self._claimant = claimant
        self._exchange = Exchange(link, claimant, log, clock)
        self._packer = Packer(config.grade_max, self._exchange.parts_bytes_max, self._place_of)
        self._opening = asyncio.Lock()  # the backlog's record is written by both lanes
        self._resumed = True
        self._gap_s = 0.0
        self._sent_at = float("-inf")
        self._backlog_bytes = BACKLOG_BYTES_MIN * 4
        self._opened = asyncio.Event()
        self._own_record = f"commit.{node}-{partition}"
        self._settled = False
        self._attempts: dict[Lane, _Attempt] = {}
        self.stuck: dict[Lane, Stuck] = {}
        """Spans that the centre refuses as a whole."""
        self._skips: dict[Lane, int] = {}
        """Lane -> up to where its rows are skipped, as an operator has ordered."""
        self._ordered = asyncio.Event()
        self._resend: deque[RefusedPart] = deque(maxlen=RESEND_MAX)
        self.resent: dict[str, str] = {}
        """Id of a refused part that was sent once more -> what became of it."""

    @property
    def connected(self) -> bool:
        """Whether the last exchange with the centre was answered."""
        return self._exchange.connected

    @property
    def clock_offset_s(self) -> float | None:
        """By how much the centre's clock was ahead of ours when it last answered, transit included."""
        return self._exchange.clock_offset_s

    @property
    def totals(self) -> dict[str, int]:
        """Ledger kind -> count forwarded, withheld, refused and carried up by both lanes, as the centre confirmed it.

        Of this life of the node's log: its own books know nothing of one that was lost.
        """
        sums: dict[str, int] = {}
        for state in self._exchange.held.values():
            before = state.record.previous_totals
            for kind, count in state.record.totals.items():
                sums[kind] = sums.get(kind, 0) + count - before.get(kind, 0)
        return sums

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Ranges of the node's log that are still to be forwarded by the backlog lane."""
        state = self._exchange.held.get(Lane.BACKLOG)
        return state.record.ranges if state else ()

    @property
    def troubles(self) -> list[str]:
        """What stands in the way of readings, a sentence each."""
        sentences = [self._claimant.denied] if self._claimant.denied else []
        sentences += [
            f"uplink: the centre refuses a span of the {stuck.lane} lane (entries {stuck.after + 1} to {stuck.until}, "
            f"tried {stuck.tries} times): {stuck.reason}; `sensegate node skip {stuck.lane}` goes past it"
            for stuck in self.stuck.values()
        ]
        return sentences

    def disconnected(self) -> None:
        """Note that the connection is gone; what was confirmed stays known."""
        self._exchange.connected = False

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
                        position = (await self._exchange.lane(lane)).record.position
                        if not await self._source.changed(position, POLL_S):
                            await self._exchange.look()
                elif not await self.backlog():
                    await self._opened.wait()
                attempt = 0
            except (Unavailable, StoreFull) as why:
                wait_s = min(self._config.backoff_max_s, 0.05 * 2**attempt)
                attempt = min(attempt + 1, 16)
                if attempt == 1:
                    _log.warning("centre not reached; the node goes on alone", lane=lane, reason=str(why))
                metrics.RESTARTS.labels(f"uplink {lane}").inc()
                await self._clock.sleep(wait_s)
            except Overloaded as why:
                _log.info("the centre asks for a pause", lane=lane, reason=str(why), seconds=why.retry_after_s)
                metrics.LIMITED.labels("centre_pause").inc()
                await self._clock.sleep(why.retry_after_s)
            except PermissionDenied as why:
                await self._ordered_or(self._refused(lane, why))

    # ── what the centre refuses as a whole ──────────────────────────────────────────────────────────────

    def _refused(self, lane: Lane, why: PermissionDenied) -> float:
        """Note that a span, or we ourselves, are refused; return after how long it is tried again."""
        metrics.RESTARTS.labels(f"uplink {lane}").inc()
        if self._claimant.denied:
            return CLAIM_AGAIN_S
        attempt = self._attempts.get(lane, _Attempt(0, 0))
        if attempt.skips:
            self._skips.pop(lane, None)  # without its rows it is refused all the same
        before = self.stuck.get(lane)
        tries = before.tries + 1 if before and before.after == attempt.after else 1
        since = before.since if before and tries > 1 else self._clock.now()
        self.stuck[lane] = Stuck(lane, str(why), since, tries, attempt.after, attempt.until)
        if tries in {1, REFUSED_TRIES}:
            _log.error("the centre refuses a span", lane=lane, tries=tries, reason=str(why))
        if lane in self._skips:
            return 0.0
        return 0.5 * 2**tries if tries < REFUSED_TRIES else REFUSED_AGAIN_S

    async def _ordered_or(self, seconds: float) -> None:
        """Wait for some time, or until an operator decides."""
        self._ordered.clear()
        if not self._claimant.force:
            await wait_or_sleep(self._ordered, self._clock, seconds)

    def skip(self, lane: Lane) -> Stuck:
        """Go past the span of a lane that is refused: its rows are counted as skipped. Raises `Conflict`."""
        stuck = self.stuck.get(lane)
        if stuck is None:
            raise Conflict(f"no span of the {lane} lane is refused; there is nothing to skip")
        self._skips[lane] = stuck.until
        self._ordered.set()
        return stuck

    def take_over(self) -> None:
        """Claim the lanes by force, whatever another copy of this store has sent."""
        self._claimant.force = True
        self._exchange.forget()
        self._ordered.set()

    def _skipping(self, lane: Lane, entries: Sequence[LogEntry]) -> tuple[Sequence[LogEntry], bool]:
        """Return the entries, only those to be skipped if there are such, and whether they are."""
        until = self._skips.get(lane, -1)
        if until < 0 or not entries or entries[0].sequence > until:
            self._skips.pop(lane, None)
            return entries, False
        return [entry for entry in entries if entry.sequence <= until], True

    # ── live ─────────────────────────────────────────────────────────────────────────────────────────────

    async def live(self) -> bool:
        """Forward the next span; False if there was nothing new.

        Raises:
            Unavailable, Overloaded, StoreFull: not forwarded, or not known; call again.
            PermissionDenied: the centre does not take the span, or this process as the writer.
        """
        state = await self._exchange.lane(Lane.LIVE)
        if await self._release(state):
            return True
        after = state.record.position
        entries = await self._fetch(after, self._config.backlog_bytes_max)
        if not entries:
            self._resumed = False
            self._show_lag(0)
            return await self._tell_expired()
        self._show_lag(entries[-1].sequence - after)
        limit_s = self._config.backlog_after_s * (1.0 if self._resumed else BEHIND)
        if entries[0].time < self._clock.now() - round(limit_s * 1e6) and await self._open_range(state):
            return True
        self._resumed = False
        entries = await self._gathered(entries)
        shed = self._shed_now(state.record, after)
        some, skips = self._skipping(Lane.LIVE, whole_commits(entries))
        span = self._packer.span(some, shed=shed, skip=skips)
        kept = self._kept(state.record, after, span, shed)
        now = self._clock.monotonic()
        since_s, self._sent_at = now - self._sent_at, now
        if not span.parts:
            # Nothing to tell (raw messages, records): remembered here, moved at the centre with the next span.
            self._exchange.held[Lane.LIVE] = state.moved(span.position, kept)
            return True
        move = self._move(Lane.LIVE, state, position=span.position, kept=kept)
        selection = Selection(state.confirmed, span.position, self._packer.grade_max, shed)
        await self._send(Lane.LIVE, span.parts, [move], selection, skips=skips)
        self._pace(span.rows, since_s)
        return True

    async def _gathered(self, entries: list[LogEntry]) -> list[LogEntry]:
        """Return entries with what comes while more of them are worth waiting for."""
        waited_s = (self._clock.now() - entries[0].time) / 1e6
        wait_s = min(self._sent_at + self._gap_s - self._clock.monotonic(), self._gap_s - waited_s)
        if wait_s <= 0:
            return entries
        await self._clock.sleep(wait_s)
        # What was read is not read again; a part that is full already waits for nothing.
        if len(entries) >= FETCH_ENTRIES // 2:
            return entries
        return [*entries, *await self._fetch(entries[-1].sequence, self._config.backlog_bytes_max)]

    async def _tell_expired(self) -> bool:
        """With nothing left to forward, count what never went up because it had expired; return whether any had.

        Our own commit record says what was accepted, the lanes' records what became of it. Both only rise.
        """
        if self._settled:
            return False
        async with self._opening:
            backlog = await self._exchange.lane(Lane.BACKLOG)
            state = await self._exchange.lane(Lane.LIVE)
            if backlog.record.ranges:
                return False
            own = await self._source.last(self._own_record)
            if own is None or own.sequence > state.record.position:
                return False
            accepted, totals = decode_commit(own.payload).totals.get(ACCEPTED, 0), self.totals
            gone = accepted - sum(n for kind, n in totals.items() if kind.partition(".")[0] in _SETTLED)
            if gone > 0:
                span = self._packer.expired(gone, self._clock.now(), state.record.position)
                # With both lanes' records: a range that was opened by a late write of ours is no loss, and fences this.
                moves = [self._move(Lane.BACKLOG, backlog), self._move(Lane.LIVE, state)]
                if not await self._send(Lane.LIVE, span.parts, moves, Selection()):
                    return True
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

    async def _open_range(self, state: LaneState) -> bool:
        """Give what is old to the backlog lane and move the live lane past it; False if it is the live lane's own."""
        since = self._clock.now() - round(self._config.backlog_after_s * 1e6)
        until = await self._source.sequence_at(since) - 1
        after = state.record.position
        if until <= after:
            return False
        async with self._opening:
            backlog = await self._exchange.lane(Lane.BACKLOG)
            ranges = backlog.record.ranges
            if ranges and ranges[-1][1] == after:
                ranges = (*ranges[:-1], (ranges[-1][0], until))
            elif len(ranges) >= RANGES_MAX:
                metrics.LIMITED.labels("uplink_ranges").inc()
                return False
            else:
                ranges = (*ranges, (after, until))
            moves = [
                self._move(Lane.BACKLOG, backlog, ranges=ranges),
                self._move(Lane.LIVE, state, position=until),
            ]
            if not await self._send(Lane.LIVE, [], moves, Selection()):
                return True
        self._settled = False
        _log.info("what waited goes up beside the live lane", after=after, until=until)
        self._opened.set()
        return True

    # ── backlog ──────────────────────────────────────────────────────────────────────────────────────────

    async def backlog(self) -> bool:
        """Forward the next part of the oldest range; False if there is none. Raises as `live` does."""
        async with self._opening:
            state = await self._exchange.lane(Lane.BACKLOG)
            if self._resend:
                await self._once_more(state, self._resend[0])
                return True
            step = await self._range(state) if state.record.ranges else await self._brought(state)
            if step is None:
                self._opened.clear()
                return False
            span, move, selection, skips = step
            same = move.ranges == state.record.ranges and len(move.kept) == len(state.record.withheld)
            if same and not span.parts:
                # Nothing of it was kept back: remembered here, moved at the centre with what comes next.
                self._exchange.held[Lane.BACKLOG] = state.moved(state.record.position, move.kept)
            else:
                began = self._clock.monotonic()
                try:
                    await self._send(Lane.BACKLOG, span.parts, [move], selection, skips=skips)
                except Unavailable:
                    # What was given up as too slow would be so again: less of it may go through.
                    self._adapt(max(self._clock.monotonic() - began, BACKLOG_WRITE_S))
                    raise
                self._adapt(self._clock.monotonic() - began)
        await asyncio.sleep(0)  # whoever opens a range is not kept waiting
        return True

    async def _range(self, state: LaneState) -> tuple[Span, LaneMove, Selection, bool]:
        """Return the next part of the oldest range, and how the lane stands after it."""
        record = state.record
        (after, until), *rest = record.ranges
        entries: Sequence[LogEntry] = await self._within(after, until)
        skips = False
        if entries:
            entries, skips = self._skipping(Lane.BACKLOG, whole_commits(entries))
        shed = self._shed_now(record, after)
        span = self._packer.span(entries, Flag.BACKLOG, shed, skip=skips) if entries else Span([], until, 0)
        ranges = tuple(rest) if not entries or span.position >= until else ((span.position, until), *rest)
        kept = self._kept(record, after, span, shed)
        move = self._move(Lane.BACKLOG, state, position=span.position, ranges=ranges, kept=kept)
        return span, move, Selection(after, span.position, self._packer.grade_max, shed), skips

    async def _brought(self, state: LaneState) -> tuple[Span, LaneMove, Selection, bool] | None:
        """Return the next part of what was kept back by orders that are over; None: there is none."""
        record, shed = state.record, self._shed()
        at = next((at for at, part in enumerate(record.withheld) if not part.overlaps(shed)), -1)
        if at < 0:
            return None
        part = record.withheld[at]
        entries: Sequence[LogEntry] = await self._within(part.after, part.until)
        skips = False
        if entries:
            entries, skips = self._skipping(Lane.BACKLOG, entries)
        span = self._packer.brought(entries, part, skip=skips) if entries else Span([], part.until, 0)
        rest = () if span.position >= part.until else (msgspec.structs.replace(part, after=span.position),)
        move = self._move(Lane.BACKLOG, state, kept=(*record.withheld[:at], *rest, *record.withheld[at + 1 :]))
        selection = Selection(part.after, span.position, part.grade_max, part.shed, kept_back=True)
        return span, move, selection, skips

    async def _within(self, after: int, until: int) -> list[LogEntry]:
        return [entry for entry in await self._fetch(after, self._backlog_bytes) if entry.sequence <= until]

    def _adapt(self, took_s: float) -> None:
        """Let one backlog message take about BACKLOG_WRITE_S, whatever the link: live readings wait behind it."""
        if took_s > BACKLOG_WRITE_S:
            self._backlog_bytes = max(BACKLOG_BYTES_MIN, self._backlog_bytes // 2)
        elif took_s < BACKLOG_WRITE_S / 4:
            self._backlog_bytes = min(self._config.backlog_bytes_max, self._backlog_bytes * 2)

    # ── what the centre refused in part ──────────────────────────────────────────────────────────────────

    async def refused(self) -> list[RefusedPart]:
        """Return the parts that the centre refused and that may be sent once more.

        Raises `Unavailable`, `PermissionDenied`.
        """
        return await self._exchange.refused()

    async def resend(self, ids: Sequence[str] = ()) -> list[RefusedPart]:
        """Send refused parts once more, all of them where none is named; return those that wait now.

        Raises:
            NotFound: one of them is not on the list.
            Unavailable, PermissionDenied: the centre does not give the list.
        """
        listed = {part.id: part for part in await self.refused()}
        if missing := [part_id for part_id in ids if part_id not in listed]:
            raise NotFound(f"no refused part {missing[0]}")
        waiting = {part.id for part in self._resend}
        wanted = [listed[part_id] for part_id in ids or listed if part_id not in waiting]
        self._resend.extend(wanted[: RESEND_MAX - len(waiting)])
        for part in wanted:
            self.resent.pop(part.id, None)
        self._opened.set()
        return list(self._resend)

    async def _once_more(self, state: LaneState, part: RefusedPart) -> None:
        """Send the next piece of a refused part, and note what became of it."""
        made = part.selection
        entries = await self._within(made.after, made.until)
        span = Span([], made.until, 0)
        if part.life != self._source.epoch:
            self._done(part, "not sent: it is of a log that this one has replaced")
            return
        if part.grade > self._packer.grade_max:
            self._done(part, f"not sent: grade {part.grade} is not shared any more (uplink.grade_max)")
            return
        if entries:
            packer = msgspec.structs.replace(self._packer, grade_max=made.grade_max)
            only = Only(part.kind, part.grade, frozenset(part.devices))
            if made.kept_back:
                kept = WithheldRange(made.after, made.until, made.shed, made.grade_max)
                span = packer.brought(entries, kept, only=only)
            else:
                span = packer.span(entries, Flag.BACKLOG, made.shed, only=only)
        whole = span.position >= made.until
        selection = msgspec.structs.replace(made, until=min(span.position, made.until))
        move = self._move(Lane.BACKLOG, state)
        try:
            answer = await self._exchange.send(span.parts, [move], selection, readmits=part.id)
        except PermissionDenied as why:
            self._done(part, f"not taken: {why}")
            return
        refused = ", ".join(sorted({item.reason for item in answer.refused}))
        if answer.outcome is Outcome.STILL_REFUSED:
            self._done(part, f"still refused: {refused}")
        elif answer.outcome is Outcome.STALE:
            if all(item.id != part.id for item in await self.refused()):
                self._done(part, "sent")
        elif whole:
            self._done(part, f"sent; of it refused: {refused}" if refused else "sent")
        else:
            rest = msgspec.structs.replace(part, selection=msgspec.structs.replace(made, after=span.position))
            self._resend[0] = rest

    def _done(self, part: RefusedPart, outcome: str) -> None:
        self._resend.popleft()
        _log.info("a refused part was sent once more", part=part.id, outcome=outcome)
        if len(self.resent) >= RESEND_MAX:
            self.resent.pop(next(iter(self.resent)))
        self.resent[part.id] = outcome

    # ── what mode orders keep back ───────────────────────────────────────────────────────────────────────

    def _shed_now(self, record: LaneRecord, after: int) -> tuple[SheddingRule, ...]:
        """Return what is left out of what follows a place; nothing where it could not be named in the record."""
        shed = tuple(self._shed())
        if shed and len(record.withheld) >= KEPT_MAX and not self._goes_on(record.withheld[-1], after, shed):
            metrics.LIMITED.labels("uplink_kept").inc()
            return ()
        return shed

    def _goes_on(self, kept: WithheldRange, after: int, shed: tuple[SheddingRule, ...]) -> bool:
        return (kept.until, kept.shed, kept.grade_max) == (after, shed, self._packer.grade_max)

    def _kept(
        self, record: LaneRecord, after: int, span: Span, shed: tuple[SheddingRule, ...]
    ) -> tuple[WithheldRange, ...]:
        """Return what of the log went up without something, after a span that was made with `shed`."""
        if shed and record.withheld and self._goes_on(record.withheld[-1], after, shed):
            return (*record.withheld[:-1], msgspec.structs.replace(record.withheld[-1], until=span.position))
        if span.shed:
            return (*record.withheld, WithheldRange(after, span.position, shed, self._packer.grade_max))
        return record.withheld

    async def _release(self, state: LaneState) -> bool:
        """Give what orders kept back that are over to the backlog lane; False: there is nothing of the live lane's."""
        shed = self._shed()
        mine = self._exchange.held.get(Lane.BACKLOG)
        if mine and any(not part.overlaps(shed) for part in mine.record.withheld):
            self._opened.set()
        free = [part for part in state.record.withheld if not part.overlaps(shed)]
        if not free:
            return False
        async with self._opening:
            backlog = await self._exchange.lane(Lane.BACKLOG)
            free = free[: max(0, KEPT_MAX - len(backlog.record.withheld))]
            if not free:
                return False
            rest = tuple(part for part in state.record.withheld if part not in free)
            moves = [
                self._move(Lane.BACKLOG, backlog, kept=(*backlog.record.withheld, *free)),
                self._move(Lane.LIVE, state, kept=rest),
            ]
            if not await self._send(Lane.LIVE, [], moves, Selection()):
                return True
        _log.info("what a mode order kept back goes up", parts=len(free))
        self._opened.set()
        return True

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, after: int, bytes_max: int) -> list[LogEntry]:
        return await self._source.fetch(after, limit=FETCH_ENTRIES, max_bytes=bytes_max)

    def _place_of(self, sequence: int) -> int:
        """Return the place that rows of an entry bear: another one where a copy of our log has used it."""
        for shift in self._claimant.shifts:
            if shift.after < sequence <= shift.until:
                return sequence + shift.by
        return sequence

    def _move(
        self,
        lane: Lane,
        state: LaneState,
        *,
        position: int | None = None,
        ranges: tuple[tuple[int, int], ...] | None = None,
        kept: tuple[WithheldRange, ...] | None = None,
    ) -> LaneMove:
        record = state.record
        return LaneMove(
            lane,
            record.number,
            record.position if position is None else position,
            record.ranges if ranges is None else ranges,
            record.withheld if kept is None else kept,
        )

    async def _send(
        self,
        lane: Lane,
        parts: Sequence[Part],
        moves: Sequence[LaneMove],
        selection: Selection,
        *,
        skips: bool = False,
    ) -> bool:
        """Send a span; False where the centre's records were others: it is made again from those. Raises as `live`."""
        self._attempts[lane] = _Attempt(selection.after, selection.until, skips)
        try:
            answer = await self._exchange.send(parts, moves, selection)
        except (Unavailable, asyncio.CancelledError):
            self._resumed = True
            self._opened.set()  # a range may have been opened after all
            raise
        self.stuck.pop(lane, None)
        if answer.outcome is not Outcome.TAKEN:
            self._resumed = True
            self._opened.set()
            return False
        _tell(answer.refused)
        return True


_SETTLED = frozenset({FORWARDED, WITHHELD, REFUSED_BY_CENTRE})


def _tell(refused: Sequence[PartRefusal]) -> None:
    for part in refused:
        metrics.LIMITED.labels("refused_by_centre").inc()
        if part.is_new:
            _log.error(
                "the centre refuses a part of a span; `sensegate node refused` lists it",
                kind=part.kind,
                grade=part.grade,
                rows=part.rows,
                reason=part.reason,
                part=part.id or "not listed: the list is full",
            )
