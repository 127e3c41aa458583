"""Which readings were seen before: exact over the horizon, across restarts, whatever the order of arrival.

A reading with a key above its series' watermark is new: nothing is looked up. All others, and those of a series with
stamps of the future, are looked up among the identities kept: in memory those since the last checkpoint, on disk the
rest (`runs`). The state is a function of what is in the log: a checkpoint names the log sequence to which it is valid,
`catch_up` applies what came after.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import structlog

from sensegate.bus.columns import Batch
from sensegate.bus.timelines import Timelines
from sensegate.clock import Clock
from sensegate.model import BOOL, I64, U8, U32, U64, Readings
from sensegate.persist import conflicts, series_order
from sensegate.persist.dedup_index import Seen
from sensegate.persist.identity import (
    ACCEPTED,
    HOUR_US,
    KIND_MASK,
    KINDS,
    LEADS,
    NONE,
    UNCHANGED,
    SpecColumns,
    bits_of,
    hashes,
    prints,
)
from sensegate.persist.watermarks import NEVER, Marks, Names
from sensegate.quantities.quality import Flag

SLACK_H = 2
"""Kept beyond the horizon: arrivals of different sources are not quite in order."""

_log = structlog.get_logger("persist")

DeviceId = Callable[[int], str]
"""Registry index -> canonical device id."""


class Judgement(msgspec.Struct, frozen=True, eq=False):
    """The verdict on each reading of a batch."""

    kind: U8
    """0 accepted, else why not (`identity.VERDICTS`)."""
    revision: U8
    """How many others of the same identity were kept before it; 255 stands for more."""
    flags: U32
    """The reading's flags with those of the judgement: late, conflict, unidentifiable, not_deduplicated, heartbeat."""
    identity: U8
    """Local column of `bus.columns`: kind of identity, and LEADS."""

    @property
    def keep(self) -> BOOL:
        """True where the reading is accepted."""
        keep: BOOL = self.kind == ACCEPTED
        return keep


class _Work(msgspec.Struct, frozen=True, eq=False):
    """A batch on its way through the steps: columns by row."""

    readings: Readings
    kinds: U8
    number: U32
    bits: U64
    prints: U64
    kind: U8
    revision: U8
    flags: U32
    identity: U8


