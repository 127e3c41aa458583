"""Deduplication of readings: exact over the horizon, across restarts, for any order of arrival.

A reading with a key above the watermark of its series is new, without a look-up. All others, and those of a series with
times in the future, are looked up among the accepted identities: in the memtable since the last checkpoint, on disk in
the sorted runs. The state is a function of the log: a checkpoint has the log sequence up to which it is valid, and the
entries after it are applied when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import structlog

from sensegate.bus.columns import Batch
from sensegate.bus.timelines import Timelines
from sensegate.clock import HOUR_US, Clock
from sensegate.model import BOOL, I64, U8, U32, U64, Readings
from sensegate.persist import conflicts, series_order
from sensegate.persist.dedup_index import DedupIndex
from sensegate.persist.identity import (
    ACCEPTED,
    IS_REFERENCE,
    KIND_MASK,
    KINDS,
    NONE,
    UNCHANGED,
    SpecColumns,
    fingerprints,
    hashes,
    value_bits,
)
from sensegate.persist.watermarks import NEVER, SeriesNames, Watermarks
from sensegate.quantities.quality import Flag

_AHEAD_US = HOUR_US
"""Times of accepted readings further ahead than this stem, by default, from a system clock that was ahead."""
HORIZON_SLACK_H = 2
"""Hours kept beyond the horizon, because arrivals of different sources are not exactly in order."""

_log = structlog.get_logger("persist")

DeviceId = Callable[[int], str]
"""Registry index -> canonical device id."""


class DedupResult(msgspec.Struct, frozen=True, eq=False):
    """Result of deduplication for each reading of a batch."""

    kind: U8
    """0: accepted; otherwise the code of the kind of duplicate (`identity.VERDICTS`)."""
    revision: U8
    """Number of readings of the same identity that were accepted before it, at most 255."""
    flags: U32
    """The reading's flags with those of the judgement: late, conflict, unidentifiable, not_deduplicated, heartbeat."""
    identity: U8
    """Local column of `bus.columns`: kind of identity, and LEADS."""

    @property
    def accepted(self) -> BOOL:
        """Mask of the accepted readings."""
        keep: BOOL = self.kind == ACCEPTED
        return keep


class _BatchState(msgspec.Struct, frozen=True, eq=False):
    """State of a batch during deduplication: columns by row."""

    readings: Readings
    kinds: U8
    number: U32
    bits: U64
    fingerprints: U64
    kind: U8
    revision: U8
    flags: U32
    identity: U8


