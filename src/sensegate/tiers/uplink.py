"""Forwarding of the node's log to the centre's log, exactly once, in two lanes.

Each lane of a node has a record at the centre (``commit.<node>.live``, ``commit.<node>.backlog``), which the same
atomic write as the readings replaces, fenced by its number. The live lane continues from its position; entries that
grew old while the link was down become a *range* of the backlog lane, in one span that moves the live lane past them
and puts the range into the backlog's record. So every entry of the node's log is assigned to exactly one lane, and each
lane resumes from its own record, whatever was lost on the way: after any doubt the record is asked for again
(`exchange.py`), and the same span is built again from the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.commit_records import LaneRecord, WithheldRange, decode_commit
from sensegate.bus.contract import Log
from sensegate.bus.ledger import ACCEPTED, FORWARDED, REFUSED_BY_CENTRE, WITHHELD
from sensegate.bus.names import PARTITION
from sensegate.bus.unreadable import read
from sensegate.clock import Clock, wait_or_sleep
from sensegate.config import UplinkConfig
from sensegate.errors import (
    CancellableTaskGroup,
    Conflict,
    NotFound,
    Overloaded,
    PermissionDenied,
    StoreFull,
    Unavailable,
    combined,
)
from sensegate.model import LogEntry, SheddingRule
from sensegate.quantities.quality import Flag
from sensegate.tiers.exchange import Exchange, LaneState
from sensegate.tiers.liveness import UplinkLag
from sensegate.tiers.protocol import Lane, LaneUpdate, PartRefusal, RefusedPart, SpanOutcome, SpanPart, SpanSelection
from sensegate.tiers.span import PackedSpan, Packer, PartFilter, whole_commits

RANGES_MAX = 256
"""Most ranges of the backlog; beyond that the live lane forwards everything itself, in order."""
WITHHELD_MAX = 32
"""Most withheld ranges of a lane; beyond that mode orders withhold nothing."""
LIVE_LAG_FACTOR = 5.0
"""A live lane that lags by this multiple of `backlog_after_s` opens a range although the link was never lost."""
FULL_ROWS = 1_000
"""Rows over which the fixed cost of a span is spread well enough: waiting for more is not worth it."""
FETCH_ENTRIES = 2_000
POLL_S = 5.0
BACKLOG_WRITE_S = 0.5
"""Target duration of a backlog message, for which a live one may have to wait."""
BACKLOG_BYTES_MIN = 65_536
REFUSED_ATTEMPTS = 4
"""Attempts of a refused span before it is retried only every `REFUSED_RETRY_S`."""
REFUSED_RETRY_S = 60.0
CLAIM_RETRY_S = 5.0
RESEND_MAX = 500
"""Most refused parts that wait to be sent again."""

_log = structlog.get_logger("tiers")


class RefusedSpan(msgspec.Struct, frozen=True):
    """A span that the centre refuses as a whole."""

    lane: Lane
    reason: str
    since: int
    """µs UTC."""
    attempts: int
    after: int
    until: int
    """Entries in (after, until] of the log; equal: the span brings none."""


class _Attempt(msgspec.Struct, frozen=True):
    """The span that a lane last tried to send."""

    after: int
    until: int
    skips: bool = False
    """True if its rows were left out by order of an operator."""


class Uplink:
    """Forwards the log until cancelled. While the link is down the node works on and this waits."""

    name = "uplink"

    def __init__(
        self,
        log: Log,
        exchange: Exchange,
        config: UplinkConfig,
        clock: Clock,
        *,
        node: str,
        shed: Callable[[], Sequence[SheddingRule]] = tuple,
        lag: UplinkLag | None = None,
    ) -> None:
        """Prepare to forward.

        Args:
            log: of the node.
            exchange: asks the centre over one connection.
            config: the section `uplink`.
            clock: source of time.
            node: id of this node.
            shed: returns the selections of rows that mode orders withhold now.
            lag: of this node; it outlives the connection.
        """
        self._store_log = log
        self._config = config
        self._clock = clock
        self._shed = shed
        self._claimant = exchange.claimant
        self._lag = lag or UplinkLag(log, clock)
        self._exchange = exchange
        self._packer = Packer(config.grade_max, self._exchange.parts_bytes_max, self._identity_sequence)
        self._backlog_lock = asyncio.Lock()  # both lanes write the backlog's record
        self._resumed = True
        self._gap_s = 0.0
        self._sent_at = float("-inf")
        self._backlog_bytes = BACKLOG_BYTES_MIN * 4
        self._opened = asyncio.Event()
        self._own_record = f"commit.{node}-{PARTITION}"
        self._settled = False
        self._attempts: dict[Lane, _Attempt] = {}
        self.refused_spans: dict[Lane, RefusedSpan] = {}
        """Spans that the centre refuses as a whole."""
        self._skips: dict[Lane, RefusedSpan] = {}
        """Lane -> the refused span whose rows are skipped by order of an operator."""
        self._operator_acted = asyncio.Event()
        self._resend: deque[RefusedPart] = deque(maxlen=RESEND_MAX)
        self.resent: dict[str, str] = {}
        """Id of a refused part that was sent again -> its outcome."""

    @property
    def connected(self) -> bool:
        """Return whether the last request to the centre was answered."""
        return self._exchange.connected

    @property
    def totals(self) -> dict[str, int]:
        """Ledger kind -> count of both lanes, as the centre confirmed it, since this log began.

        Counts of an earlier log, which was lost, are left out: the node's own ledger does not have them.
        """
        sums: dict[str, int] = {}
        for state in self._exchange.lanes.values():
            before = state.record.previous_totals
            for kind, count in state.record.totals.items():
                sums[kind] = sums.get(kind, 0) + count - before.get(kind, 0)
        return sums

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Ranges of the node's log that the backlog lane has still to forward."""
        state = self._exchange.lanes.get(Lane.BACKLOG)
        return state.record.ranges if state else ()

    def place_of(self, sequence: int) -> str:
        """Return where an entry of the node's log stands on its way to the centre, in words."""
        live = self._exchange.lanes.get(Lane.LIVE)
        if live is None:
            return "not known yet: no answer of the centre since this connection began"
        number = live.record.number
        if any(after < sequence <= until for after, until in self.ranges):
            return "waits in the backlog lane"
        if sequence <= live.confirmed:
            return f"confirmed by the centre, in the live lane up to entry {live.confirmed} (commit {number})"
        return f"waits in the live lane, which is confirmed up to entry {live.confirmed} (commit {number})"

    @property
    def problems(self) -> list[str]:
        """Reasons why readings do not go up, one sentence each."""
        sentences = [self._claimant.denied] if self._claimant.denied else []
        sentences += [
            f"uplink: the centre refuses a span of the {span.lane} lane (entries {span.after + 1} to {span.until}, "
            f"tried {span.attempts} times): {span.reason}; `sensegate node skip {span.lane}` skips it"
            for span in self.refused_spans.values()
        ]
        return sentences

    def disconnected(self) -> None:
        """Note that the connection has ended; confirmed lanes stay known."""
        self._exchange.connected = False

    async def run(self) -> None:
        try:
            async with CancellableTaskGroup() as lanes:
                lanes.create_task(self._run_lane(Lane.LIVE), name="uplink live")
                lanes.create_task(self._run_lane(Lane.BACKLOG), name="uplink backlog")
        except ExceptionGroup as errors:
            raise combined(errors) from None

    async def _run_lane(self, lane: Lane) -> None:
        attempt = 0
        while True:
            try:
                if lane is Lane.LIVE:
                    if not await self.forward_live():
                        position = (await self._exchange.lane(lane)).record.position
                        if not await self._store_log.changed(position, POLL_S):
                            await self._exchange.verify_writer()
                elif not await self.forward_backlog():
                    await self._opened.wait()
                attempt = 0
            except (Unavailable, StoreFull) as why:
                wait_s = min(self._config.backoff_max_s, 0.05 * 2**attempt)
                attempt = min(attempt + 1, 16)
                if attempt == 1:
                    _log.warning("centre not reached; readings wait in the node's log", lane=lane, reason=str(why))
                metrics.RESTARTS.labels(f"uplink {lane}").inc()
                await self._clock.sleep(wait_s)
            except Overloaded as why:
                _log.info("centre asks for a pause", lane=lane, reason=str(why), seconds=why.retry_after_s)
                metrics.LIMIT_HITS.labels("centre_pause").inc()
                await self._clock.sleep(why.retry_after_s)
            except PermissionDenied as why:
                await self._wait_for_operator(self._note_refusal(lane, why))

    # ── spans refused as a whole ────────────────────────────────────────────────────────────────────────

    def _note_refusal(self, lane: Lane, why: PermissionDenied) -> float:
        """Note that a span, or this process as the writer, is refused; return the seconds until the next attempt."""
        metrics.RESTARTS.labels(f"uplink {lane}").inc()
        if self._claimant.denied:
            return CLAIM_RETRY_S
        attempt = self._attempts.get(lane, _Attempt(0, 0))
        if attempt.skips:
            self._skips.pop(lane, None)  # it is refused even without its rows
        before = self.refused_spans.get(lane)
        attempts = before.attempts + 1 if before and before.after == attempt.after else 1
        since = before.since if before and attempts > 1 else self._clock.now()
        self.refused_spans[lane] = RefusedSpan(lane, str(why), since, attempts, attempt.after, attempt.until)
        if attempts in {1, REFUSED_ATTEMPTS}:
            _log.error("span refused by the centre", lane=lane, attempts=attempts, reason=str(why))
        if lane in self._skips:
            return 0.0
        return 0.5 * 2**attempts if attempts < REFUSED_ATTEMPTS else REFUSED_RETRY_S

    async def _wait_for_operator(self, seconds: float) -> None:
        """Wait for some seconds, or until an operator acts."""
        self._operator_acted.clear()
        if not self._claimant.force:
            await wait_or_sleep(self._operator_acted, self._clock, seconds)

    def refused_span(self, lane: Lane) -> RefusedSpan:
        """Return the refused span of a lane. Raises `Conflict` where there is none."""
        refused = self.refused_spans.get(lane)
        if refused is None:
            raise Conflict(f"no span of the {lane} lane is refused; there is nothing to skip")
        return refused

    def skip(self, span: RefusedSpan) -> None:
        """Skip a refused span; its rows are counted as skipped. Raises `Conflict` where it is no longer refused."""
        if self.refused_span(span.lane).after != span.after:
            raise Conflict(f"another span of the {span.lane} lane is refused now; look at it first")
        self._skips[span.lane] = span
        self._operator_acted.set()

    def take_over(self) -> None:
        """Claim the lanes by force, even if another copy of this store has sent spans."""
        self._claimant.force = True
        self._exchange.invalidate()
        self._operator_acted.set()

    def _limited_to_skip(self, lane: Lane, entries: Sequence[LogEntry]) -> tuple[Sequence[LogEntry], bool]:
        """Return the entries, limited to those to be skipped where there are any, and whether they are skipped."""
        skipped = self._skips.get(lane)
        # The backlog lane has older entries, too: those withheld by mode orders come after its ranges.
        if skipped is None or not entries or not skipped.after < entries[0].sequence <= skipped.until:
            self._skips.pop(lane, None)
            return entries, False
        return [entry for entry in entries if entry.sequence <= skipped.until], True

    # ── live ─────────────────────────────────────────────────────────────────────────────────────────────

    async def forward_live(self) -> bool:
        """Forward the next span of the live lane; return False where there was nothing new.

        Raises:
            Unavailable, Overloaded, StoreFull: not forwarded, or the outcome is unknown; call again.
            PermissionDenied: the centre refuses the span, or this process as the writer.
        """
        state = await self._exchange.lane(Lane.LIVE)
        if await self._release_withheld(state):
            return True
        after = state.record.position
        entries = await self._fetch(after, self._config.backlog_bytes_max)
        if not entries:
            self._resumed = False
            self._set_lag(after, 0)
            return await self._report_expired()
        self._set_lag(after, entries[-1].sequence - after)
        limit_s = self._config.backlog_after_s * (1.0 if self._resumed else LIVE_LAG_FACTOR)
        if entries[0].time < self._clock.now() - round(limit_s * 1e6) and await self._open_range(state):
            return True
        self._resumed = False
        entries = await self._gather(entries)
        shed = self._shed_now(state.record, after)
        chosen, skips = self._limited_to_skip(Lane.LIVE, whole_commits(entries))
        span = self._packer.pack(chosen, shed=shed, skip=skips)
        withheld = self._withheld_after(state.record, after, span, shed)
        now = self._clock.monotonic()
        since_s, self._sent_at = now - self._sent_at, now
        if not span.parts:
            # Raw messages and records bring nothing to the centre; its record moves with the next span.
            self._exchange.lanes[Lane.LIVE] = state.advanced(span.position, withheld)
            return True
        update = self._lane_update(Lane.LIVE, state, position=span.position, withheld=withheld)
        selection = SpanSelection(state.confirmed, span.position, self._packer.grade_max, shed)
        await self._send(Lane.LIVE, span.parts, [update], selection, skips=skips)
        self._pace(span.rows, since_s)
        return True

    async def _gather(self, entries: list[LogEntry]) -> list[LogEntry]:
        """Return the entries with those that arrive while waiting for more is worth it."""
        waited_s = (self._clock.now() - entries[0].time) / 1e6
        wait_s = min(self._sent_at + self._gap_s - self._clock.monotonic(), self._gap_s - waited_s)
        if wait_s <= 0:
            return entries
        await self._clock.sleep(wait_s)
        # Entries are read once; a batch that is already large does not wait.
        if len(entries) >= FETCH_ENTRIES // 2:
            return entries
        return [*entries, *await self._fetch(entries[-1].sequence, self._config.backlog_bytes_max)]

    async def _report_expired(self) -> bool:
        """Count the readings that expired before they were forwarded, once nothing is left to forward.

        Our own commit record has what was accepted, the lane records have its outcome; both only rise. Return whether
        any had expired.
        """
        if self._settled:
            return False
        async with self._backlog_lock:
            backlog = await self._exchange.lane(Lane.BACKLOG)
            state = await self._exchange.lane(Lane.LIVE)
            if backlog.record.ranges:
                return False
            own = await self._store_log.last(self._own_record)
            is_forwarded = own is not None and own.sequence <= state.record.position
            # One that cannot be read is replaced by the next commit of this gateway.
            if own is None or not is_forwarded or (commit := read(own, "uplink", decode_commit)) is None:
                return False
            accepted, totals = commit.totals.get(ACCEPTED, 0), self.totals
            settled = sum(count for kind, count in totals.items() if kind.partition(".")[0] in _SETTLED_KINDS)
            expired = accepted - settled
            if expired > 0:
                span = self._packer.pack_expired(expired, self._clock.now(), state.record.position)
                # Fenced by both lanes: a range that a late write of ours has opened is not a loss.
                updates = [self._lane_update(Lane.BACKLOG, backlog), self._lane_update(Lane.LIVE, state)]
                if not await self._send(Lane.LIVE, span.parts, updates, SpanSelection()):
                    return True
            self._settled = True
        if expired <= 0:
            return False
        _log.error(
            "readings expired before they were forwarded",
            count=expired,
            reason="no centre for longer than store.readings_ttl_h",
        )
        metrics.LIMIT_HITS.labels("uplink_expired").inc()
        return True

    def _set_lag(self, position: int, unsent: int) -> None:
        self._lag.set(position, unsent, sum(until - after for after, until in self.ranges))

    def _pace(self, rows: int, since_s: float) -> None:
        """Set the least time between spans: short when idle, up to `span_ms`, no longer than filling a span takes."""
        span_s = self._config.span_ms / 1e3
        fills_s = FULL_ROWS * since_s / max(rows, 1)
        self._gap_s = max(0.1 * span_s, min(span_s, span_s * rows / FULL_ROWS, fills_s))

    async def _open_range(self, state: LaneState) -> bool:
        """Move old entries to the backlog lane in a new range; return False where the live lane must forward them."""
        since = self._clock.now() - round(self._config.backlog_after_s * 1e6)
        until = await self._store_log.sequence_at(since) - 1
        after = state.record.position
        if until <= after:
            return False
        async with self._backlog_lock:
            backlog = await self._exchange.lane(Lane.BACKLOG)
            ranges = backlog.record.ranges
            if ranges and ranges[-1][1] == after:
                ranges = (*ranges[:-1], (ranges[-1][0], until))
            elif len(ranges) >= RANGES_MAX:
                metrics.LIMIT_HITS.labels("uplink_ranges").inc()
                return False
            else:
                ranges = (*ranges, (after, until))
            updates = [
                self._lane_update(Lane.BACKLOG, backlog, ranges=ranges),
                self._lane_update(Lane.LIVE, state, position=until),
            ]
            if not await self._send(Lane.LIVE, [], updates, SpanSelection()):
                return True
        # What grew old during this write is forwarded live: else a slow link would open ranges for ever.
        self._settled = self._resumed = False
        _log.info("backlog range opened", after=after, until=until)
        self._opened.set()
        return True

    # ── backlog ──────────────────────────────────────────────────────────────────────────────────────────

    async def forward_backlog(self) -> bool:
        """Forward the next span of the backlog lane; return False where there is none. Raises as `forward_live`."""
        async with self._backlog_lock:
            state = await self._exchange.lane(Lane.BACKLOG)
            if self._resend:
                await self._resend_next(state, self._resend[0])
                return True
            step = await self._next_of_range(state) if state.record.ranges else await self._next_withheld(state)
            if step is None:
                self._opened.clear()
                return False
            span, update, selection, skips = step
            unchanged = update.ranges == state.record.ranges and len(update.withheld) == len(state.record.withheld)
            if unchanged and not span.parts:
                # Nothing in these entries was withheld; the centre's record moves with the next span.
                self._exchange.lanes[Lane.BACKLOG] = state.advanced(state.record.position, update.withheld)
            else:
                began = self._clock.monotonic()
                try:
                    await self._send(Lane.BACKLOG, span.parts, [update], selection, skips=skips)
                except Unavailable:
                    # A span that timed out would time out again; a smaller one may go through.
                    self._adapt(max(self._clock.monotonic() - began, BACKLOG_WRITE_S))
                    raise
                self._adapt(self._clock.monotonic() - began)
        await asyncio.sleep(0)  # lets the live lane open a range
        return True

    async def _next_of_range(self, state: LaneState) -> tuple[PackedSpan, LaneUpdate, SpanSelection, bool]:
        """Return the next span of the oldest range, with its lane update and selection, and whether it is skipped."""
        record = state.record
        (after, until), *later = record.ranges
        entries: Sequence[LogEntry] = await self._fetch_range(after, until)
        skips = False
        if entries:
            entries, skips = self._limited_to_skip(Lane.BACKLOG, whole_commits(entries))
        shed = self._shed_now(record, after)
        span = self._packer.pack(entries, Flag.BACKLOG, shed, skip=skips) if entries else PackedSpan([], until, 0)
        ranges = tuple(later) if not entries or span.position >= until else ((span.position, until), *later)
        withheld = self._withheld_after(record, after, span, shed)
        update = self._lane_update(Lane.BACKLOG, state, position=span.position, ranges=ranges, withheld=withheld)
        return span, update, SpanSelection(after, span.position, self._packer.grade_max, shed), skips

    async def _next_withheld(self, state: LaneState) -> tuple[PackedSpan, LaneUpdate, SpanSelection, bool] | None:
        """Return the next span of rows withheld by orders that have ended; None: there is none."""
        record, shed = state.record, self._shed()
        index = next((index for index, part in enumerate(record.withheld) if not part.overlaps(shed)), -1)
        if index < 0:
            return None
        part = record.withheld[index]
        entries: Sequence[LogEntry] = await self._fetch_range(part.after, part.until)
        skips = False
        if entries:
            entries, skips = self._limited_to_skip(Lane.BACKLOG, entries)
        span = self._packer.pack_withheld(entries, part, skip=skips) if entries else PackedSpan([], part.until, 0)
        left = () if span.position >= part.until else (msgspec.structs.replace(part, after=span.position),)
        update = self._lane_update(
            Lane.BACKLOG, state, withheld=(*record.withheld[:index], *left, *record.withheld[index + 1 :])
        )
        selection = SpanSelection(part.after, span.position, part.grade_max, part.shed, withheld_only=True)
        return span, update, selection, skips

    async def _fetch_range(self, after: int, until: int) -> list[LogEntry]:
        return [entry for entry in await self._fetch(after, self._backlog_bytes) if entry.sequence <= until]

    def _adapt(self, took_s: float) -> None:
        """Size backlog messages so that each takes about `BACKLOG_WRITE_S` on this link: live ones wait for them."""
        if took_s > BACKLOG_WRITE_S:
            self._backlog_bytes = max(BACKLOG_BYTES_MIN, self._backlog_bytes // 2)
        elif took_s < BACKLOG_WRITE_S / 4:
            self._backlog_bytes = min(self._config.backlog_bytes_max, self._backlog_bytes * 2)

    # ── refused parts ────────────────────────────────────────────────────────────────────────────────────

    async def refused_parts(self) -> list[RefusedPart]:
        """Return the parts that the centre refused and that can be sent again.

        Raises `Unavailable`, `PermissionDenied`.
        """
        return await self._exchange.refused_parts()

    async def resend(self, ids: Sequence[str] = ()) -> list[RefusedPart]:
        """Queue refused parts to be sent again, all of them where none is named; return those that wait now.

        Raises:
            NotFound: one of them is not on the list.
            Unavailable, PermissionDenied: the centre does not return the list.
        """
        listed = {part.id: part for part in await self.refused_parts()}
        if missing := [part_id for part_id in ids if part_id not in listed]:
            raise NotFound(f"no refused part {missing[0]}")
        waiting = {part.id for part in self._resend}
        added = [listed[part_id] for part_id in ids or listed if part_id not in waiting]
        self._resend.extend(added[: RESEND_MAX - len(waiting)])
        for part in added:
            self.resent.pop(part.id, None)
        self._opened.set()
        return list(self._resend)

    async def _resend_next(self, state: LaneState, part: RefusedPart) -> None:
        """Send the next span of a refused part again, and note its outcome."""
        selection = part.selection
        entries = await self._fetch_range(selection.after, selection.until)
        span = PackedSpan([], selection.until, 0)
        if part.log_epoch != self._store_log.epoch:
            self._finish_resend(part, "not sent: it belongs to a log that this one has replaced")
            return
        if part.grade > self._packer.grade_max:
            self._finish_resend(part, f"not sent: grade {part.grade} is no longer shared (uplink.grade_max)")
            return
        if entries:
            packer = msgspec.structs.replace(self._packer, grade_max=selection.grade_max)
            only = PartFilter(part.kind, part.grade, frozenset(part.devices))
            if selection.withheld_only:
                withheld = WithheldRange(selection.after, selection.until, selection.shed, selection.grade_max)
                span = packer.pack_withheld(entries, withheld, only=only)
            else:
                span = packer.pack(entries, Flag.BACKLOG, selection.shed, only=only)
        is_last = span.position >= selection.until
        sent = msgspec.structs.replace(selection, until=min(span.position, selection.until))
        update = self._lane_update(Lane.BACKLOG, state)
        try:
            answer = await self._exchange.send(span.parts, [update], sent, resend_of=part.id)
        except PermissionDenied as why:
            self._finish_resend(part, f"refused: {why}")
            return
        refused = ", ".join(sorted({item.reason for item in answer.refused}))
        if answer.outcome is SpanOutcome.STILL_REFUSED:
            self._finish_resend(part, f"still refused: {refused}")
        elif answer.outcome is SpanOutcome.STALE:
            if all(item.id != part.id for item in await self.refused_parts()):
                self._finish_resend(part, "sent")
        elif is_last:
            self._finish_resend(part, f"sent; refused in part: {refused}" if refused else "sent")
        else:
            left = msgspec.structs.replace(selection, after=span.position)
            self._resend[0] = msgspec.structs.replace(part, selection=left)

    def _finish_resend(self, part: RefusedPart, outcome: str) -> None:
        self._resend.popleft()
        _log.info("refused part sent again", part=part.id, outcome=outcome)
        if len(self.resent) >= RESEND_MAX:
            self.resent.pop(next(iter(self.resent)))
        self.resent[part.id] = outcome

    # ── rows withheld by mode orders ─────────────────────────────────────────────────────────────────────

    def _shed_now(self, record: LaneRecord, after: int) -> tuple[SheddingRule, ...]:
        """Return the selections to withhold after a sequence; none where the lane record has no room to name them."""
        shed = tuple(self._shed())
        if shed and len(record.withheld) >= WITHHELD_MAX and not self._continues(record.withheld[-1], after, shed):
            metrics.LIMIT_HITS.labels("uplink_kept").inc()
            return ()
        return shed

    def _continues(self, withheld: WithheldRange, after: int, shed: tuple[SheddingRule, ...]) -> bool:
        return (withheld.until, withheld.shed, withheld.grade_max) == (after, shed, self._packer.grade_max)

    def _withheld_after(
        self, record: LaneRecord, after: int, span: PackedSpan, shed: tuple[SheddingRule, ...]
    ) -> tuple[WithheldRange, ...]:
        """Return the withheld ranges of a lane after a span that was packed with `shed`."""
        if shed and record.withheld and self._continues(record.withheld[-1], after, shed):
            return (*record.withheld[:-1], msgspec.structs.replace(record.withheld[-1], until=span.position))
        if span.shed_rows:
            return (*record.withheld, WithheldRange(after, span.position, shed, self._packer.grade_max))
        return record.withheld

    async def _release_withheld(self, state: LaneState) -> bool:
        """Move ranges withheld by orders that have ended to the backlog lane; return False where there are none."""
        shed = self._shed()
        backlog_lane = self._exchange.lanes.get(Lane.BACKLOG)
        if backlog_lane and any(not part.overlaps(shed) for part in backlog_lane.record.withheld):
            self._opened.set()
        released = [part for part in state.record.withheld if not part.overlaps(shed)]
        if not released:
            return False
        async with self._backlog_lock:
            backlog = await self._exchange.lane(Lane.BACKLOG)
            released = released[: max(0, WITHHELD_MAX - len(backlog.record.withheld))]
            if not released:
                return False
            left = tuple(part for part in state.record.withheld if part not in released)
            updates = [
                self._lane_update(Lane.BACKLOG, backlog, withheld=(*backlog.record.withheld, *released)),
                self._lane_update(Lane.LIVE, state, withheld=left),
            ]
            if not await self._send(Lane.LIVE, [], updates, SpanSelection()):
                return True
        _log.info("rows withheld by a mode order are forwarded", parts=len(released))
        self._opened.set()
        return True

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, after: int, bytes_max: int) -> list[LogEntry]:
        return await self._store_log.fetch(after, limit=FETCH_ENTRIES, max_bytes=bytes_max)

    def _identity_sequence(self, sequence: int) -> int:
        """Return the sequence in the identities of an entry's rows: shifted where a copy of the log has used it."""
        for shift in self._claimant.shifts:
            if shift.after < sequence <= shift.until:
                return sequence + shift.by
        return sequence

    def _lane_update(
        self,
        lane: Lane,
        state: LaneState,
        *,
        position: int | None = None,
        ranges: tuple[tuple[int, int], ...] | None = None,
        withheld: tuple[WithheldRange, ...] | None = None,
    ) -> LaneUpdate:
        record = state.record
        return LaneUpdate(
            lane,
            record.number,
            record.position if position is None else position,
            record.ranges if ranges is None else ranges,
            record.withheld if withheld is None else withheld,
        )

    async def _send(
        self,
        lane: Lane,
        parts: Sequence[SpanPart],
        updates: Sequence[LaneUpdate],
        selection: SpanSelection,
        *,
        skips: bool = False,
    ) -> bool:
        """Send a span; return False where it was built on outdated records. Raises as `forward_live`."""
        self._attempts[lane] = _Attempt(selection.after, selection.until, skips)
        try:
            answer = await self._exchange.send(parts, updates, selection)
        except (Unavailable, asyncio.CancelledError):
            self._resumed = True
            self._opened.set()  # the span may have opened a range all the same
            raise
        self.refused_spans.pop(lane, None)
        if answer.outcome is not SpanOutcome.ACCEPTED:
            self._resumed = True
            self._opened.set()
            return False
        if skips and (skipped := self._skips.get(lane)) and selection.until >= skipped.until:
            del self._skips[lane]  # rows of these entries that a mode order withholds are another span
        _log_refusals(answer.refused)
        return True


_SETTLED_KINDS = frozenset({FORWARDED, WITHHELD, REFUSED_BY_CENTRE})


def _log_refusals(refused: Sequence[PartRefusal]) -> None:
    for part in refused:
        metrics.LIMIT_HITS.labels("refused_by_centre").inc()
        if part.is_new:
            _log.error(
                "part of a span refused by the centre; `sensegate node refused` lists it",
                kind=part.kind,
                grade=part.grade,
                rows=part.rows,
                reason=part.reason,
                part=part.id or "not listed, the list is full",
            )
