"""The scrub: log, ledger and duplicate index held against one another; what is lost is counted and named.

    log ──┬─▶ extents (`extents.py`): as when it was first looked at?
          ├─▶ ledger: as many readings as its commits accepted?
          └─▶ duplicate index (files of the last checkpoint): each file whole; the same readings, hour by hour?

One pass reads the log once. It runs in the gateway, slowly, or by itself where no gateway runs. A gateway whose index
is wrong, or holds what the log has lost, builds the index again before it judges anything more.
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
from sensegate.bus.ledger import ACCEPTED, HOUR_US, Ledger
from sensegate.bus.timelines import Timelines
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.model import I64, U64, Entry
from sensegate.persist import extents
from sensegate.persist.checkpoint_store import Snapshot, snapshot
from sensegate.persist.extents import ROWS, Cause, Extent, Extents, Loss, Tally, missing
from sensegate.persist.identity import KIND_MASK, NONE, bits_of, hashes, prints
from sensegate.persist.sorted_runs import BY_ARRIVAL, CHUNK_ROWS, FAR_US, bucket_of, hour_of
from sensegate.quantities.quality import Flag

EXTENT_ENTRIES = 2_000
"""So many entries make an extent; it ends with a commit."""
_PAGE_ENTRIES, _PAGE_BYTES = 500, 1_048_576
_LEDGER = "ledger."
_MARGIN_US = HOUR_US
"""What expires within this is not looked for."""

_log = structlog.get_logger("persist")


class Log(Protocol):
    """What the scrub reads."""

    @property
    def epoch(self) -> str: ...

    @property
    def timelines(self) -> Timelines: ...

    async def last(self, subject: str) -> Entry | None: ...

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[Entry]: ...

    async def bounds(self) -> tuple[int, int]: ...

    async def sequence_at(self, time: int) -> int: ...


class Subject(msgspec.Struct, frozen=True):
    """What is scrubbed."""

    directory: Path
    """Of the gateway."""
    node: str
    partition: int
    ttl_h: dict[str, int]
    """Life of entries by kind (`extents.KINDS`)."""
    horizon_us: int
    """How far back the duplicate index reaches."""
    seen_ttl_us: int
    """Life of the identities of suppressed readings."""

    @property
    def name(self) -> str:
        """Last token of the subjects of its own commits."""
        return f"{self.node}-{self.partition}"

    @property
    def index(self) -> Path:
        """Where the duplicate index is."""
        return self.directory / "duplicates"


def scrubbed(config: Config, horizon_us: int) -> Subject:
    """Return what is scrubbed of the gateway of a configuration."""
    store = config.store
    ttl_h = {
        "raw": store.raw_ttl_h,
        "readings": store.readings_ttl_h,
        "observations": store.observations_ttl_h,
        "quarantine": store.quarantine_ttl_h,
        "ledger": store.readings_ttl_h,
    }
    directory, partition = Path(config.directory), config.ingest.partition
    return Subject(directory, config.division, partition, ttl_h, horizon_us, horizon_us + HOUR_US)


class _Hours:
    """How many rows there are of each bucket of the index, and a sum by which sets of rows differ."""

    def __init__(self) -> None:
        self.count: dict[int, int] = {}
        self.sum: dict[int, int] = {}

    def add(self, bucket: int, mixed: U64) -> None:
        """Add rows of one bucket."""
        self.count[bucket] = self.count.get(bucket, 0) + len(mixed)
        self.sum[bucket] = (self.sum.get(bucket, 0) + int(mixed.sum(dtype=np.uint64))) & (2**64 - 1)


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(hashed: U64, bits: U64, printed: U64) -> U64:
    """Return one number a row; that of the series is part of its hash."""
    mixed = hashed ^ (bits * _ODD)
    mixed ^= mixed >> np.uint64(29)
    mixed += printed
    mixed *= _ODD
    mixed ^= mixed >> np.uint64(32)
    return mixed


class _Index:
    """The duplicate index as of its last checkpoint, and what the log says that it should hold."""

    def __init__(self, found: Snapshot, covered_from: int, since: int) -> None:
        """`covered_from`: the log holds all of it that was stored later (µs); `since`: so far back it is asked."""
        self.sequence = found.manifest.sequence
        self.since = since
        self._found = found
        self._floor = found.manifest.floor
        self._covered_from = covered_from
        self._number = {word: number for number, word in enumerate(found.words)}
        self._log = _Hours()
        self.unknown = 0
        """Rows on the log of series that the index does not know."""

    def note(self, batch: Batch) -> None:
        """Take a batch of this gateway's own, as `Duplicates.apply` does."""
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
        mixed = _mixed(
            hashes(number.astype(np.uint32), local.key[rows]),
            bits_of(batch.value, batch.text)[rows],
            prints(local.digest[local.message[rows]], local.path[rows]),
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

    def differing(self) -> int:
        """Return how many readings the log has more than the index, or the index more, as far as that can be told."""
        held = _Hours()
        for run in self._found.runs:
            for place, bucket in enumerate(run.buckets.tolist()):
                for start in range(0, int(run.length[place]), CHUNK_ROWS):
                    part = run.part(place, start, min(start + CHUNK_ROWS, int(run.length[place])))
                    held.add(bucket, _mixed(part.hash, part.bits, part.prints))
                run.forget()
        differing = self.unknown
        for bucket in {*held.count, *self._log.count}:
            if hour_of(bucket) < self._floor:
                continue
            here, there = held.count.get(bucket, 0), self._log.count.get(bucket, 0)
            if self._is_covered(bucket):
                equal = held.sum.get(bucket, 0) == self._log.sum.get(bucket, 0)
                differing += abs(here - there) or (0 if equal else max(here, 1))
            else:
                differing += max(0, there - here)
        return differing

    def _is_covered(self, bucket: int) -> bool:
        """Return whether all entries that can have rows of a bucket are on the log still."""
        ahead = 0 if bucket >= BY_ARRIVAL else FAR_US
        return hour_of(bucket) * HOUR_US - ahead >= self._covered_from


class _Ahead:
    """What lies behind the extents that are known, commit by commit."""

    def __init__(
        self, note: Callable[[Tally, Entry, str], None], state: Extents, timelines: Timelines, own: str, now: int
    ) -> None:
        """`note` counts an entry; `own` is the subject of this gateway's own ledgers."""
        self._note = note
        self._state = state
        self._timelines = timelines
        self._own = own
        self._now = now
        self.record = 0
        """Sequence of the last commit's record."""
        self._start = state.end
        self._open: Extent | None = None
        self._commit = Tally({})
        self._subject = ""
        self._at = state.end
        self._before = self._after = 0
        """Readings accepted by commits up to the record, and after it."""

    def take(self, entries: Sequence[Entry]) -> None:
        """Count entries that follow those before."""
        for entry in entries:
            if self._subject.startswith(_LEDGER) and entry.subject != self._subject:
                self._end_commit()
            self._note(self._commit, entry, entry.subject.partition(".")[0])
            if self._commit.unreadable:
                what = f"entry {entry.sequence} does not decode"
                self._tell(Cause.DAMAGED, what, entry.sequence, entries=1)
                self._commit.unreadable = []
            self._subject, self._at = entry.subject, entry.sequence

    def _end_commit(self) -> None:
        commit, self._commit = self._commit, Tally({})
        if self._subject == self._own and commit.accepted != commit.own_rows:
            what = f"a commit accepted {commit.accepted} readings; {commit.own_rows} are on the log"
            first = (self._open.end if self._open else self._state.end) + 1
            self._tell(Cause.UNBALANCED, what, first, max(commit.accepted - commit.own_rows, 0))
        if self._at <= self.record:
            self._before += commit.accepted
        else:
            self._after += commit.accepted
        part = commit.extent(self._at, self._timelines.of(self._at))
        self._open = part if self._open is None else self._open.joined(part)
        if sum(self._open.kinds.values()) >= EXTENT_ENTRIES:
            self._state.add(self._open)
            self._open = None

    def close(self, total: int) -> None:
        """End with the last commit, and hold all against the total of accepted readings that its record bears."""
        if self._subject.startswith(_LEDGER):
            self._end_commit()
        if self._open is not None:
            self._state.add(self._open)
        state = self._state
        if not self.record or self._start >= self.record:
            state.accepted = total + self._after if state.accepted < 0 else state.accepted + self._before + self._after
            return
        lost = total - state.accepted - self._before if state.accepted >= 0 else 0
        if lost > 0:
            what = "whole commits are missing: the last one counts more than are on the log"
            self._at = self.record
            self._tell(Cause.DAMAGED, what, self._start + 1, lost)
        state.accepted = total + self._after

    def _tell(self, cause: Cause, what: str, first: int, readings: int = 0, *, entries: int = 0) -> None:
        last = max(first, self._at)
        since, until = self._commit.since, self._commit.until
        self._state.tell(Loss(cause, self._now, what, first, last, readings, entries, since, until))


def _total(record: Entry) -> int:
    """Return how many readings were accepted since the log began; 0 where the record is not readable."""
    try:
        return decode_commit(record.payload).totals.get(ACCEPTED, 0)
    except ValueError:
        return 0


class Scrub:
    """Passes over one gateway's log and index. `done` and `total` count sequences of the present pass."""

    def __init__(self, log: Log, subject: Subject, clock: Clock, *, spoil: Callable[[str], None] | None = None) -> None:
        """`spoil` is told why the index must be built again; None: no gateway runs, its next start will see."""
        self._log = log
        self._subject = subject
        self._clock = clock
        self._spoil = spoil
        self._bytes_s = 0
        self._index: _Index | None = None
        self.done = self.total = 0
        self.bytes = 0
        """Read since it was made."""

    async def once(self, *, bytes_s: int = 0) -> Extents:
        """Make one pass, reading `bytes_s` a second at most (0: as fast as can be); return what is known then.

        Raises:
            Unavailable: the log does not answer; what was not looked at is looked at by the next pass.
            StoreFull: what was found cannot be kept.
        """
        now, subject = self._clock.now(), self._subject
        self._bytes_s, self.done = bytes_s, 0
        state = await asyncio.to_thread(extents.read, subject.directory, self._log.epoch)
        shortest = min(subject.ttl_h[kind] for kind in ROWS) * HOUR_US
        state.forget(now - shortest + _MARGIN_US)
        if not state.extents:
            # What follows the last extent may have expired, too: no total can be held against it.
            state.accepted = -1
            state.start = max(state.start, await self._log.sequence_at(now - shortest + _MARGIN_US) - 1)
        state.losses = [loss for loss in state.losses if loss.found > now - shortest]
        told = len(state.losses)
        self.total = max((await self._log.bounds())[1] - state.start, 1)
        record = await self._log.last(f"commit.{subject.name}")
        self._index = await asyncio.to_thread(self._opened, state, now)
        await self._look_again(state, now)
        await self._look_on(state, now, record)
        if self._index is not None and (differing := await asyncio.to_thread(self._index.differing)):
            state.tell(Loss(Cause.INDEX, now, "the duplicate index differs from the log", readings=differing))
        state.begun, state.finished = now, self._clock.now()
        await asyncio.to_thread(extents.write, subject.directory, state)
        self._tell(state.losses[told:], now)
        self._index = None
        return state

    def hurry(self) -> None:
        """Let the present pass go on as fast as it can."""
        self._bytes_s = 0

    # ── the index ───────────────────────────────────────────────────────────────────────────────────

    def _opened(self, state: Extents, now: int) -> _Index | None:
        """Return the index of the last checkpoint, every file checked; None: there is none, or it is damaged."""
        subject = self._subject
        try:
            found = snapshot(subject.index)
        except (OSError, ValueError) as why:
            state.tell(Loss(Cause.INDEX_FILE, now, str(why)))
            return None
        if found is None or not self._log.timelines.holds(found.manifest.timeline, found.manifest.sequence):
            return None
        return _Index(found, now - min(subject.horizon_us, subject.seen_ttl_us) + _MARGIN_US, now - subject.horizon_us)

    # ── what is known ───────────────────────────────────────────────────────────────────────────────

    async def _look_again(self, state: Extents, now: int) -> None:
        """Hold the log against all extents; an extent is then what it is now, so that a loss is told once."""
        known, state.extents = state.extents, []
        for place, extent in enumerate(known):
            held = self._log.timelines.holds(extent.timeline, extent.end)
            if held:
                start = state.end
                tally = await self._walk(start, extent.end)
                self._hold(state, extent, tally, now, start)
                state.add(msgspec.structs.replace(tally.extent(extent.end, extent.timeline), accepted=extent.accepted))
                continue
            if held is False:
                await self._cut(state, known[place:], now)
            # What was accepted is known of the log as it was: it is counted anew.
            state.accepted = -1
            return

    def _hold(self, state: Extents, extent: Extent, tally: Tally, now: int, start: int) -> None:
        kinds = [
            kind for kind, hours in self._subject.ttl_h.items() if extent.since + hours * HOUR_US > now + _MARGIN_US
        ]
        lost = missing(extent.kinds, tally.kinds, kinds)
        readings = extent.rows - tally.rows
        if not lost and readings == 0 and (extent.digest == tally.digest or not ROWS.issubset(kinds)):
            return
        counts = ", ".join(f"{count} {kind}" for kind, count in lost.items()) or "altered entries"
        what = f"missing on the log: {counts}"
        state.tell(
            Loss(
                Cause.DAMAGED,
                now,
                what,
                start + 1,
                extent.end,
                max(readings, 0),
                sum(lost.values()),
                extent.since,
                extent.until,
            )
        )

    async def _cut(self, state: Extents, lost: Sequence[Extent], now: int) -> None:
        """Tell what of some extents the log has lost with its end, and keep what is left of them."""
        whole = lost[0]
        for extent in lost[1:]:
            whole = whole.joined(extent)
        agreed = self._log.timelines.agreed(lost[0].timeline) or 0
        end = min(max(agreed, state.end), whole.end)
        if end > state.end and not self._log.timelines.holds(self._log.timelines.of(end), end):
            end -= 1  # the mark of the timeline that took its place
        tally = await self._walk(state.end, end)
        entries = sum(missing(whole.kinds, tally.kinds, list(self._subject.ttl_h)).values())
        what = "the log ended earlier at a later start"
        readings = max(whole.rows - tally.rows, 0)
        if entries or readings:
            state.tell(Loss(Cause.END_CUT, now, what, end + 1, whole.end, readings, entries, tally.until, whole.until))
        if tally.count:
            state.add(tally.extent(end, self._log.timelines.of(end)))

    async def _look_on(self, state: Extents, now: int, record: Entry | None) -> None:
        """Go on behind the extents to the end of the log: each commit against its ledger, all against the total."""
        ahead = _Ahead(self._note, state, self._log.timelines, f"ledger.{self._subject.name}", now)
        ahead.record = record.sequence if record is not None else 0
        async for entries in self._pages(state.end, None):
            await asyncio.to_thread(ahead.take, entries)
        ahead.close(_total(record) if record is not None else 0)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    async def _walk(self, after: int, end: int) -> Tally:
        tally = Tally({})
        async for entries in self._pages(after, end):
            await asyncio.to_thread(self._note_all, tally, entries)
        return tally

    async def _pages(self, after: int, end: int | None) -> AsyncIterator[list[Entry]]:
        """Yield the entries after a sequence, page by page, no faster than allowed."""
        while end is None or after < end:
            entries = await self._log.fetch(after, limit=_PAGE_ENTRIES, max_bytes=_PAGE_BYTES)
            inside = [entry for entry in entries if end is None or entry.sequence <= end]
            if not inside:
                return
            yield inside
            self.done += inside[-1].sequence - after
            after = inside[-1].sequence
            size = sum(len(entry.payload) for entry in entries)
            self.bytes += size
            if self._bytes_s:
                await self._clock.sleep(size / self._bytes_s)
            if len(inside) < len(entries):
                return

    def _note_all(self, tally: Tally, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._note(tally, entry, entry.subject.partition(".")[0])

    def _note(self, tally: Tally, entry: Entry, kind: str) -> None:
        """Count an entry, and hand its rows to the index."""
        tally.note(entry, kind)
        subject, index = self._subject, self._index
        name = entry.subject.partition(".")[2]
        try:
            if kind == "ledger" and name == subject.name:
                tally.accepted += Ledger.decode(entry.payload).totals().get(ACCEPTED, 0)
            elif kind in ROWS or (kind == "seen" and name == subject.name):
                batch = columns.decode(entry.payload, sequence=entry.sequence)
                if kind in ROWS:
                    tally.rows += len(batch)
                if (batch.node, batch.partition) == (subject.node, subject.partition) and batch.local is not None:
                    tally.own_rows += len(batch) if kind in ROWS else 0
                    if index is not None and entry.sequence <= index.sequence and entry.time >= index.since:
                        index.note(batch)
        except ValueError:
            tally.unreadable.append(entry.sequence)

    # ── telling ─────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, losses: Sequence[Loss], now: int) -> None:
        for loss in losses:
            _log.error(
                "the scrub has found a loss",
                reason=loss.cause.value,
                what=loss.what,
                first=loss.first,
                last=loss.last,
                readings=loss.readings,
            )
        horizon = now - self._subject.horizon_us
        wrong = [loss for loss in losses if loss.readings or not loss.first]
        recent = [loss for loss in wrong if not loss.until or loss.until >= horizon]
        if recent and self._spoil is not None:
            self._spoil(f"the scrub has found: {recent[-1].what}")