class Deduplicator:
    """Deduplicates the readings of a partition. Only one thread at a time may call `judge` and `freeze`."""

    def __init__(
        self, directory: Path, *, clock: Clock, horizon_h: int = 24, checkpoint_s: float = 5.0, device_id: DeviceId
    ) -> None:
        self._clock = clock
        self._horizon = horizon_h * HOUR_US
        self._horizon_h = horizon_h
        self._device_id = device_id
        self.directory = directory
        self._index = DedupIndex(directory, clock, checkpoint_s)
        self.rebuild_reason = ""
        """Reason why `open` must rebuild the state before the next `judge`; empty: it need not."""
        self.damage = ""
        """Reason why the last `open` could not use the files; empty: it could, or there were none."""
        self._reset()

    def _reset(self) -> None:
        self._watermarks, self._names = Watermarks(), SeriesNames()
        self._number = np.full(1 << 12, -1, np.int64)
        self._floor = 0
        self._latest = 0

    # ── opening and checkpoints ───────────────────────────────────────────────────────────────────────

    def open(self, timelines: Timelines, last: int) -> int:
        """Load the last checkpoint; return the log sequence up to which it is valid, -1: there is none.

        `timelines` and `last` (the last sequence) are the log's: a checkpoint of another log, or beyond it, is unused.
        """
        self._reset()
        opened = self._index.open(timelines, last)
        if self.rebuild_reason:
            self.damage, self.rebuild_reason = self.rebuild_reason, ""
            self._index.discard()
            return -1
        self.damage = self._index.damage
        if opened is None:
            return -1
        self._names = SeriesNames(opened.series_names)
        self._watermarks.restore(opened.watermarks)
        self._floor, self._latest = opened.manifest.floor, opened.manifest.latest
        return opened.manifest.sequence

    @property
    def witness(self) -> int:
        """Sequence of an entry that the log must hold if it has not lost entries of this state; 0: none."""
        return self._index.witness

    def discard(self) -> None:
        """Discard the state just opened: the log lacks entries from which it was built."""
        self._index.discard()
        self._reset()

    def request_rebuild(self, reason: str) -> None:
        """Have the next `open` rebuild the state from the log, because it differs from the log."""
        self.rebuild_reason = reason

    @property
    def checkpoint(self) -> int:
        """Log sequence up to which the last checkpoint on disk is valid; 0: there is none."""
        return self._index.checkpoint

    @property
    def lost_end(self) -> int:
        """Last sequence of the log before it lost its end, as found by `open`; 0: it lost nothing."""
        return self._index.lost_end

    def clear_lost_end(self) -> None:
        """Clear `lost_end` after the log was padded."""
        self._index.clear_lost_end()

    @property
    def horizon_us(self) -> int:
        """Age of the log, in µs, from which a start without a checkpoint must read it."""
        return self._horizon + HORIZON_SLACK_H * HOUR_US

    def raise_floor(self, before: int) -> None:
        """Do not deduplicate readings older than a time (µs): the log, from which the state is built, lacks them."""
        self._floor = max(self._floor, before // HOUR_US + 1)

    def close(self) -> None:
        """Wait for the worker and stop it; the next `open` reads from the log what is in no checkpoint."""
        self._index.close()

    @property
    def checkpoint_due(self) -> bool:
        """True when a checkpoint should be taken and the worker is free."""
        return self._index.checkpoint_due

    def request_checkpoint(self) -> None:
        """Make a checkpoint due as soon as the worker is free."""
        self._index.request_checkpoint()

    @property
    def is_overloaded(self) -> bool:
        """True when the worker has fallen so far behind that ingest should call `wait_idle`."""
        return self._index.is_overloaded

    def freeze(self, ordinal: int) -> None:
        """Freeze the state after commit `ordinal`; `confirm` has it written. Raises as `DedupIndex.freeze`."""
        if self._latest:
            self._floor = max(self._floor, self._latest // HOUR_US - self._horizon_h - HORIZON_SLACK_H)
        self._index.freeze(ordinal, self._watermarks, self._names.names, self._floor, self._latest)

    def confirm(self, ordinal: int, sequence: int, witness: int = 0) -> None:
        """Confirm that commit `ordinal` is in the log, up to `sequence`; see `DedupIndex.confirm`."""
        self._index.confirm(ordinal, sequence, witness)

    def wait_idle(self) -> None:
        """Wait until the worker is done (blocking). Raises as `confirm`."""
        self._index.wait_idle()

    # ── building from the log ─────────────────────────────────────────────────────────────────────────

    def apply(self, batch: Batch, *, suppressed: bool = False) -> None:
        """Add readings that this node committed; `suppressed`: rows that it suppressed.

        Raises:
            ValueError: the batch has no local columns, so it is another node's.
        """
        local = batch.local
        if local is None:
            raise ValueError("the batch has no local columns")
        if not len(batch):
            return
        kinds = local.identity & np.uint8(KIND_MASK)
        number = self._series_of_batch(batch, kinds)
        self._watermarks.mark_changed(number)
        flags = batch.flags
        judged = (flags & np.uint32(Flag.NOT_DEDUPLICATED)) == 0
        future = (flags & np.uint32(Flag.FUTURE)) != 0
        known = np.flatnonzero(judged & ~future)
        np.maximum.at(self._watermarks.latest_time, number[known], batch.time[known])
        bits = value_bits(batch.value, batch.text)
        if not suppressed:
            leading = np.flatnonzero(local.identity & np.uint8(IS_REFERENCE))
            self._watermarks.reference_bits[number[leading]] = bits[leading].view(np.int64)
            self._watermarks.reference_time[number[leading]] = batch.time[leading]
        rows = np.flatnonzero(judged & (kinds != NONE))
        self._insert(
            number[rows],
            local.key[rows],
            kinds[rows],
            bits=bits[rows],
            fingerprints=fingerprints(local.digest[local.message[rows]], local.path[rows]),
            time=batch.time[rows],
            received=batch.received[rows],
        )
        ahead = rows[future[rows]]
        np.maximum.at(self._watermarks.future_key, number[ahead], local.key[ahead])
        rows = rows[~future[rows]]
        np.maximum.at(self._watermarks.highest_key, number[rows], local.key[rows])

    def _series_of_batch(self, batch: Batch, kinds: U8) -> U32:
        variables = batch.variables()
        code = (batch.origin.astype(np.int64) * len(variables) + batch.property) * 16 + kinds
        different, place = np.unique(code, return_inverse=True)
        numbers = np.empty(len(different), np.uint32)
        for at, series_code in enumerate(different.tolist()):
            entry, variable = divmod(series_code >> 4, len(variables))
            numbers[at] = self._names.number(batch.origins.device[entry], variables[variable], series_code & 15)
        self._watermarks.reserve(len(self._names))
        return numbers[place]

    def _insert(
        self, number: U32, key: I64, kinds: U8, *, bits: U64, fingerprints: U64, time: I64, received: I64
    ) -> None:
        if len(number):
            self._latest = max(self._latest, int(received.max()))
            self._index.add(number, key, kinds, bits=bits, fingerprints=fingerprints, time=time, received=received)

    # ── judging ─────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, readings: Readings, digest: U64, specs: SpecColumns) -> DedupResult:
        """Deduplicate readings and add the accepted ones to the state; `digest`: of each message.

        The state then includes this batch, which must be committed; otherwise call `open` again.
        """
        count = len(readings)
        kinds = specs.identity.take(readings.spec)
        flags = readings.flags.copy()
        work = _BatchState(
            readings,
            kinds,
            self._series_of_readings(readings, kinds, specs),
            value_bits(readings.value, readings.text),
            fingerprints(digest[readings.message], readings.path),
            np.zeros(count, np.uint8),
            np.zeros(count, np.uint8),
            flags,
            kinds.copy(),
        )
        if not count:
            return DedupResult(work.kind, work.revision, flags, work.identity)
        self._correct_future_clock()
        self._watermarks.mark_changed(work.number)
        oldest = np.maximum(readings.received - self._horizon, self._floor * HOUR_US)
        old = readings.time < oldest
        rows = None
        if old.any():
            flags[old] |= np.uint32(Flag.NOT_DEDUPLICATED | Flag.LATE)
            rows = np.flatnonzero(~old)
        by_series, series = series_order.group_by_series(work.number, rows)
        judged, judged_series = by_series, series
        anonymous = kinds == NONE
        resent = (flags & np.uint32(Flag.REDELIVERED)) != 0
        if resent.any():
            flags[resent & ~anonymous] ^= np.uint32(Flag.REDELIVERED)  # an identity tells whether the first one came
        if specs.common_identity in (-1, NONE):
            flags[anonymous] |= np.uint32(Flag.UNIDENTIFIABLE)
            named = ~anonymous[by_series]
            judged, judged_series = by_series[named], series[named]
        future = (flags & np.uint32(Flag.FUTURE)) != 0
        self._mark_duplicates(work, judged, judged_series)
        self._mark_late(work, by_series, series, future, specs)
        self._store_accepted(work, judged, judged_series, future)
        return DedupResult(work.kind, work.revision, flags, work.identity)

    def _correct_future_clock(self) -> None:
        """Correct the state after the system clock was far in the future: expired hours stay expired.

        Without this all readings would be older than the floor, and not deduplicated, until that future time; those of
        a series that was read meanwhile would be late, and compared with no other.
        """
        now = self._clock.now()
        # The next hour is what the correction itself leaves.
        if self._floor > now // HOUR_US + 1:
            _log.warning(
                "system clock was far ahead; readings before this hour are not deduplicated", floor_hour=self._floor
            )
            self._floor, self._latest = now // HOUR_US + 1, now
            self._watermarks.forget_times_after(now + _AHEAD_US, len(self._names))

    def _series_of_readings(self, readings: Readings, kinds: U8, specs: SpecColumns) -> U32:
        code = readings.series.astype(np.int64)
        code *= len(KINDS)
        code += kinds
        most = int(code.max()) if len(code) else 0
        if most >= len(self._number):
            grown = np.full(max(most + 1, len(self._number) * 2), -1, np.int64)
            grown[: len(self._number)] = self._number
            self._number = grown
        number = self._number.take(code)
        if len(number) and int(number.min()) < 0:
            fresh, first = np.unique(code[number < 0], return_index=True)
            rows = np.flatnonzero(number < 0)[first]
            for series_code, row in zip(fresh.tolist(), rows.tolist(), strict=True):
                self._number[series_code] = self._names.number(
                    self._device_id(int(readings.device[row])), specs.variables[readings.spec[row]], int(kinds[row])
                )
            self._watermarks.reserve(len(self._names))
            number = self._number.take(code)
        return number.astype(np.uint32)

    def _mark_duplicates(self, work: _BatchState, rows: I64, series: I64) -> None:
        """Set kind and revision of the readings whose identity is known, from the index or from this batch."""
        key = work.readings.key[rows]
        may_be_known = key <= np.maximum(self._watermarks.highest_key[series], self._watermarks.future_key[series])
        candidates_by_series = may_be_known
        back = (series[1:] == series[:-1]) & (key[1:] <= key[:-1])
        if back.any():
            # A series whose keys do not increase may have an identity twice in this batch.
            uneven = np.zeros(len(self._names), np.bool_)
            uneven[series[1:][back]] = True
            candidates_by_series = may_be_known | uneven[series]
        if not candidates_by_series.any():
            return
        is_candidate = np.zeros(len(work.number), np.bool_)
        is_candidate[rows[candidates_by_series]] = True
        chosen = np.flatnonzero(is_candidate)
        questions = np.zeros(len(work.number), np.bool_)
        questions[rows[may_be_known]] = True
        readings = work.readings
        cut = conflicts.Candidates(
            hashes(work.number[chosen], readings.key[chosen]),
            work.number[chosen],
            work.kinds[chosen],
            work.bits[chosen],
            work.fingerprints[chosen],
            readings.time[chosen],
            readings.received[chosen],
            readings.message[chosen],
        )
        kind, revision = conflicts.resolve(cut, questions[chosen], self._index.find)
        work.kind[chosen] = kind
        work.revision[chosen] = revision
        work.flags[chosen[revision > 0]] |= np.uint32(Flag.CONFLICT)

    def _mark_late(self, work: _BatchState, rows: I64, series: I64, future: BOOL, specs: SpecColumns) -> None:
        """Flag readings out of order, then suppress unchanged ones; duplicates do not advance watermarks."""
        live = (work.kind[rows] == ACCEPTED) & ~future[rows]
        if not live.all():
            rows, series = rows[live], series[live]
        if not rows.size:
            return
        late = series_order.find_late(series, work.readings.time[rows], self._watermarks.latest_time)
        if late is not None:
            work.flags[rows[late]] |= np.uint32(Flag.LATE)
            rows, series = rows[~late], series[~late]
        if specs.any_suppress:
            suppressible = specs.suppress.take(work.readings.spec[rows])
            rows, series = rows[suppressible], series[suppressible]
            if rows.size:
                spec = work.readings.spec[rows]
                changes = series_order.ReportByException(
                    series,
                    work.bits[rows],
                    work.readings.value[rows],
                    work.readings.time[rows],
                    specs.deadband.take(spec),
                    specs.heartbeat.take(spec),
                )
                unchanged, heartbeat = series_order.find_unchanged(changes, self._watermarks)
                work.kind[rows[unchanged]] = UNCHANGED
                work.identity[rows[~unchanged]] |= np.uint8(IS_REFERENCE)
                work.flags[rows[heartbeat]] |= np.uint32(Flag.HEARTBEAT)

    def _store_accepted(self, work: _BatchState, rows: I64, series: I64, future: BOOL) -> None:
        kind = work.kind[rows]
        stored = (kind == ACCEPTED) | (kind == UNCHANGED)
        if not stored.all():
            rows, series = rows[stored], series[stored]
        if not rows.size:
            return
        readings = work.readings
        key = readings.key[rows]
        self._insert(
            work.number[rows],
            key,
            work.kinds[rows],
            bits=work.bits[rows],
            fingerprints=work.fingerprints[rows],
            time=readings.time[rows],
            received=readings.received[rows],
        )
        ahead = future[rows]
        if ahead.any():
            np.maximum.at(self._watermarks.future_key, series[ahead], key[ahead])
            series, key = series[~ahead], key[~ahead]
            if not key.size:
                return
        first = series_order.starts(series)
        owner = series[first]
        self._watermarks.highest_key[owner] = np.maximum(
            self._watermarks.highest_key[owner], np.maximum.reduceat(key, first)
        )

    def watermarks(self) -> dict[str, tuple[int, ...]]:
        """Return the watermarks by name of series, for comparison in tests and `explain`."""
        columns = self._watermarks.copy(len(self._names))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {word: row for word, row in zip(self._names.names, rows, strict=True) if any(x != NEVER for x in row)}
