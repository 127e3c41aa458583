"""Scrub: comparison of log, ledger and dedup index with one another; losses are counted and reported.

    log ──┬─▶ extents (`extents.py`): unchanged since the first scan?
          ├─▶ ledger: as many readings as its commits accepted?
          └─▶ dedup index (files of the last checkpoint): each file intact; the same readings, hour by hour?

A pass reads the log once. It runs slowly in the gateway, or standalone where no gateway runs. A gateway whose index is
wrong, or has readings that the log lost, rebuilds the index before it deduplicates any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import structlog

from sensegate.bus import columns
from sensegate.bus.batch import Batch
from sensegate.bus.commit_records import decode_commit
from sensegate.bus.ledger import ACCEPTED, Ledger
from sensegate.bus.names import PARTITION
from sensegate.bus.timelines import Timelines
from sensegate.clock import HOUR_US, Clock
from sensegate.config import Config
from sensegate.model import I64, U64, LogEntry
from sensegate.persist import extents
from sensegate.persist.checkpoint_store import CheckpointSnapshot, read_snapshot
from sensegate.persist.extents import FINDINGS_MAX, ROWS, Extent, ExtentCounts, Loss, LossCause, ScrubState, missing
from sensegate.persist.identity import KIND_MASK, NONE, fingerprints, hashes, value_bits
from sensegate.persist.sorted_runs import ARRIVAL_BUCKETS, CHUNK_ROWS, FAR_FUTURE_US, bucket_of, hour_of
from sensegate.quantities.quality import Flag

EXTENT_ENTRIES = 2_000
"""Entries after which an extent ends, with the next commit."""
_PAGE_ENTRIES, _PAGE_BYTES = 500, 1_048_576
_LEDGER = "ledger."
_MARGIN_US = HOUR_US
"""Entries that expire within this time are not compared."""

_log = structlog.get_logger("persist")


class ScrubbedLog(Protocol):
    """The part of `bus.contract.Log` that the scrub reads."""

    @property
    def epoch(self) -> str: ...

    @property
    def timelines(self) -> Timelines: ...

    async def last(self, subject: str) -> LogEntry | None: ...

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]: ...

    async def bounds(self) -> tuple[int, int]: ...

    async def sequence_at(self, time: int) -> int: ...


class ScrubTarget(msgspec.Struct, frozen=True):
    """The gateway whose log and index are scrubbed."""

    directory: Path
    """Directory of the gateway."""
    node: str
    partition: int
    ttl_h: dict[str, int]
    """Lifetime of entries by kind (`extents.RETAINED_KINDS`)."""
    horizon_us: int
    """Age up to which the dedup index reaches."""
    seen_ttl_us: int
    """Lifetime of the identities of suppressed readings."""

    @property
    def writer(self) -> str:
        """Last token of the subjects of the gateway's own commits."""
        return f"{self.node}-{self.partition}"

    @property
    def index(self) -> Path:
        """Directory of the dedup index."""
        return self.directory / "duplicates"


def scrub_target(config: Config, horizon_us: int) -> ScrubTarget:
    """Return the scrub target of a configuration."""
    store = config.store
    ttl_h = {
        "raw": store.raw_ttl_h,
        "readings": store.readings_ttl_h,
        "observations": store.observations_ttl_h,
        "quarantine": store.quarantine_ttl_h,
        "ledger": store.readings_ttl_h,
    }
    directory = Path(config.directory)
    return ScrubTarget(directory, config.member_id, PARTITION, ttl_h, horizon_us, horizon_us + HOUR_US)


class _BucketSums:
    """Number of rows per bucket of the index, and a checksum of the set of rows."""

    def __init__(self) -> None:
        self.count: dict[int, int] = {}
        self.sum: dict[int, int] = {}

    def add(self, bucket: int, mixed: U64) -> None:
        """Add rows of a bucket."""
        self.count[bucket] = self.count.get(bucket, 0) + len(mixed)
        self.sum[bucket] = (self.sum.get(bucket, 0) + int(mixed.sum(dtype=np.uint64))) & (2**64 - 1)


