"""Commits: everything that results from a batch of messages enters the log in one atomic write, or nothing does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import msgspec
import numpy as np
import structlog

from sensegate import metrics
from sensegate.authority.index import DeviceIndex
from sensegate.bus import columns, raw, recovered, sequences
from sensegate.bus.columns import Batch
from sensegate.bus.commit_records import decode_commit, encode_commit
from sensegate.bus.contract import Log
from sensegate.bus.ledger import ACCEPTED, REMOVED, REVISED, VALUES, Ledger
from sensegate.bus.names import OBSERVATIONS, OWN_AREA, PADDING_SUBJECT, PARTITION, READINGS, ROW_KINDS, writer_of
from sensegate.bus.padding import pad
from sensegate.bus.raw import StoredMessage
from sensegate.bus.unreadable import read, read_rows
from sensegate.clock import HOUR_US, Clock
from sensegate.config import StoreConfig
from sensegate.errors import Fenced, StoreFull, Unavailable
from sensegate.model import (
    BOOL,
    CORRECTION_PREFIX,
    I64,
    REPROCESSING_PREFIX,
    CommitRecord,
    Delivery,
    Fields,
    LogMessage,
    MessageBatch,
    Readings,
    RejectedValue,
    SourcePosition,
    Spec,
)
from sensegate.persist.batch_builder import CommitOrigin, JudgedReadings, build_batches
from sensegate.persist.commit_ledger import commit_ledger, reprocessing_ledger
from sensegate.persist.duplicates import Deduplicator, DedupResult
from sensegate.persist.identity import UNCHANGED, SpecColumns, digests
from sensegate.persist.previous_readings import PreviousReadings
from sensegate.persist.slices import BatchSlice, slice_batch, sources_of

RETRY_S = 60.0
"""A commit of unknown outcome is looked up and repeated for so long before `Unavailable` is raised."""
FULL_RETRY_S = 0.5
"""Pause between attempts while the log is full."""
PADDING_MARGIN = 20_000
"""Sequences padded beyond those of the last checkpoint after the log lost its end; the checkpoint is seconds old."""

_log = structlog.get_logger("persist")


class CommitLimits(msgspec.Struct, frozen=True):
    """Size limits of commits and lifetimes of their messages."""

    message_bytes_max: int = 900_000
    messages_max: int = 900
    commit_bytes_max: int = 32 * 1024**2
    """Messages with more payload are split into several commits."""
    raw_ttl_h: int = 72
    readings_ttl_h: int = 168
    observations_ttl_h: int = 168
    quarantine_ttl_h: int = 720
    ledger_ttl_h: int = 168
    """Lifetime of ledgers of single commits; their hourly sums are kept longer, in stream LEDGER."""

    @classmethod
    def of(cls, store: StoreConfig, payload_bytes_max: int) -> CommitLimits:
        """Return the limits of the configuration; `payload_bytes_max`: largest payload of a log message."""
        return cls(
            min(cls().message_bytes_max, payload_bytes_max),
            raw_ttl_h=store.raw_ttl_h,
            readings_ttl_h=store.readings_ttl_h,
            observations_ttl_h=store.observations_ttl_h,
            quarantine_ttl_h=store.quarantine_ttl_h,
            ledger_ttl_h=store.readings_ttl_h,
        )


class PreparedCommit(msgspec.Struct, frozen=True, eq=False):
    """A commit without its commit record."""

    batch_id: str
    generation: int
    """Number of times that the committer had been opened."""
    ordinal: int
    messages: list[LogMessage]
    positions: dict[str, SourcePosition]
    ledger: Ledger
    profiles: dict[str, int]
    totals: dict[str, int]
    """Kind -> count over the whole ledger."""


class PreparedBatch(msgspec.Struct, frozen=True, eq=False):
    """A prepared batch of messages: its commits, usually one, and the results of deduplication."""

    commits: list[PreparedCommit]
    results: list[DedupResult]

    @property
    def accepted(self) -> BOOL:
        """Mask of the accepted readings, in the order of the readings."""
        if not self.results:
            return np.zeros(0, np.bool_)
        return np.concatenate([judgement.accepted for judgement in self.results])

    def followed_by(self, other: PreparedBatch) -> PreparedBatch:
        """Return this batch together with one prepared after it."""
        return PreparedBatch([*self.commits, *other.commits], [*self.results, *other.results])

    @property
    def messages(self) -> list[LogMessage]:
        """All log messages, for `explain` and tests."""
        return [member for part in self.commits for member in part.messages]


class CommitWriter(msgspec.Struct, frozen=True):
    """The gateway as a writer of its log."""

    division: str
    is_sole: bool = True
    """True if nobody else writes readings to this log; False at a centre with nodes."""


class Committer:
    """Writes the log of a node.

    `prepare` deduplicates and builds commits, has no side effect but on the dedup index, and may run in a thread, one
    call at a time; the next batch may be prepared while the previous one is written. After any error of `write`, call
    `open` again: it discards what was prepared and not written, since those messages are delivered again.
    """

    def __init__(
        self,
        log: Log,
        duplicates: Deduplicator,
        index: DeviceIndex,
        specs: Sequence[Spec],
        clock: Clock,
        *,
        writer: CommitWriter,
        limits: CommitLimits | None = None,
    ) -> None:
        self._log = log
        self._duplicates = duplicates
        self._index = index
        self._clock = clock
        self._origin = CommitOrigin(writer.division, PARTITION)
        self._name = writer_of(writer.division)
        self._sole_writer = writer.is_sole
        self._limits = limits or CommitLimits()
        self.apply_specs(specs)
        self.blocked_reason = ""
        """Reason why the present commit waits for space in the log; empty: it does not wait."""
        self._previous: PreviousReadings | None = None
        self._previous_from = 0
        self._previous_after: int | None = None
        self._opened = False
        self._state_matches_log = False
        self._generation = 0
        self._number = 0
        self._prepared = 0
        self._sequence = 0
        self._positions: dict[str, SourcePosition] = {}
        self._totals: dict[str, int] = {}
        self._profiles: dict[str, int] = {}

    def apply_specs(self, specs: Sequence[Spec]) -> None:
        """Use other specs from the next batch on."""
        self._specs = SpecColumns.of(specs)

    @property
    def totals(self) -> Mapping[str, int]:
        """Ledger kind -> count since the log began, as of the last commit."""
        return self._totals

    @property
    def number(self) -> int:
        """Number of the last commit."""
        return self._number

    @property
    def sequence(self) -> int:
        """Log sequence of the last commit."""
        return self._sequence

    # ── start ───────────────────────────────────────────────────────────────────────────────────────────

    async def open(self) -> dict[str, SourcePosition]:
        """Read the last commit and bring the dedup index up to it; return source -> committed position.

        Raises:
            Unavailable: the log cannot be read now.
        """
        self._opened = False
        self._previous = None
        self._generation += 1
        last = await self._log.last(f"commit.{self._name}")
        record = read(last, "ingest", decode_commit) if last else None
        if last and record is None:
            # Sources that can be reread start from their beginning; the dedup index recognises what was committed.
            metrics.LIMIT_HITS.labels("unreadable_commit").inc()
            _log.error("cannot decode the last commit record; rereading sources from the start", sequence=last.sequence)
        self._sequence = last.sequence if last else 0
        self._number = self._prepared = record.number if record else 0
        self._positions = dict(record.positions) if record else {}
        self._totals = dict(record.totals) if record else {}
        self._profiles = dict(record.profiles) if record else {}
        at, witness = await self._catch_up()
        self._duplicates.confirm(self._number, max(at, self._sequence), witness)
        self._opened = self._state_matches_log = True
        return dict(self._positions)

    async def follow(self) -> int:
        """Bring the dedup index on the disk up to the end of the log, which another process writes; return that end.

        Nothing is written to the log; `open` has to follow before anything is prepared.

        Raises:
            Unavailable: the log cannot be read now.
            StoreFull: the index cannot be written.
        """
        self._opened = self._state_matches_log = False
        last = await self._log.last(f"commit.{self._name}")
        self._sequence = last.sequence if last else 0
        at, witness = await self._catch_up(pads=False)
        if at > self._duplicates.checkpoint:
            self._duplicates.freeze(-1)
            self._duplicates.confirm(-1, at, witness)
            await asyncio.to_thread(self._duplicates.wait_idle)
        return at

    async def _catch_up(self, *, pads: bool = True) -> tuple[int, int]:
        """Bring the dedup index up to the end of the log; return up to which sequence it is valid, and its witness."""
        # Our entries end with our last commit, unless a full disk broke a batch. Where nodes write too, hours of their
        # readings may follow it: there a full disk is prevented (`engine.has_room`) instead of detected.
        _, newest = await self._log.bounds()
        end = newest if self._sole_writer else max(self._sequence, await self._last_imported())
        at = await asyncio.to_thread(self._duplicates.open, self._log.timelines, end)
        witness = self._duplicates.witness
        if at >= 0 and not await self._log_contains(witness):
            # The server may report the former length of the log although its last blocks are gone.
            _log.error(
                "the log lost entries that are in the deduplication index; rebuilding the index from the log",
                sequence=witness,
            )
            metrics.LIMIT_HITS.labels("log_lost_entries").inc()
            await asyncio.to_thread(self._duplicates.discard)
            at, witness = -1, 0
        if pads and (reached := self._duplicates.lost_end):
            end = await self._pad_lost_end(end, reached)
        if at < 0:
            kept_us = min(self._limits.readings_ttl_h, self._limits.observations_ttl_h) * HOUR_US
            if kept_us < self._duplicates.horizon_us:
                self._duplicates.raise_floor(self._clock.now() - kept_us)
            at = await self._log.sequence_at(self._clock.now() - self._duplicates.horizon_us) - 1
        began = at
        while at < end:
            entries = [entry for entry in await self._log.fetch(at) if entry.sequence <= end]
            if not entries:
                break
            for entry in entries:
                kind, _, writer = entry.subject.partition(".")
                wanted = kind in ROW_KINDS or (kind == "seen" and writer == self._name)
                if wanted and (batch := read_rows(entry, "ingest")) is not None:
                    self._apply(batch, suppressed=kind == "seen")
                at = entry.sequence
                if kind != "commit" and entry.subject != PADDING_SUBJECT:
                    witness = at
                if self._duplicates.checkpoint_due:
                    self._duplicates.freeze(-1)
                    self._duplicates.confirm(-1, at, witness)
            await asyncio.sleep(0)
        if at > began:
            _log.info("deduplication index caught up with the log", entries=at - began)
        return at, witness

    async def _log_contains(self, sequence: int) -> bool:
        """Return whether the log has an entry with this sequence; True for 0."""
        if not sequence:
            return True
        entries = await self._log.fetch(sequence - 1, limit=1)
        return bool(entries) and entries[0].sequence == sequence

    async def _pad_lost_end(self, end: int, reached: int) -> int:
        """Pad the log beyond the end that it lost (a power cut, an older copy); return its last sequence.

        Sequences of the lost end are in use elsewhere: in cursors, record ids, positions at the centre. New entries
        must not reuse them. Where nodes write too, they may do so before us: there a cursor is checked by time.
        """
        _log.error("the log lost its end; those entries are gone here", last=end, last_before=reached)
        metrics.LIMIT_HITS.labels("log_lost_end").inc()
        if self._sole_writer:
            end = await pad(self._log, end, reached + PADDING_MARGIN)
        await asyncio.to_thread(self._duplicates.clear_lost_end)
        return end

    async def _last_imported(self) -> int:
        """Return the sequence of the last identities imported outside of our commits (of devices that moved here)."""
        last = await self._log.last(f"seen.{self._name}")
        return last.sequence if last else 0

    def _apply(self, batch: Batch, *, suppressed: bool) -> None:
        if batch.local is not None and (batch.node, batch.partition) == (self._origin.node, self._origin.partition):
            self._duplicates.apply(batch, suppressed=suppressed)

    def add_identities(self, batch: Batch) -> None:
        """Add identities accepted by another gateway, between two batches; they must be on the log."""
        self._duplicates.apply(batch, suppressed=True)
        # The last checkpoint may be valid beyond their sequence without containing them.
        self._duplicates.request_checkpoint()

    # ── reprocessing ──────────────────────────────────────────────────────────────────────────────────

    def track_previous(self, previous: PreviousReadings | None) -> None:
        """Add all further commits to the previous readings of a reprocessing order; None, or `open`, ends that."""
        self._previous, self._previous_from = previous, self._prepared
        self._previous_after = self._sequence if self._prepared == self._number else None

    @property
    def tracked_after(self) -> int | None:
        """Log sequence up to which previous readings must be read from the log; None: not yet known."""
        return self._previous_after

    def position(self, source: str) -> SourcePosition | None:
        """Return the committed position of a source."""
        return self._positions.get(source)

    # ── preparing ─────────────────────────────────────────────────────────────────────────────────────

    def prepare(
        self,
        deliveries: Sequence[Delivery],
        fields: Fields,
        readings: Readings,
        rejected: Sequence[RejectedValue] = (),
        *,
        messages: MessageBatch | None = None,
    ) -> PreparedBatch:
        """Deduplicate the readings of a batch and build its commit (several if it is too large for one).

        Args:
            deliveries: the deliveries of the batch; `fields.message` indexes their concatenated messages. Either all
                are new, or all are recorded messages that are reprocessed.
            fields: the decoded fields.
            readings: the normalised readings, numbered by series.
            rejected: values rejected by `normalise`; those rejected by `decode` are in `fields`.
            messages: the messages of the deliveries, where the caller has them.

        Raises:
            Unbalanced: the counts do not balance: a bug; nothing may be written.
            Unavailable: the previous commit was not written, or `open` was not called: open, and process again.
            StoreFull: the dedup index cannot be written.
        """
        self._begin_preparing()
        parts, judgements = [], []
        limit = self._limits.commit_bytes_max
        if messages is None:
            messages = MessageBatch(chain.from_iterable(delivery.messages for delivery in deliveries))
        whole = BatchSlice(deliveries, messages, sources_of(deliveries), fields, readings, rejected)
        for piece in slice_batch(whole, slices_min=self._slices_needed(readings), bytes_max=limit):
            if self._duplicates.checkpoint_due:
                self._duplicates.freeze(self._prepared)
            part, judgement = (
                self._build_reprocessed(piece) if piece.deliveries[0].recorded_in else self._build_commit(piece)
            )
            parts.append(part)
            judgements.append(judgement)
        self._state_matches_log = True
        return PreparedBatch(parts, judgements)

    def _begin_preparing(self) -> None:
        """Return if a commit may be prepared now. Raises as `prepare`."""
        if not (self._opened and self._state_matches_log):
            raise Unavailable("the previous commit was not written; its messages and these are delivered again")
        if self._duplicates.rebuild_reason:
            self._state_matches_log = False
            raise Unavailable(
                f"the deduplication index must be rebuilt from the log: {self._duplicates.rebuild_reason}"
            )
        # Any error from here on leaves the dedup index ahead of the log.
        self._state_matches_log = False
        if self._duplicates.is_overloaded:
            self._duplicates.wait_idle()

    def prepare_correction(self, delivery: Delivery) -> PreparedBatch:
        """Build the commit of revisions that an operator ordered; each message is a batch of rows under its subject.

        Raises:
            ValueError: a message is no such batch: a bug.
            Unavailable, StoreFull: as `prepare`.
        """
        self._begin_preparing()
        ledger, rows = Ledger(), []
        hour = self._clock.now() // HOUR_US
        for message in delivery.messages:
            batch = columns.decode(message.payload)
            self._duplicates.apply(batch)
            if self._previous is not None:
                self._previous.add_live(batch)
            origins = batch.origins
            counts = np.bincount(batch.origin, minlength=len(origins)).tolist()
            for device, division, department, count in zip(
                origins.device, origins.division.tolist(), origins.department.tolist(), counts, strict=True
            ):
                ledger.set_places([device], [f"{division}/{department}" if department else division])
                for kind in (VALUES, ACCEPTED, REVISED):
                    ledger.add(hour, device, delivery.source, kind, count)
            rows.append(LogMessage(message.topic, message.payload, self._limits.readings_ttl_h))
        ledger.check()
        rows += [
            LogMessage(f"ledger.{self._name}", payload, self._limits.ledger_ttl_h)
            for payload in ledger.encode_parts(self._limits.message_bytes_max)
        ]
        self._prepared += 1
        positions = {delivery.source: delivery.position} if delivery.position is not None else {}
        commit = PreparedCommit(
            secrets.token_hex(8),
            self._generation,
            self._prepared,
            rows,
            positions,
            ledger,
            profiles={},
            totals=ledger.totals(),
        )
        self._state_matches_log = True
        return PreparedBatch([commit], [])

    def _slices_needed(self, readings: Readings) -> int:
        """Return an estimate of the number of slices that keeps the number of log messages in bounds; usually 1."""
        cities = len(self._index.cities.all)
        if cities * 4 + 64 < self._limits.messages_max:
            return 1
        group = self._index.city[readings.device].astype(np.int64) * 256 + self._index.grade[readings.device]
        return len(np.unique(group)) // (self._limits.messages_max - 64) + 1

    def _build_commit(self, piece: BatchSlice) -> tuple[PreparedCommit, DedupResult]:
        readings = piece.readings
        digest = digests(piece.messages.payloads)
        judgement = self._duplicates.judge(readings, digest, self._specs)
        ledger = commit_ledger(piece, judgement, self._index)
        judged = JudgedReadings(readings, judgement, digest)
        messages = [
            *self._raw_messages(piece),
            *self._suppressed_messages(judged),
            *self._reading_messages(judged, self._previous.add_live if self._previous is not None else None),
            *self._quarantine_messages(piece),
            *self._sequence_messages(piece),
        ]
        return self._finish_commit(piece, messages, ledger), judgement

    def _build_reprocessed(self, piece: BatchSlice) -> tuple[PreparedCommit, DedupResult]:
        """Build the commit of reprocessed messages: revisions and additions, nothing twice."""
        if self._previous is None:
            raise Unavailable("the reprocessing order must start again")
        digest = digests(piece.messages.payloads)
        judgement = self._previous.judge(piece.readings, digest, self._specs)
        ledger = reprocessing_ledger(piece, judgement, self._index, self._clock.now())
        # A repeated delivery of such a message is compared with its new readings.
        messages = list(
            self._reading_messages(JudgedReadings(piece.readings, judgement, digest), self._duplicates.apply)
        )
        messages += self._recovered_messages(piece)
        return self._finish_commit(piece, messages, ledger), judgement

    def _recovered_messages(self, piece: BatchSlice) -> Iterator[LogMessage]:
        """Yield the places of quarantined messages that now gave readings."""
        refused = {quarantined.message for quarantined in piece.fields.quarantined}
        from_quarantine = chain.from_iterable(
            [delivery.recorded_in == "quarantine"] * len(delivery.messages) for delivery in piece.deliveries
        )
        places = [
            message.sequence
            for number, (message, was_quarantined) in enumerate(zip(piece.messages, from_quarantine, strict=True))
            if was_quarantined and number not in refused
        ]
        if places:
            yield LogMessage(
                f"{recovered.SUBJECT}.{self._name}", recovered.encode_places(places), self._limits.quarantine_ttl_h
            )

    def _finish_commit(self, piece: BatchSlice, messages: list[LogMessage], ledger: Ledger) -> PreparedCommit:
        messages += [
            LogMessage(f"ledger.{self._name}", payload, self._limits.ledger_ttl_h)
            for payload in ledger.encode_parts(self._limits.message_bytes_max)
        ]
        self._prepared += 1
        positions = {
            delivery.source: delivery.position for delivery in piece.deliveries if delivery.position is not None
        }
        profiles = dict(self._version(name) for name in self._profiles_used(piece.readings))
        return PreparedCommit(
            secrets.token_hex(8),
            self._generation,
            self._prepared,
            messages,
            positions,
            ledger,
            profiles,
            ledger.totals(),
        )

    def _profiles_used(self, readings: Readings) -> list[str]:
        if not len(readings):
            return []
        profile = self._specs.profile.take(readings.spec)
        return [self._specs.profiles[index] for index in np.flatnonzero(np.bincount(profile)).tolist()]

    @staticmethod
    def _version(name: str) -> tuple[str, int]:
        profile, _, version = name.rpartition("@")
        return (profile, int(version)) if profile and version.isdigit() else (name, 0)

    def _raw_messages(self, piece: BatchSlice) -> Iterator[LogMessage]:
        messages, sources = piece.messages, piece.sources
        if piece.fields.quarantined:
            # Quarantined messages are stored in quarantine only.
            bad = {quarantined.message for quarantined in piece.fields.quarantined}
            good = [row for row in range(len(messages)) if row not in bad]
            messages = MessageBatch(messages[row] for row in good)
            if not isinstance(sources, str):
                sources = [sources[row] for row in good]
        for payload in self._encode_messages(messages, sources):
            yield LogMessage(f"raw.{self._name}", payload, self._limits.raw_ttl_h)

    def _encode_messages(self, messages: MessageBatch, sources: Sequence[str] | str) -> Iterator[bytes]:
        if not messages:
            return
        payload = raw.encode(messages, sources)
        if len(payload) <= self._limits.message_bytes_max:
            yield payload
        elif len(messages) == 1:
            source = sources if isinstance(sources, str) else sources[0]
            for stored in raw.split_pieces(
                StoredMessage(messages[0], source, ""), self._limits.message_bytes_max * 3 // 4
            ):
                yield raw.encode_quarantined([stored])
        else:
            half = len(messages) // 2
            first, second = (sources, sources) if isinstance(sources, str) else (sources[:half], sources[half:])
            yield from self._encode_messages(MessageBatch(messages[:half]), first)
            yield from self._encode_messages(MessageBatch(messages[half:]), second)

    def _suppressed_messages(self, judged: JudgedReadings) -> Iterator[LogMessage]:
        """Yield the suppressed rows: not readings, but part of the state of the dedup index."""
        rows = np.flatnonzero(judged.judgement.kind == UNCHANGED)
        for _, batch in build_batches(judged, rows, self._specs, self._index, self._origin, single_group=True):
            if self._previous is not None:
                self._previous.add_live(batch, suppressed=True)
            for payload in self._encode_batch(batch):
                ttl_h = self._duplicates.horizon_us // HOUR_US + 1
                yield LogMessage(f"seen.{self._name}", payload, ttl_h)

    def _sequence_messages(self, piece: BatchSlice) -> Iterator[LogMessage]:
        """Yield the sequence numbers that devices gave their messages, by which gaps can be found."""
        numbered, ids = piece.fields.sequence_numbers, self._index.ids
        known = numbered.device >= 0
        of_device = sequences.runs_of(numbered.device[known], numbered.number[known])
        runs = {ids[device]: flat for device, flat in of_device.items()}
        for payload in sequences.encode_parts(self._log.epoch, runs, self._limits.message_bytes_max):
            yield LogMessage(f"sequences.{self._name}", payload, self._limits.readings_ttl_h)

    def _reading_messages(
        self, judged: JudgedReadings, on_batch: Callable[[Batch], None] | None
    ) -> Iterator[LogMessage]:
        rows = np.flatnonzero(judged.judgement.accepted)
        seen = self._specs.is_observation[judged.readings.spec[rows]]
        yield from self._row_messages(
            READINGS, judged, rows[~seen] if seen.any() else rows, self._limits.readings_ttl_h, on_batch
        )
        if seen.any():
            yield from self._row_messages(OBSERVATIONS, judged, rows[seen], self._limits.observations_ttl_h, on_batch)

    def _row_messages(
        self, kind: str, judged: JudgedReadings, rows: I64, ttl_h: int, on_batch: Callable[[Batch], None] | None
    ) -> Iterator[LogMessage]:
        for group, batch in build_batches(judged, rows, self._specs, self._index, self._origin):
            if on_batch:
                on_batch(batch)
            city = self._index.cities.all[group >> 8]
            for payload in self._encode_batch(batch):
                yield LogMessage(f"{kind}.{city}.{OWN_AREA}.{group & 255}", payload, ttl_h)

    def _encode_batch(self, batch: Batch) -> Iterator[bytes]:
        payload = columns.encode(batch, is_ordered=True)
        if len(payload) <= self._limits.message_bytes_max:
            yield payload
            return
        half = np.arange(len(batch)) < len(batch) // 2
        yield from self._encode_batch(batch.take(half))
        yield from self._encode_batch(batch.take(~half))

    def _quarantine_messages(self, piece: BatchSlice) -> Iterator[LogMessage]:
        stored = []
        for quarantined in piece.fields.quarantined:
            source = piece.sources if isinstance(piece.sources, str) else piece.sources[quarantined.message]
            device = self._index.ids[quarantined.device] if quarantined.device >= 0 else ""
            stored.append(
                StoredMessage(
                    piece.messages[quarantined.message],
                    source,
                    quarantined.reason.value,
                    quarantined.detail,
                    device,
                    quarantined.profile,
                )
            )
        for payload in self._encode_quarantined(stored):
            yield LogMessage(f"quarantine.{self._name}", payload, self._limits.quarantine_ttl_h)

    def _encode_quarantined(self, messages: list[StoredMessage]) -> Iterator[bytes]:
        if not messages:
            return
        payload = raw.encode_quarantined(messages)
        if len(payload) <= self._limits.message_bytes_max:
            yield payload
        elif len(messages) == 1:
            for stored in raw.split_pieces(messages[0], self._limits.message_bytes_max * 3 // 4):
                yield raw.encode_quarantined([stored])
        else:
            yield from self._encode_quarantined(messages[: len(messages) // 2])
            yield from self._encode_quarantined(messages[len(messages) // 2 :])

    # ── writing ───────────────────────────────────────────────────────────────────────────────────────

    async def write(self, pending: PreparedBatch) -> dict[str, SourcePosition]:
        """Write a prepared batch, in the order of preparation; return source -> committed position.

        While the log is full it waits for space; a commit of unknown outcome is looked up before it is repeated.

        Raises:
            Fenced: another worker has taken over.
            Unavailable: the log did not respond for RETRY_S.
        """
        for part in pending.commits:
            if not self._opened or (part.generation, part.ordinal) != (self._generation, self._number + 1):
                self._opened = False
                raise Fenced("the commit is stale or out of order; its messages are delivered again")
            began = self._clock.monotonic()
            done = False
            try:
                await self._write_commit(part)
                done = True
            finally:
                # Cancelled or failed: the state is ahead of the log and must be loaded again.
                self._opened = self._opened and done
                self.blocked_reason = ""
            metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - began)
            self._count_metrics(part)
        return dict(self._positions)

    async def _write_commit(self, part: PreparedCommit) -> None:
        positions = _merge_positions(self._positions, part.positions)
        totals = dict(self._totals)
        for kind, count in part.totals.items():
            # The names of removed fields are many: the ledger has them, the commit record only their sum.
            name = REMOVED if kind.startswith(f"{REMOVED}.") else kind
            totals[name] = totals.get(name, 0) + count
        profiles = {**self._profiles, **part.profiles}
        record = CommitRecord(
            part.batch_id, part.ordinal, self._clock.now(), positions, totals, profiles, self._duplicates.checkpoint
        )
        self._sequence = await self._write_until_known(part.messages, record)
        self._number, self._positions, self._totals, self._profiles = part.ordinal, positions, totals, profiles
        # The next commit replaces the record; the entry before it is retained.
        self._duplicates.confirm(part.ordinal, self._sequence, self._sequence - 1 if part.messages else 0)
        if part.ordinal == self._previous_from:
            self._previous_after = self._sequence

    async def _write_until_known(self, messages: list[LogMessage], record: CommitRecord) -> int:
        """Write a batch until it is known to be in the log; return the sequence of its commit record."""
        batch_id = record.batch_id
        deadline = self._clock.monotonic() + RETRY_S
        unknown = False
        while True:
            try:
                if unknown and (sequence := await self._find_commit(batch_id)):
                    return sequence
                # The own clock is judged by this time and the store's: the log may have been full for hours.
                record = msgspec.structs.replace(record, committed_at=self._clock.now())
                commit = LogMessage(f"commit.{self._name}", encode_commit(record), rollup=True, expect=self._sequence)
                return await self._log.write([*messages, commit])
            except Fenced:
                # The first attempt may have succeeded after the look-up: then our own commit fenced this one.
                if unknown and (sequence := await self._find_commit(batch_id)):
                    return sequence
                raise
            except StoreFull as why:
                metrics.LIMIT_HITS.labels("log_full").inc()
                self.blocked_reason = str(why)
                _log.warning("log full; ingest waits for space", reason=str(why))
                deadline = self._clock.monotonic() + RETRY_S
                await self._clock.sleep(FULL_RETRY_S)
            except Unavailable as why:
                unknown = True
                if self._clock.monotonic() >= deadline:
                    raise
                _log.warning("outcome of a commit unknown; looking it up", batch=batch_id, reason=str(why))
                await self._clock.sleep(0.05)

    async def _find_commit(self, batch_id: str) -> int:
        last = await self._log.last(f"commit.{self._name}")
        record = read(last, "ingest", decode_commit) if last else None
        return last.sequence if last and record and record.batch_id == batch_id else 0

    def _count_metrics(self, part: PreparedCommit) -> None:
        metrics.COMMITS.inc()
        for kind, count in part.totals.items():
            if kind.startswith(f"{REMOVED}."):
                _, form, field = kind.split(".", 2) if kind.count(".") > 1 else (kind, "", "other")
                metrics.count_removed(form, field, count)
            else:
                metrics.READINGS.labels(kind).inc(count)
        for source, outcome, count in part.ledger.by_source():
            metrics.MESSAGES.labels(source, outcome).inc(count)


def _has_prefix(prefix: str, source: str) -> bool:
    return source.startswith(prefix)


def _merge_positions(
    before: Mapping[str, SourcePosition], now: Mapping[str, SourcePosition]
) -> dict[str, SourcePosition]:
    """Return the positions after a commit; of reprocessing orders only that of the present one is kept."""
    orders = tuple(
        prefix for prefix in (REPROCESSING_PREFIX, CORRECTION_PREFIX) if any(map(partial(_has_prefix, prefix), now))
    )
    retained = {source: position for source, position in before.items() if not (orders and source.startswith(orders))}
    return {**retained, **now}
