"""The commit: all that came of a span of the ingest enters the log in one atomic batch, or nothing of it does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.index import DeviceIndex
from sensegate.bus import columns, raw, sequences
from sensegate.bus.columns import Batch
from sensegate.bus.filling import fill
from sensegate.bus.ledger import REMOVED, Ledger
from sensegate.bus.names import FILLER, LOGGED, OBSERVATIONS, READINGS
from sensegate.bus.raw import Kept
from sensegate.bus.record import decode_commit, encode_commit
from sensegate.bus.unreadable import read, read_rows
from sensegate.clock import Clock
from sensegate.config import StoreConfig
from sensegate.errors import Fenced, StoreFull, Unavailable
from sensegate.model import (
    BOOL,
    I64,
    REDECODE,
    CommitRecord,
    Delivery,
    Fields,
    Member,
    Position,
    Readings,
    RejectedValue,
    Span,
    Spec,
)
from sensegate.persist.assemble import Judged, Stamp, batches
from sensegate.persist.duplicates import Duplicates, Judgement
from sensegate.persist.identity import HOUR_US, UNCHANGED, SpecColumns, digests
from sensegate.persist.priors import Priors
from sensegate.persist.slices import Slice, slices, sources_of
from sensegate.persist.tally import tally, tally_again
from sensegate.ports import Log

RETRY_S = 60.0
"""So long a commit whose outcome is unknown is looked up and repeated before `Unavailable` goes up."""
FULL_PAUSE_S = 0.5
"""Pause between attempts while the log is full."""
SKIPPED = 20_000
"""So many sequences more than a checkpoint knew are left out once the log has lost its end: it was seconds old."""

_log = structlog.get_logger("persist")


class Limits(msgspec.Struct, frozen=True):
    """Sizes and lives of what a commit holds."""

    member_bytes_max: int = 900_000
    members_max: int = 900
    commit_bytes_max: int = 32 * 1024**2
    """Payloads of more messages go into several commits."""
    raw_ttl_h: int = 72
    readings_ttl_h: int = 168
    observations_ttl_h: int = 168
    quarantine_ttl_h: int = 720
    ledger_ttl_h: int = 168
    """Of the ledgers of single commits; their hourly sums live longer, on the stream LEDGER."""

    @classmethod
    def of(cls, store: StoreConfig, payload_bytes_max: int) -> Limits:
        """Return what the configuration says; no member is larger than a message of the log may be."""
        return cls(
            min(cls().member_bytes_max, payload_bytes_max),
            raw_ttl_h=store.raw_ttl_h,
            readings_ttl_h=store.readings_ttl_h,
            observations_ttl_h=store.observations_ttl_h,
            quarantine_ttl_h=store.quarantine_ttl_h,
            ledger_ttl_h=store.readings_ttl_h,
        )


class Part(msgspec.Struct, frozen=True, eq=False):
    """One commit, but for its record."""

    batch_id: str
    life: int
    """Of the committer: counts the times it was opened."""
    ordinal: int
    members: list[Member]
    positions: dict[str, Position]
    ledger: Ledger
    profiles: dict[str, int]


class Pending(msgspec.Struct, frozen=True, eq=False):
    """What `prepare` made of a span: its commits, one as a rule, and the verdicts."""

    parts: list[Part]
    judgements: list[Judgement]

    @property
    def keep(self) -> BOOL:
        """True where a reading is accepted, in the order of the readings."""
        if not self.judgements:
            return np.zeros(0, np.bool_)
        return np.concatenate([judgement.keep for judgement in self.judgements])

    def then(self, other: Pending) -> Pending:
        """Return this and what was prepared after it."""
        return Pending([*self.parts, *other.parts], [*self.judgements, *other.judgements])

    @property
    def members(self) -> list[Member]:
        """All members, for `explain` and tests."""
        return [member for part in self.parts for member in part.members]


class Committer:
    """Writes the log of one partition: ``<division>-<partition>``.

    `prepare` judges and builds, pure but for the duplicate state, and may run in a thread, one at a time; the next
    span may be prepared while the last is written. After any error that leaves `write`, call `open` again: what was
    prepared and not written is then forgotten, as its messages come again.
    """

    def __init__(
        self,
        log: Log,
        duplicates: Duplicates,
        index: DeviceIndex,
        specs: Sequence[Spec],
        clock: Clock,
        *,
        division: str,
        partition: int = 0,
        alone: bool = True,
        limits: Limits | None = None,
    ) -> None:
        """`alone`: nobody else writes readings to this log; False at a centre with nodes."""
        self._log = log
        self._duplicates = duplicates
        self._index = index
        self._clock = clock
        self._stamp = Stamp(division, partition)
        self._name = f"{division}-{partition}"
        self._alone = alone
        self._limits = limits or Limits()
        self.adopt(specs)
        self.held = ""
        """Why the present commit waits for room in the log; empty while none does."""
        self._priors: Priors | None = None
        self._told_from = 0
        self._told_after: int | None = None
        self._opened = False
        self._sound = False
        self._life = 0
        self._number = 0
        self._prepared = 0
        self._sequence = 0
        self._positions: dict[str, Position] = {}
        self._totals: dict[str, int] = {}
        self._profiles: dict[str, int] = {}

    def adopt(self, specs: Sequence[Spec]) -> None:
        """Put other specs in force, between two spans."""
        self._specs = SpecColumns.of(specs)

    @property
    def totals(self) -> Mapping[str, int]:
        """Ledger kind -> count since the log began, as of the last commit."""
        return self._totals

    @property
    def number(self) -> int:
        """Number of the last commit."""
        return self._number

    # ── start ───────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> dict[str, Position]:
        """Read the last commit, bring the duplicate state up to it; return source -> committed position.

        Raises:
            Unavailable: the log cannot be read now.
        """
        self._opened = False
        self._priors = None
        self._life += 1
        last = await self._log.last(f"commit.{self._name}")
        record = read(last, "ingest", decode_commit) if last else None
        if last and record is None:
            # Sources that can be read again begin anew: the duplicate state tells what was committed before.
            metrics.LIMIT_HITS.labels("unreadable_commit").inc()
            _log.error("our own commit record cannot be read; sources are read from their beginning", at=last.sequence)
        self._sequence = last.sequence if last else 0
        self._number = self._prepared = record.number if record else 0
        self._positions = dict(record.positions) if record else {}
        self._totals = dict(record.totals) if record else {}
        self._profiles = dict(record.profiles) if record else {}
        at, witness = await self._catch_up()
        self._duplicates.confirm(self._number, max(at, self._sequence), witness)
        self._opened = self._sound = True
        return dict(self._positions)

    async def _catch_up(self) -> tuple[int, int]:
        """Bring the duplicate state up to the end of the log; return to which sequence it is valid, and a witness."""
        # What is ours ends with our last commit, unless a disk that filled up tore a batch. Where nodes write too,
        # hours of their readings may lie behind it: there a full disk is prevented (`engine.has_room`), not looked for.
        _, newest = await self._log.bounds()
        end = newest if self._alone else max(self._sequence, await self._newest_seen())
        at = await asyncio.to_thread(self._duplicates.open, self._log.timelines, end)
        witness = self._duplicates.witness
        if at >= 0 and not await self._holds(witness):
            # The server may say that the log is as long as it was, though its last blocks are gone.
            _log.error(
                "the log has lost entries that the duplicate index was made of; it is built again from what is there",
                sequence=witness,
            )
            metrics.LIMIT_HITS.labels("log_lost_entries").inc()
            await asyncio.to_thread(self._duplicates.discard)
            at, witness = -1, 0
        if reached := self._duplicates.lost_end:
            end = await self._leave_out(end, reached)
        if at < 0:
            kept_us = min(self._limits.readings_ttl_h, self._limits.observations_ttl_h) * HOUR_US
            if kept_us < self._duplicates.horizon_us:
                self._duplicates.forget(self._clock.now() - kept_us)
            at = await self._log.sequence_at(self._clock.now() - self._duplicates.horizon_us) - 1
        began = at
        while at < end:
            entries = [entry for entry in await self._log.fetch(at) if entry.sequence <= end]
            if not entries:
                break
            for entry in entries:
                kind, _, rest = entry.subject.partition(".")
                wanted = kind in LOGGED or (kind == "seen" and rest == self._name)
                if wanted and (batch := read_rows(entry, "ingest")) is not None:
                    self._apply(batch, suppressed=kind == "seen")
                at = entry.sequence
                if kind != "commit" and entry.subject != FILLER:
                    witness = at
                if self._duplicates.due:
                    self._duplicates.freeze(-1)
                    self._duplicates.confirm(-1, at, witness)
            await asyncio.sleep(0)
        if at > began:
            _log.info("duplicate state caught up from the log", entries=at - began)
        return at, witness

    async def _holds(self, sequence: int) -> bool:
        """Return whether the log holds an entry that it held once; 0: it does."""
        if not sequence:
            return True
        entries = await self._log.fetch(sequence - 1, limit=1)
        return bool(entries) and entries[0].sequence == sequence

    async def _leave_out(self, end: int, reached: int) -> int:
        """Let the log go on behind the end that it has lost (a power cut, an older copy); return where it ends.

        What others have of that end bears its sequences: cursors, ids of records, how far the centre has come. No new
        entry may bear them again. Where nodes write too they are faster than we are: there a cursor is judged by time.
        """
        _log.error("the log has lost its end; what it held is gone here", ended=end, had_reached=reached)
        metrics.LIMIT_HITS.labels("log_lost_end").inc()
        if self._alone:
            end = await fill(self._log, end, reached + SKIPPED)
        await asyncio.to_thread(self._duplicates.forgive)
        return end

    async def _newest_seen(self) -> int:
        """Return where identities were last written beside our commits: those of a device that moved here."""
        last = await self._log.last(f"seen.{self._name}")
        return last.sequence if last else 0

    def _apply(self, batch: Batch, *, suppressed: bool) -> None:
        if batch.local is not None and (batch.node, batch.partition) == (self._stamp.node, self._stamp.partition):
            self._duplicates.apply(batch, suppressed=suppressed)

    def remember(self, batch: Batch) -> None:
        """Take over identities that another gateway has judged, between two spans; they must be on the log."""
        self._duplicates.apply(batch, suppressed=True)
        # The last checkpoint may be valid to a place behind them, and made without them.
        self._duplicates.hurry()

    # ── decoding again ──────────────────────────────────────────────────────────────────────────────────

    def tell(self, priors: Priors | None) -> None:
        """Feed what is committed from now on to the priors of a redecode too; None: no more. `open` ends it."""
        self._priors, self._told_from = priors, self._prepared
        self._told_after = self._sequence if self._prepared == self._number else None

    @property
    def told_after(self) -> int | None:
        """Log sequence up to which priors must be read from the log, the rest is fed; None: not in the log yet."""
        return self._told_after

    def position(self, source: str) -> Position | None:
        """Return the committed position of a source."""
        return self._positions.get(source)

    # ── a span ──────────────────────────────────────────────────────────────────────────────────────────

    def prepare(
        self,
        deliveries: Sequence[Delivery],
        fields: Fields,
        readings: Readings,
        rejected: Sequence[RejectedValue] = (),
        *,
        span: Span | None = None,
    ) -> Pending:
        """Judge a span's readings and build its commit (several, if it is too large for one).

        Args:
            deliveries: the span; their messages one after another are what `fields.message` counts. Either all are
                new, or all are on the log and decoded again.
            fields: what was decoded.
            readings: what was normalised of it, numbered by series.
            rejected: what `normalise` rejected; those of `decode` stand in `fields`.
            span: the messages of the deliveries, where the caller has them as one.

        Raises:
            Unbalanced: the counts do not add up: a bug; nothing may be written.
            Unavailable: the commit before was not written, or `open` was not called: open, and take the messages again.
            StoreFull: the duplicate index cannot be written.
        """
        if not (self._opened and self._sound):
            raise Unavailable("the commit before was not written; its messages and these come again")
        if self._duplicates.spoiled:
            self._sound = False
            raise Unavailable(f"the duplicate index is built again from the log: {self._duplicates.spoiled}")
        # Whatever is raised from here on leaves the state ahead of the log.
        self._sound = False
        if self._duplicates.crowded:
            self._duplicates.settle()
        parts, judgements = [], []
        limit = self._limits.commit_bytes_max
        if span is None:
            span = Span(chain.from_iterable(delivery.messages for delivery in deliveries))
        whole = Slice(deliveries, span, sources_of(deliveries), fields, readings, rejected)
        for piece in slices(whole, least=self._groups(readings), bytes_max=limit):
            if self._duplicates.due:
                self._duplicates.freeze(self._prepared)
            part, judgement = self._again(piece) if piece.deliveries[0].again else self._part(piece)
            parts.append(part)
            judgements.append(judgement)
        self._sound = True
        return Pending(parts, judgements)

    def _groups(self, readings: Readings) -> int:
        """Return about how many slices keep the number of members in bounds; 1 as a rule."""
        regions = len(self._index.regions)
        if regions * 4 + 64 < self._limits.members_max:
            return 1
        group = self._index.region[readings.device].astype(np.int64) * 256 + self._index.grade[readings.device]
        return len(np.unique(group)) // (self._limits.members_max - 64) + 1

    def _part(self, piece: Slice) -> tuple[Part, Judgement]:
        readings = piece.readings
        digest = digests(piece.messages.payloads)
        judgement = self._duplicates.judge(readings, digest, self._specs)
        ledger = tally(piece, judgement, self._index)
        judged = Judged(readings, judgement, digest)
        members = [
            *self._raw(piece),
            *self._seen(judged),
            *self._readings(judged, self._priors.feed if self._priors is not None else None),
            *self._quarantine(piece),
            *self._sequences(piece),
        ]
        return self._made(piece, members, ledger), judgement

    def _again(self, piece: Slice) -> tuple[Part, Judgement]:
        """Build the commit of messages that are on the log: revisions and what was not there, nothing twice."""
        if self._priors is None:
            raise Unavailable("the redecode must begin anew")
        digest = digests(piece.messages.payloads)
        judgement = self._priors.judge(piece.readings, digest, self._specs)
        ledger = tally_again(piece, judgement, self._index, self._clock.now())
        # Who sends such a message again must be told by what it says now.
        members = list(self._readings(Judged(piece.readings, judgement, digest), self._duplicates.apply))
        return self._made(piece, members, ledger), judgement

    def _made(self, piece: Slice, members: list[Member], ledger: Ledger) -> Part:
        members += [
            Member(f"ledger.{self._name}", payload, self._limits.ledger_ttl_h)
            for payload in ledger.encoded(self._limits.member_bytes_max)
        ]
        self._prepared += 1
        positions = {one.source: one.position for one in piece.deliveries if one.position is not None}
        profiles = dict(self._version(name) for name in self._used(piece.readings))
        return Part(secrets.token_hex(8), self._life, self._prepared, members, positions, ledger, profiles)

    def _used(self, readings: Readings) -> list[str]:
        if not len(readings):
            return []
        profile = self._specs.profile.take(readings.spec)
        return [self._specs.profiles[one] for one in np.flatnonzero(np.bincount(profile)).tolist()]

    @staticmethod
    def _version(name: str) -> tuple[str, int]:
        profile, _, version = name.rpartition("@")
        return (profile, int(version)) if profile and version.isdigit() else (name, 0)

    def _raw(self, piece: Slice) -> Iterator[Member]:
        messages, sources = piece.messages, piece.sources
        if piece.fields.quarantined:
            # Those in quarantine are kept there, whole, and not twice.
            bad = {one.message for one in piece.fields.quarantined}
            good = [row for row in range(len(messages)) if row not in bad]
            messages = Span(messages[row] for row in good)
            if not isinstance(sources, str):
                sources = [sources[row] for row in good]
        for payload in self._packed(messages, sources):
            yield Member(f"raw.{self._name}", payload, self._limits.raw_ttl_h)

    def _packed(self, messages: Span, sources: Sequence[str] | str) -> Iterator[bytes]:
        if not messages:
            return
        payload = raw.encode(messages, sources)
        if len(payload) <= self._limits.member_bytes_max:
            yield payload
        elif len(messages) == 1:
            source = sources if isinstance(sources, str) else sources[0]
            for one in raw.split(Kept(messages[0], source, ""), self._limits.member_bytes_max * 3 // 4):
                yield raw.encode_kept([one])
        else:
            half = len(messages) // 2
            first, second = (sources, sources) if isinstance(sources, str) else (sources[:half], sources[half:])
            yield from self._packed(Span(messages[:half]), first)
            yield from self._packed(Span(messages[half:]), second)

    def _seen(self, judged: Judged) -> Iterator[Member]:
        """Yield what was seen and suppressed: no reading, but the state that tells duplicates is made of it."""
        rows = np.flatnonzero(judged.judgement.kind == UNCHANGED)
        for _, batch in batches(judged, rows, self._specs, self._index, self._stamp, one_group=True):
            if self._priors is not None:
                self._priors.feed(batch, suppressed=True)
            for payload in self._encoded(batch):
                life = self._duplicates.horizon_us // 3_600_000_000 + 1
                yield Member(f"seen.{self._name}", payload, life)

    def _sequences(self, piece: Slice) -> Iterator[Member]:
        """Yield the numbers that devices gave their messages: what is missing can be told by them."""
        numbered, ids = piece.fields.numbered, self._index.ids
        known = numbered.device >= 0
        of_device = sequences.runs_of(numbered.device[known], numbered.number[known])
        runs = {ids[device]: found for device, found in of_device.items()}
        for payload in sequences.encoded(self._log.epoch, runs, self._limits.member_bytes_max):
            yield Member(f"sequences.{self._name}", payload, self._limits.readings_ttl_h)

    def _readings(self, judged: Judged, tell: Callable[[Batch], None] | None) -> Iterator[Member]:
        rows = np.flatnonzero(judged.judgement.keep)
        seen = self._specs.observes[judged.readings.spec[rows]]
        yield from self._rows(READINGS, judged, rows[~seen] if seen.any() else rows, self._limits.readings_ttl_h, tell)
        if seen.any():
            yield from self._rows(OBSERVATIONS, judged, rows[seen], self._limits.observations_ttl_h, tell)

    def _rows(
        self, kind: str, judged: Judged, rows: I64, ttl_h: int, tell: Callable[[Batch], None] | None
    ) -> Iterator[Member]:
        for group, batch in batches(judged, rows, self._specs, self._index, self._stamp):
            if tell:
                tell(batch)
            city, county = self._index.regions[group >> 8]
            for payload in self._encoded(batch):
                yield Member(f"{kind}.{city}.{county}.{group & 255}", payload, ttl_h)

    def _encoded(self, batch: Batch) -> Iterator[bytes]:
        payload = columns.encode(batch)
        if len(payload) <= self._limits.member_bytes_max:
            yield payload
            return
        half = np.arange(len(batch)) < len(batch) // 2
        yield from self._encoded(batch.take(half))
        yield from self._encoded(batch.take(~half))

    def _quarantine(self, piece: Slice) -> Iterator[Member]:
        kept = []
        for one in piece.fields.quarantined:
            source = piece.sources if isinstance(piece.sources, str) else piece.sources[one.message]
            device = self._index.ids[one.device] if one.device >= 0 else ""
            kept.append(Kept(piece.messages[one.message], source, one.reason.value, one.detail, device, one.profile))
        for payload in self._packed_kept(kept):
            yield Member(f"quarantine.{self._name}", payload, self._limits.quarantine_ttl_h)

    def _packed_kept(self, kept: list[Kept]) -> Iterator[bytes]:
        if not kept:
            return
        payload = raw.encode_kept(kept)
        if len(payload) <= self._limits.member_bytes_max:
            yield payload
        elif len(kept) == 1:
            for one in raw.split(kept[0], self._limits.member_bytes_max * 3 // 4):
                yield raw.encode_kept([one])
        else:
            yield from self._packed_kept(kept[: len(kept) // 2])
            yield from self._packed_kept(kept[len(kept) // 2 :])

    # ── into the log ────────────────────────────────────────────────────────────────────────────────────

    async def write(self, pending: Pending) -> dict[str, Position]:
        """Write what was prepared, in the order in which it was; return source -> committed position.

        While the log is full it waits for room; an outcome that is unknown is looked up before the commit is repeated.

        Raises:
            Fenced: another worker has taken over.
            Unavailable: the log did not answer for RETRY_S.
        """
        for part in pending.parts:
            if not self._opened or (part.life, part.ordinal) != (self._life, self._number + 1):
                self._opened = False
                raise Fenced("prepared before the committer was opened again, or out of turn; its messages come again")
            began = self._clock.monotonic()
            done = False
            try:
                await self._write(part)
                done = True
            finally:
                # Cancelled or failed: the state is ahead of the log and must be read again.
                self._opened = self._opened and done
                self.held = ""
            metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - began)
            self._count(part)
        return dict(self._positions)

    async def _write(self, part: Part) -> None:
        positions = _with(self._positions, part.positions)
        totals = dict(self._totals)
        for kind, count in part.ledger.totals().items():
            # Fields that were taken out are many; their names stand in the ledger, the record has their sum.
            kept = REMOVED if kind.startswith(f"{REMOVED}.") else kind
            totals[kept] = totals.get(kept, 0) + count
        profiles = {**self._profiles, **part.profiles}
        record = CommitRecord(
            part.batch_id, part.ordinal, self._clock.now(), positions, totals, profiles, self._duplicates.checkpoint
        )
        members = [
            *part.members,
            Member(f"commit.{self._name}", encode_commit(record), rollup=True, expect=self._sequence),
        ]
        self._sequence = await self._durable(members, part.batch_id)
        self._number, self._positions, self._totals, self._profiles = part.ordinal, positions, totals, profiles
        # The record is replaced by the next one; what stands before it stays.
        self._duplicates.confirm(part.ordinal, self._sequence, self._sequence - 1 if part.members else 0)
        if part.ordinal == self._told_from:
            self._told_after = self._sequence

    async def _durable(self, members: list[Member], batch_id: str) -> int:
        """Return the sequence of the commit record once the batch is in the log, whatever is lost on the way."""
        deadline = self._clock.monotonic() + RETRY_S
        unknown = False
        while True:
            try:
                if unknown and (found := await self._found(batch_id)):
                    return found
                return await self._log.write(members)
            except Fenced:
                # The first attempt may have landed after we looked: then it is ourselves who fenced us.
                if unknown and (found := await self._found(batch_id)):
                    return found
                raise
            except StoreFull as why:
                metrics.LIMIT_HITS.labels("log_full").inc()
                self.held = str(why)
                _log.warning("the log is full; the intake is held back until there is room", why=str(why))
                deadline = self._clock.monotonic() + RETRY_S
                await self._clock.sleep(FULL_PAUSE_S)
            except Unavailable as why:
                unknown = True
                if self._clock.monotonic() >= deadline:
                    raise
                _log.warning("the outcome of a commit is unknown; looking it up", batch=batch_id, why=str(why))
                await self._clock.sleep(0.05)

    async def _found(self, batch_id: str) -> int:
        last = await self._log.last(f"commit.{self._name}")
        record = read(last, "ingest", decode_commit) if last else None
        return last.sequence if last and record and record.batch_id == batch_id else 0

    def _count(self, part: Part) -> None:
        metrics.COMMITS.inc()
        for kind, count in part.ledger.totals().items():
            if kind.startswith(f"{REMOVED}."):
                _, form, field = kind.split(".", 2) if kind.count(".") > 1 else (kind, "", "other")
                metrics.count_removed(form, field, count)
            else:
                metrics.READINGS.labels(kind).inc(count)
        for source, outcome, count in part.ledger.by_source():
            metrics.MESSAGES.labels(source, outcome).inc(count)


def _with(before: Mapping[str, Position], now: Mapping[str, Position]) -> dict[str, Position]:
    """Return the positions after a commit; of jobs that decode again only the present one has a place to go on from."""
    again = any(source.startswith(REDECODE) for source in now)
    kept = {source: one for source, one in before.items() if not (again and source.startswith(REDECODE))}
    return {**kept, **now}