_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def _row_digests(hashed: U64, bits: U64, printed: U64) -> U64:
    """Return a digest of each row; the series is part of its hash."""
    mixed = hashed ^ (bits * _MULTIPLIER)
    mixed ^= mixed >> np.uint64(29)
    mixed += printed
    mixed *= _MULTIPLIER
    mixed ^= mixed >> np.uint64(32)
    return mixed


class _IndexCheck:
    """Comparison of the dedup index, as of its last checkpoint, with the readings of the log."""

    def __init__(self, snapshot: CheckpointSnapshot, since: int) -> None:
        """`since`: start of the comparison, µs."""
        self.sequence = snapshot.manifest.sequence
        self.since = since
        self._snapshot = snapshot
        self._floor = snapshot.manifest.floor
        self._number = {word: number for number, word in enumerate(snapshot.series_names)}
        self._log = _BucketSums()
        self.unknown = 0
        """Rows on the log of series that are not in the index."""

    def add(self, batch: Batch) -> None:
        """Add a batch of this gateway's own, as `Deduplicator.apply` does."""
        local = batch.local
        if local is None or not len(batch):
            return
        kinds = local.identity & np.uint8(KIND_MASK)
        rows = np.flatnonzero(((batch.flags & np.uint32(Flag.NOT_DEDUPLICATED)) == 0) & (kinds != NONE))
        if not rows.size:
            return
        number = self._numbers(batch, rows, kinds[rows])
        known = number >= 0
        self.unknown += int((~known).sum())
        rows, number = rows[known], number[known]
        mixed = _row_digests(
            hashes(number.astype(np.uint32), local.key[rows]),
            value_bits(batch.value, batch.text)[rows],
            fingerprints(local.digest[local.message[rows]], local.path[rows]),
        )
        buckets = bucket_of(kinds[rows], batch.time[rows], batch.received[rows])
        for bucket in np.unique(buckets).tolist():
            self._log.add(bucket, mixed[buckets == bucket])

    def _numbers(self, batch: Batch, rows: I64, kinds: np.ndarray) -> I64:
        variables = batch.variables()
        code = (batch.origin[rows].astype(np.int64) * len(variables) + batch.property[rows]) * 16 + kinds
        different, place = np.unique(code, return_inverse=True)
        numbers = np.empty(len(different), np.int64)
        for at, one_code in enumerate(different.tolist()):
            origin, variable = divmod(one_code >> 4, len(variables))
            name, channel = variables[variable]
            word = f"{batch.origins.device[origin]}\n{name}\n{channel}\n{one_code & 15}"
            numbers[at] = self._number.get(word, -1)
        return numbers[place]

    def count_differences(self, covered_from: int) -> int:
        """Return the number of readings in which log and index differ, as far as it can be determined.

        `covered_from`: of what was stored since then (µs), nothing had expired before it was read.
        """
        held = _BucketSums()
        for run in self._snapshot.runs:
            for place, bucket in enumerate(run.buckets.tolist()):
                for start in range(0, int(run.length[place]), CHUNK_ROWS):
                    part = run.rows_of_bucket(place, start, min(start + CHUNK_ROWS, int(run.length[place])))
                    held.add(bucket, _row_digests(part.hash, part.bits, part.fingerprints))
                run.release_pages()
        differing = self.unknown
        for bucket in {*held.count, *self._log.count}:
            if hour_of(bucket) < self._floor:
                continue
            here, there = held.count.get(bucket, 0), self._log.count.get(bucket, 0)
            if _oldest_storage(bucket) >= covered_from:
                equal = held.sum.get(bucket, 0) == self._log.sum.get(bucket, 0)
                differing += abs(here - there) or (0 if equal else max(here, 1))
            else:
                differing += max(0, there - here)
        return differing


def _oldest_storage(bucket: int) -> int:
    """Return the earliest time (µs) at which an entry with rows of a bucket was stored."""
    return hour_of(bucket) * HOUR_US - (0 if bucket >= ARRIVAL_BUCKETS else FAR_FUTURE_US)