class Duplicates:
    """State of one partition. `judge` and `freeze` are called by one thread at a time."""

    def __init__(
        self, directory: Path, *, clock: Clock, horizon_h: int = 24, checkpoint_s: float = 30.0, device_id: DeviceId
    ) -> None:
        self._clock = clock
        self._horizon = horizon_h * HOUR_US
        self._horizon_h = horizon_h
        self._device_id = device_id
        self.directory = directory
        self._seen = Seen(directory, clock, checkpoint_s)
        self.spoiled = ""
        """Why the state must be opened again before anything is judged; empty: it need not."""
        self.damage = ""
        """Why the last `open` could not use what was on the disk; empty: it could, or nothing was there."""
        self._reset()

    def _reset(self) -> None:
        self._marks, self._names = Marks(), Names()
        self._number = np.full(1 << 12, -1, np.int64)
        self._floor = 0
        self._latest = 0

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, timelines: Timelines, last: int) -> int:
        """Load the last checkpoint; return the log sequence to which it is valid, -1 where there is none.

        `timelines` and `last` are those of the log: a state of another log, or of more than it holds, is not used.
        """
        self._reset()
        opened = self._seen.open(timelines, last)
        if self.spoiled:
            self.damage, self.spoiled = self.spoiled, ""
            self._seen.discard()
            return -1
        self.damage = self._seen.damage
        if opened is None:
            return -1
        self._names = Names(opened.words)
        self._marks.restore(opened.marks)
        self._floor, self._latest = opened.manifest.floor, opened.manifest.latest
        return opened.manifest.sequence

    @property
    def witness(self) -> int:
        """Sequence of an entry that the log holds, unless it has lost the end of what this was made of; 0: none."""
        return self._seen.witness

    def discard(self) -> None:
        """Forget the state that was just opened: the log does not hold what it was made of."""
        self._seen.discard()
        self._reset()

    def spoil(self, reason: str) -> None:
        """Have the state built again from the log at the next `open`: it is not what the log says."""
        self.spoiled = reason

    @property
    def checkpoint(self) -> int:
        """Log sequence to which the last checkpoint on disk is valid; 0: there is none."""
        return self._seen.checkpoint

    @property
    def lost_end(self) -> int:
        """Sequence that the log had reached once and, as `open` found, no longer has; 0: none is known."""
        return self._seen.lost_end

    def forgive(self) -> None:
        """Forget `lost_end`: it is dealt with."""
        self._seen.forgive()

    @property
    def horizon_us(self) -> int:
        """How far back a start without a checkpoint must read the log."""
        return self._horizon + SLACK_H * HOUR_US

    def forget(self, before: int) -> None:
        """Judge nothing that is older than a time (µs): the log, of which the state is built, has no more of it."""
        self._floor = max(self._floor, before // HOUR_US + 1)

    def close(self) -> None:
        """Wait for the worker; what is not in a checkpoint is caught up from the log."""
        self._seen.close()

    @property
    def due(self) -> bool:
        """True when a checkpoint should be taken and the worker is free."""
        return self._seen.due

    def hurry(self) -> None:
        """Have a checkpoint taken as soon as the worker is free."""
        self._seen.hurry()

    @property
    def crowded(self) -> bool:
        """True when the worker has fallen behind so far that the intake should wait for `settle`."""
        return self._seen.crowded

    def freeze(self, ordinal: int) -> None:
        """Set the state after commit `ordinal` aside; `confirm` lets it go to disk. Raises as `Seen.freeze`."""
        if self._latest:
            self._floor = max(self._floor, self._latest // HOUR_US - self._horizon_h - SLACK_H)
        marks = self._marks.copy(len(self._names))
        self._seen.freeze(ordinal, marks, self._names.words, self._floor, self._latest)

    def confirm(self, ordinal: int, sequence: int, witness: int = 0) -> None:
        """Say that commit `ordinal` is in the log, up to `sequence`; `witness` and errors as of `Seen.confirm`."""
        self._seen.confirm(ordinal, sequence, witness)

    def settle(self) -> None:
        """Wait until the worker is done (blocking). Raises as `confirm`."""
        self._seen.settle()

    # ── the log says what was kept ──────────────────────────────────────────────────────────────────────

    def apply(self, batch: Batch, *, suppressed: bool = False) -> None:
        """Take over readings that this node committed; `suppressed`: those it saw and did not keep.

        Raises:
            ValueError: if the batch has no local columns: another node's.
        """
        local = batch.local
        if local is None:
            raise ValueError("a batch without local columns")
        if not len(batch):
            return
        kinds = local.identity & np.uint8(KIND_MASK)
        number = self._numbers_of(batch, kinds)
        flags = batch.flags
        judged = (flags & np.uint32(Flag.NOT_DEDUPLICATED)) == 0
        future = (flags & np.uint32(Flag.FUTURE)) != 0
        known = np.flatnonzero(judged & ~future)
        np.maximum.at(self._marks.last, number[known], batch.time[known])
        bits = bits_of(batch.value, batch.text)
        if not suppressed:
            leading = np.flatnonzero(local.identity & np.uint8(LEADS))
            self._marks.lead_bits[number[leading]] = bits[leading].view(np.int64)
            self._marks.lead_time[number[leading]] = batch.time[leading]
        rows = np.flatnonzero(judged & (kinds != NONE))
        self._insert(
            number[rows],
            local.key[rows],
            kinds[rows],
            bits=bits[rows],
            printed=prints(local.digest[local.message[rows]], local.path[rows]),
            time=batch.time[rows],
            received=batch.received[rows],
        )
        ahead = rows[future[rows]]
        np.maximum.at(self._marks.ahead, number[ahead], local.key[ahead])
        rows = rows[~future[rows]]
        np.maximum.at(self._marks.mark, number[rows], local.key[rows])

    def _numbers_of(self, batch: Batch, kinds: U8) -> U32:
        variables = batch.variables()
        code = (batch.origin.astype(np.int64) * len(variables) + batch.property) * 16 + kinds
        different, place = np.unique(code, return_inverse=True)
        numbers = np.empty(len(different), np.uint32)
        for at, one in enumerate(different.tolist()):
            entry, variable = divmod(one >> 4, len(variables))
            numbers[at] = self._names.number(batch.origins.device[entry], variables[variable], one & 15)
        self._marks.reserve(len(self._names))
        return numbers[place]

    def _insert(self, number: U32, key: I64, kinds: U8, *, bits: U64, printed: U64, time: I64, received: I64) -> None:
        if len(number):
            self._latest = max(self._latest, int(received.max()))
            self._seen.add(number, key, kinds, bits=bits, printed=printed, time=time, received=received)

    # ── judging ─────────────────────────────────────────────────────────────────────────────────────────

    def judge(self, readings: Readings, digest: U64, specs: SpecColumns) -> Judgement:
        """Return the verdict on each reading and remember it; `digest` is per message.

        The state then stands after this batch: it must be committed, or the state be opened again.
        """
        count = len(readings)
        kinds = specs.identity.take(readings.spec)
        flags = readings.flags.copy()
        work = _Work(
            readings,
            kinds,
            self._numbers(readings, kinds, specs),
            bits_of(readings.value, readings.text),
            prints(digest[readings.message], readings.path),
            np.zeros(count, np.uint8),
            np.zeros(count, np.uint8),
            flags,
            kinds.copy(),
        )
        if not count:
            return Judgement(work.kind, work.revision, flags, work.identity)
        self._heed_clock()
        oldest = np.maximum(readings.received - self._horizon, self._floor * HOUR_US)
        old = readings.time < oldest
        rows = None
        if old.any():
            flags[old] |= np.uint32(Flag.NOT_DEDUPLICATED | Flag.LATE)
            rows = np.flatnonzero(~old)
        by_series, series = series_order.grouped(work.number, rows)
        judged, judged_series = by_series, series
        if specs.one_identity in (-1, NONE):
            anonymous = kinds == NONE
            flags[anonymous] |= np.uint32(Flag.UNIDENTIFIABLE)
            named = ~anonymous[by_series]
            judged, judged_series = by_series[named], series[named]
        future = (flags & np.uint32(Flag.FUTURE)) != 0
        self._tell(work, judged, judged_series)
        self._mark_late(work, by_series, series, future, specs)
        self._remember(work, judged, judged_series, future)
        return Judgement(work.kind, work.revision, flags, work.identity)

    def _heed_clock(self) -> None:
        """Come back where our clock stood far in the future: what was forgotten then stays so, the rest is judged.

        Without this everything would be older than what is remembered, and not deduplicated, until that future has
        come.
        """
        now = self._clock.now()
        if self._floor > now // HOUR_US:
            _log.warning(
                "our clock was far ahead; what is older than this hour is not judged", forgotten_to=self._floor
            )
            self._floor, self._latest = now // HOUR_US + 1, now

    def _numbers(self, readings: Readings, kinds: U8, specs: SpecColumns) -> U32:
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
            for one, row in zip(fresh.tolist(), rows.tolist(), strict=True):
                self._number[one] = self._names.number(
                    self._device_id(int(readings.device[row])), specs.variables[readings.spec[row]], int(kinds[row])
                )
            self._marks.reserve(len(self._names))
            number = self._number.take(code)
        return number.astype(np.uint32)

    def _tell(self, work: _Work, rows: I64, series: I64) -> None:
        """Set kind and revision of the readings whose identity was seen before, in the index or in this batch."""
        key = work.readings.key[rows]
        asked = key <= np.maximum(self._marks.mark[series], self._marks.ahead[series])
        slow = asked
        back = (series[1:] == series[:-1]) & (key[1:] <= key[:-1])
        if back.any():
            # Within a series whose keys do not rise there may be two of one identity in this batch.
            uneven = np.zeros(len(self._names), np.bool_)
            uneven[series[1:][back]] = True
            slow = asked | uneven[series]
        if not slow.any():
            return
        again = np.zeros(len(work.number), np.bool_)
        again[rows[slow]] = True
        chosen = np.flatnonzero(again)
        questions = np.zeros(len(work.number), np.bool_)
        questions[rows[asked]] = True
        readings = work.readings
        cut = conflicts.Cut(
            hashes(work.number[chosen], readings.key[chosen]),
            work.number[chosen],
            work.kinds[chosen],
            work.bits[chosen],
            work.prints[chosen],
            readings.time[chosen],
            readings.received[chosen],
            readings.message[chosen],
        )
        kind, revision = conflicts.verdicts(cut, questions[chosen], self._seen.find)
        work.kind[chosen] = kind
        work.revision[chosen] = revision
        work.flags[chosen[revision > 0]] |= np.uint32(Flag.CONFLICT)

    def _mark_late(self, work: _Work, rows: I64, series: I64, future: BOOL, specs: SpecColumns) -> None:
        """Flag what is out of order, then suppress what is unchanged; duplicates move no mark."""
        live = (work.kind[rows] == ACCEPTED) & ~future[rows]
        if not live.all():
            rows, series = rows[live], series[live]
        if not rows.size:
            return
        late = series_order.late(series, work.readings.time[rows], self._marks.last)
        if late is not None:
            work.flags[rows[late]] |= np.uint32(Flag.LATE)
            rows, series = rows[~late], series[~late]
        if specs.any_suppress:
            asked = specs.suppress.take(work.readings.spec[rows])
            rows, series = rows[asked], series[asked]
            if rows.size:
                spec = work.readings.spec[rows]
                changes = series_order.Changes(
                    series,
                    work.bits[rows],
                    work.readings.value[rows],
                    work.readings.time[rows],
                    specs.deadband.take(spec),
                    specs.heartbeat.take(spec),
                )
                unchanged, heartbeat = series_order.suppress(changes, self._marks)
                work.kind[rows[unchanged]] = UNCHANGED
                work.identity[rows[~unchanged]] |= np.uint8(LEADS)
                work.flags[rows[heartbeat]] |= np.uint32(Flag.HEARTBEAT)

    def _remember(self, work: _Work, rows: I64, series: I64, future: BOOL) -> None:
        kind = work.kind[rows]
        kept = (kind == ACCEPTED) | (kind == UNCHANGED)
        if not kept.all():
            rows, series = rows[kept], series[kept]
        if not rows.size:
            return
        readings = work.readings
        key = readings.key[rows]
        self._insert(
            work.number[rows],
            key,
            work.kinds[rows],
            bits=work.bits[rows],
            printed=work.prints[rows],
            time=readings.time[rows],
            received=readings.received[rows],
        )
        ahead = future[rows]
        if ahead.any():
            np.maximum.at(self._marks.ahead, series[ahead], key[ahead])
            series, key = series[~ahead], key[~ahead]
            if not key.size:
                return
        first = series_order.starts(series)
        owner = series[first]
        self._marks.mark[owner] = np.maximum(self._marks.mark[owner], np.maximum.reduceat(key, first))

    def snapshot(self) -> dict[str, tuple[int, ...]]:
        """Return the marks by name of series, for comparison in tests and `explain`."""
        columns = self._marks.copy(len(self._names))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {word: row for word, row in zip(self._names.words, rows, strict=True) if any(x != NEVER for x in row)}