class _NewCommits:
    """Scan of the log after the recorded extents, commit by commit."""

    def __init__(
        self,
        note: Callable[[ExtentCounts, LogEntry, str], None],
        state: ScrubState,
        timelines: Timelines,
        own: str,
        now: int,
    ) -> None:
        """`note` counts an entry; `own`: subject of this gateway's own ledgers."""
        self._note = note
        self._state = state
        self._timelines = timelines
        self._own = own
        self._now = now
        self.record = 0
        """Sequence of the last commit record."""
        self._start = state.end
        self._open: Extent | None = None
        self._commit = ExtentCounts({})
        self._subject = ""
        self._at = state.end
        self._before = self._after = 0
        """Readings accepted by commits up to the record, and after it."""

    def add(self, entries: Sequence[LogEntry]) -> None:
        """Count the next entries."""
        for entry in entries:
            if self._subject.startswith(_LEDGER) and entry.subject != self._subject:
                self._end_commit()
            self._note(self._commit, entry, entry.subject.partition(".")[0])
            if self._commit.unreadable:
                description = f"entry {entry.sequence} does not decode"
                self._report(LossCause.DAMAGED, description, entry.sequence, entries=1)
                self._commit.unreadable = []
            self._subject, self._at = entry.subject, entry.sequence

    def _end_commit(self) -> None:
        commit = self._commit
        if self._subject == self._own and commit.accepted != commit.own_rows:
            description = f"a commit accepted {commit.accepted} readings; {commit.own_rows} are on the log"
            first = (self._open.end if self._open else self._state.end) + 1
            self._report(LossCause.UNBALANCED, description, first, max(commit.accepted - commit.own_rows, 0))
        self._commit = ExtentCounts({})
        if self._at <= self.record:
            self._before += commit.accepted
        else:
            self._after += commit.accepted
        part = commit.extent(self._at, self._timelines.timeline_at(self._at))
        self._open = part if self._open is None else self._open.merged_with(part)
        if sum(self._open.kinds.values()) >= EXTENT_ENTRIES:
            self._state.add(self._open)
            self._open = None

    def close(self, total: int) -> None:
        """Finish the last commit, and compare the counts with the total of accepted readings in its record.

        `total` is -1 where the record cannot be decoded: the next pass then compares nothing with its own.
        """
        if self._subject.startswith(_LEDGER):
            self._end_commit()
        if self._open is not None:
            self._state.add(self._open)
        state = self._state
        if total < 0:
            state.accepted = -1
            return
        if not self.record or self._start >= self.record:
            state.accepted = total + self._after if state.accepted < 0 else state.accepted + self._before + self._after
            return
        lost = total - state.accepted - self._before if state.accepted >= 0 else 0
        if lost > 0:
            description = "whole commits are missing: the last one counts more than are on the log"
            self._at = self.record
            self._report(LossCause.DAMAGED, description, self._start + 1, lost)
        state.accepted = total + self._after

    def _report(self, cause: LossCause, description: str, first: int, readings: int = 0, *, entries: int = 0) -> None:
        last = max(first, self._at)
        since, until = self._commit.since, self._commit.until
        self._state.report(Loss(cause, self._now, description, first, last, readings, entries, since, until))


def _accepted_total(record: LogEntry) -> int:
    """Return the readings accepted since the log began; -1 where the record cannot be decoded."""
    try:
        return decode_commit(record.payload).totals.get(ACCEPTED, 0)
    except ValueError:
        return -1


class Scrub:
    """Scrubs the log and index of a gateway. `sequences_done` and `sequences_total` concern the present pass."""

    def __init__(
        self,
        log: ScrubbedLog,
        subject: ScrubTarget,
        clock: Clock,
        *,
        request_rebuild: Callable[[str], None] | None = None,
    ) -> None:
        """`request_rebuild` is called with the reason for rebuilding the index; None: no gateway runs."""
        self._log = log
        self._subject = subject
        self._clock = clock
        self._request_rebuild = request_rebuild
        self._bytes_s = 0
        self._index: _IndexCheck | None = None
        self.sequences_done = self.sequences_total = 0
        self.bytes_read = 0
        """Bytes read by all passes."""

    async def run_pass(self, *, bytes_s: int = 0) -> ScrubState:
        """Make a pass, reading at most `bytes_s` per second (0: unlimited); return the new state.

        Raises:
            Unavailable: the log does not respond; the next pass scans what was not scanned.
            StoreFull: the state cannot be written.
        """
        now, subject = self._clock.now(), self._subject
        self._bytes_s, self.sequences_done = bytes_s, 0
        state = await asyncio.to_thread(extents.read, subject.directory, self._log.epoch)
        shortest = min(subject.ttl_h[kind] for kind in ROWS) * HOUR_US
        state.expire(now - shortest + _MARGIN_US)
        if not state.extents:
            # Entries after the last extent may have expired, too: the total cannot be compared.
            state.accepted = -1
            state.start = max(state.start, await self._log.sequence_at(now - shortest + _MARGIN_US) - 1)
        known = [loss for loss in state.losses if loss.found_at > now - shortest]
        state.losses = []
        record = await self._log.last(f"commit.{subject.writer}")
        # Up to here: a log that grows faster than it may be read would never end.
        end = (await self._log.bounds())[1]
        self.sequences_total = max(end - state.start, 1)
        self._index = await asyncio.to_thread(self._open_index, state, now)
        await self._verify_extents(state, now)
        await self._scan_new_commits(state, now, record, end)
        if self._index is not None:
            # A slow pass lasts hours: more has expired at its end than at its start.
            covered_from = self._clock.now() - min(subject.horizon_us, subject.seen_ttl_us) + _MARGIN_US
            if differing := await asyncio.to_thread(self._index.count_differences, covered_from):
                description = "the deduplication index differs from the log"
                state.report(Loss(LossCause.INDEX, now, description, readings=differing))
        state.started, state.finished = now, self._clock.now()
        new_losses, state.losses = state.losses, [*known, *state.losses][-FINDINGS_MAX:]
        await asyncio.to_thread(extents.write, subject.directory, state)
        self._log_losses(new_losses, now)
        self._index = None
        return state

    def remove_rate_limit(self) -> None:
        """Continue the present pass as fast as possible."""
        self._bytes_s = 0

    # ── the index ───────────────────────────────────────────────────────────────────────────────────

    def _open_index(self, state: ScrubState, now: int) -> _IndexCheck | None:
        """Return the comparison with the last checkpoint, whose files are verified; None: it is missing or corrupt."""
        subject = self._subject
        try:
            snapshot = read_snapshot(subject.index)
        except (OSError, ValueError) as why:
            state.report(Loss(LossCause.INDEX_FILE, now, str(why)))
            return None
        if snapshot is None or not self._log.timelines.holds(snapshot.manifest.timeline, snapshot.manifest.sequence):
            return None
        return _IndexCheck(snapshot, now - subject.horizon_us)

    # ── extents ─────────────────────────────────────────────────────────────────────────────────────

    async def _verify_extents(self, state: ScrubState, now: int) -> None:
        """Compare the log with all extents, and replace each by its present content: a loss is reported once."""
        known, state.extents = state.extents, []
        for place, extent in enumerate(known):
            held = self._log.timelines.holds(extent.timeline, extent.end)
            if held:
                start = state.end
                tally = await self._count_range(start, extent.end)
                self._compare(state, extent, tally, now, start)
                state.add(msgspec.structs.replace(tally.extent(extent.end, extent.timeline), accepted=extent.accepted))
                continue
            if held is False:
                await self._report_lost_end(state, known[place:], now)
            # The accepted total is that of the former log: it is counted again.
            state.accepted = -1
            return

    def _compare(self, state: ScrubState, extent: Extent, tally: ExtentCounts, now: int, start: int) -> None:
        read_at = self._clock.now()  # a slow pass lasts hours: entries have expired since its start
        kinds = [
            kind for kind, hours in self._subject.ttl_h.items() if extent.since + hours * HOUR_US > read_at + _MARGIN_US
        ]
        lost = missing(extent.kinds, tally.kinds, kinds)
        has_rows = ROWS.issubset(kinds)
        readings = extent.rows - tally.rows if has_rows else 0
        if not lost and readings == 0 and (extent.digest == tally.digest or not has_rows):
            return
        counts = ", ".join(f"{count} {kind}" for kind, count in lost.items()) or "altered entries"
        description = f"missing on the log: {counts}"
        state.report(
            Loss(
                LossCause.DAMAGED,
                now,
                description,
                start + 1,
                extent.end,
                max(readings, 0),
                sum(lost.values()),
                extent.since,
                extent.until,
            )
        )

    async def _report_lost_end(self, state: ScrubState, lost: Sequence[Extent], now: int) -> None:
        """Report which part of some extents the log lost with its end, and keep the remainder."""
        whole = lost[0]
        for extent in lost[1:]:
            whole = whole.merged_with(extent)
        agreed = self._log.timelines.diverged_at(lost[0].timeline) or 0
        end = min(max(agreed, state.end), whole.end)
        if end > state.end and not self._log.timelines.holds(self._log.timelines.timeline_at(end), end):
            end -= 1  # the mark of the timeline that replaced it
        tally = await self._count_range(state.end, end)
        entries = sum(missing(whole.kinds, tally.kinds, list(self._subject.ttl_h)).values())
        description = "the log ended earlier at a later start"
        readings = max(whole.rows - tally.rows, 0)
        if entries or readings:
            state.report(
                Loss(
                    LossCause.END_CUT, now, description, end + 1, whole.end, readings, entries, tally.until, whole.until
                )
            )
        if tally.entries:
            state.add(tally.extent(end, self._log.timelines.timeline_at(end)))

    async def _scan_new_commits(self, state: ScrubState, now: int, record: LogEntry | None, end: int) -> None:
        """Scan from the extents up to `end`: compare each commit with its ledger, and all with the total."""
        ahead = _NewCommits(self._count, state, self._log.timelines, f"ledger.{self._subject.writer}", now)
        ahead.record = record.sequence if record is not None else 0
        async for entries in self._pages(state.end, end):
            await asyncio.to_thread(ahead.add, entries)
        ahead.close(_accepted_total(record) if record is not None else 0)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    async def _count_range(self, after: int, end: int) -> ExtentCounts:
        tally = ExtentCounts({})
        async for entries in self._pages(after, end):
            await asyncio.to_thread(self._count_all, tally, entries)
        return tally

    async def _pages(self, after: int, end: int) -> AsyncIterator[list[LogEntry]]:
        """Yield pages of the entries after a sequence up to `end`, at the permitted rate."""
        while after < end:
            entries = await self._log.fetch(after, limit=_PAGE_ENTRIES, max_bytes=_PAGE_BYTES)
            inside = [entry for entry in entries if entry.sequence <= end]
            if not inside:
                return
            yield inside
            self.sequences_done += inside[-1].sequence - after
            after = inside[-1].sequence
            size = sum(len(entry.payload) for entry in entries)
            self.bytes_read += size
            if self._bytes_s:
                await self._clock.sleep(size / self._bytes_s)
            if len(inside) < len(entries):
                return

    def _count_all(self, tally: ExtentCounts, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            self._count(tally, entry, entry.subject.partition(".")[0])

    def _count(self, tally: ExtentCounts, entry: LogEntry, kind: str) -> None:
        """Count an entry, and add its rows to the comparison with the index."""
        tally.count(entry, kind)
        subject, index = self._subject, self._index
        name = entry.subject.partition(".")[2]
        try:
            if kind == "ledger" and name == subject.writer:
                tally.accepted += Ledger.decode(entry.payload).totals().get(ACCEPTED, 0)
            elif kind in ROWS or (kind == "seen" and name == subject.writer):
                batch = columns.decode(entry.payload, sequence=entry.sequence)
                if kind in ROWS:
                    tally.rows += len(batch)
                if (batch.node, batch.partition) == (subject.node, subject.partition) and batch.local is not None:
                    tally.own_rows += len(batch) if kind in ROWS else 0
                    if index is not None and entry.sequence <= index.sequence and entry.time >= index.since:
                        index.add(batch)
        except ValueError:
            tally.unreadable.append(entry.sequence)

    # ── reporting ───────────────────────────────────────────────────────────────────────────────────

    def _log_losses(self, losses: Sequence[Loss], now: int) -> None:
        for loss in losses:
            _log.error(
                "scrub found a loss",
                reason=loss.cause.value,
                loss=loss.description,
                first=loss.first,
                last=loss.last,
                readings=loss.readings,
            )
        horizon = now - self._subject.horizon_us
        wrong = [loss for loss in losses if loss.readings or not loss.first]
        recent = [loss for loss in wrong if not loss.until or loss.until >= horizon]
        if recent and self._request_rebuild is not None:
            self._request_rebuild(f"the scrub has found: {recent[-1].description}")
