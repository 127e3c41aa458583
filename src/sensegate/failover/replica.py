"""Replication of the log to a standby: entry for entry under the same sequences, so that cursors and ids stay valid.

    active: ReplicationSource ◀─ ask ``log`` (entries after a sequence) ── standby: Replica ─▶ its own LOG, by whole
    commits

Asking for the entries after a sequence confirms all before it; the active centre delivers only confirmed entries
(`ReplicatedLog`). Where an entry has expired or was replaced meanwhile, a filler that soon expires takes its sequence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import repeat

import msgspec

from sensegate.bus.contract import Log
from sensegate.bus.decoding import decoder
from sensegate.bus.names import ALARM_STATES, PADDING_SUBJECT
from sensegate.bus.server_conf import BATCH_MESSAGES_MAX
from sensegate.bus.timelines import TimelineHistory, Timelines
from sensegate.clock import HOUR_US, Clock
from sensegate.config import StoreConfig
from sensegate.errors import Fenced, Unavailable
from sensegate.failover.terms import Term
from sensegate.model import LogEntry, LogMessage
from sensegate.tiers.questions import CHUNK_BYTES, fit_chunk

CHUNK_ENTRIES = 2_000
WAIT_S = 1.0
COMMIT = "commit."
STATE = f"{ALARM_STATES}."
"""Prefix of the states of alarms, which end the writes of alarms as records end commits."""
PENDING_BYTES_MAX = 64 * 1024**2
"""Most bytes of entries that wait in memory for a whole state of the log; beyond, they are written as they are."""
_FILLER = LogMessage(PADDING_SUBJECT, b"", 1)


class ReplicatedEntry(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the log."""

    sequence: int
    subject: str
    payload: bytes
    left_h: int = -1
    """Hours until it expires; 0: never; -1: a centre of an earlier version did not say so, nor what follows."""
    rollup: bool = False
    """True if it replaced all earlier entries of its subject."""
    ends_write: bool = False
    """True if it is the last entry of its atomic write."""


class LogChunk(msgspec.Struct, frozen=True):
    """Entries after a sequence, in order; a commit may continue in the next chunk."""

    log_epoch: str
    first: int
    """First sequence of the log now."""
    last: int
    """Last sequence of the log after the entries were read: what was replaced until then was by entries up to it."""
    entries: tuple[ReplicatedEntry, ...] = ()
    history: tuple[tuple[int, int], ...] = ()
    """(term, last sequence of the log when it began)."""
    timelines: TimelineHistory | None = None
    """Timelines of the log; None: the standby has the same."""


class LogRequest(msgspec.Struct, frozen=True):
    """Request of a standby for the next chunk."""

    stored: int = 0
    """Last sequence on its own log, which confirms all entries up to it."""
    received: int = 0
    """Last sequence that it has in memory."""
    term: int = 0
    timelines: bytes = b""
    """Fingerprint of the timelines that it has."""


_encode = msgspec.msgpack.Encoder().encode
_decode_piece = decoder(LogChunk, "the other centre's answer")
decode_log_request = decoder(LogRequest, "request for the log")


def _read_chunk(answer: bytes) -> LogChunk:
    """Decode the other centre's answer. Raises `Unavailable` where it cannot be read."""
    try:
        return _decode_piece(answer)
    except ValueError as why:
        raise Unavailable(str(why)) from why


def _left_h(entry: LogEntry, now: int) -> int:
    """Return the hours until an entry expires, rounded up; 0: never."""
    if not entry.ttl_h:
        return 0
    return min(entry.ttl_h, max(1, -((now - entry.time) // HOUR_US - entry.ttl_h)))


class ReplicationSource:
    """The active centre's side: answers the standby, and tracks its confirmed position."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        hold_s: float,
        history: tuple[tuple[int, int], ...] = (),
        *,
        unreplicated: bool = False,
        permitted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Serve a log.

        Args:
            log: of this centre.
            clock: source of time.
            hold_s: time without the standby after which delivery continues unreplicated.
            history: (term, last sequence when it began) of the log.
            unreplicated: whether more was delivered than the standby has, or there is no standby.
            permitted: returns whether unreplicated entries may be delivered now; called only while `unreplicated`.
        """
        self._log = log
        self._history = history
        self._clock = clock
        self._hold_s = hold_s
        self._confirmed = 0
        self._delivered = 2**63 if unreplicated else 0
        """Last sequence that was delivered unreplicated."""
        self._unreplicated = unreplicated
        self._heard = clock.monotonic()
        self._was_asked = False
        self._permitted = permitted

    async def answer_log(self, request: LogRequest) -> bytes:
        """Answer a request of the standby. Raises `Unavailable`."""
        self._heard = self._clock.monotonic()
        self._was_asked = True
        first, last = await self._log.bounds()
        if request.timelines == self._log.timelines.fingerprint:
            self._take_confirmation(request.stored, last)
        if request.received == last:
            await self._log.changed(request.received, WAIT_S)
            first, last = await self._log.bounds()
        entries = await self._log.fetch(max(request.received, first - 1), limit=CHUNK_ENTRIES, max_bytes=CHUNK_BYTES)
        entries = fit_chunk(entries, lambda entry: len(entry.payload) + len(entry.subject))
        if entries:
            _, last = await self._log.bounds()
        now = self._clock.now()
        replicated = tuple(
            ReplicatedEntry(
                entry.sequence, entry.subject, entry.payload, _left_h(entry, now), entry.rollup, entry.ends_write
            )
            for entry in entries
        )
        timelines = self._log.timelines
        fresh = timelines.history if request.timelines != timelines.fingerprint else None
        return _encode(LogChunk(self._log.epoch, first, last, replicated, self._history, fresh))

    def _take_confirmation(self, stored: int, last: int) -> None:
        """Note up to which sequence the standby has this log.

        Only a standby that follows the timelines of this log confirms: one that was active itself, and is about to be
        set aside, has entries of its own in the same positions.
        """
        if stored < self._confirmed and not self._unreplicated:
            # Its copy begins anew: until it is whole, delivery goes on without it.
            self._unreplicated, self._delivered = True, self._confirmed
        self._confirmed = stored
        if stored >= min(self._delivered, last):
            self._unreplicated = False

    @property
    def is_settled(self) -> bool:
        """Return whether the other centre follows this log, or was silent for too long.

        Until then the other one may be active in a later term, with records and cursors that are unknown here.
        """
        return self._was_asked or self.unreplicated

    @property
    def unreplicated(self) -> bool:
        """Return whether more is delivered than the standby has: it was silent for too long and has not caught up."""
        if not self._unreplicated and self._clock.monotonic() - self._heard > self._hold_s:
            self._unreplicated, self._delivered = True, self._confirmed
        return self._unreplicated

    @property
    def confirmed(self) -> int:
        """Last sequence that the standby has confirmed."""
        return self._confirmed

    def high_watermark(self, sequence: int) -> int:
        """Return the last sequence, up to a given one, that may be delivered."""
        if not self.unreplicated:
            return min(sequence, self._confirmed)
        if not self._permitted():
            # Entries that were delivered stay visible; how many an earlier lease delivered is not known.
            return min(sequence, max(self._confirmed, self._delivered % 2**63))
        if self._delivered < 2**63:
            self._delivered = max(self._delivered, sequence)
        return sequence


class ReplicatedLog:
    """A log of which only entries up to the high watermark are visible: those that the standby has confirmed."""

    def __init__(self, log: Log, original: ReplicationSource, clock: Clock) -> None:
        self._log = log
        self._original = original
        self._clock = clock

    @property
    def epoch(self) -> str:
        return self._log.epoch

    @property
    def timelines(self) -> Timelines:
        return self._log.timelines

    async def write(self, members: Sequence[LogMessage]) -> int:
        return await self._log.write(members)

    async def last(self, subject: str) -> LogEntry | None:
        return await self._log.last(subject)

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        return self._visible(await self._log.fetch(after, limit=limit, max_bytes=max_bytes))

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        return self._visible(await self._log.fetch_of(subject, after))

    def _visible(self, entries: list[LogEntry]) -> list[LogEntry]:
        end = self._original.high_watermark(entries[-1].sequence) if entries else 0
        return [entry for entry in entries if entry.sequence <= end]

    async def bounds(self) -> tuple[int, int]:
        first, last = await self._log.bounds()
        return first, max(first - 1, self._original.high_watermark(last))

    @property
    def is_settled(self) -> bool:
        return self._original.is_settled

    async def stored_end(self) -> int:
        return await self._log.stored_end()

    async def sequence_at(self, time: int) -> int:
        return min(await self._log.sequence_at(time), (await self.bounds())[1] + 1)

    async def changed(self, after: int, timeout_s: float) -> bool:
        deadline = self._clock.monotonic() + timeout_s
        if not await self._log.changed(after, timeout_s):
            return False
        while (left_s := deadline - self._clock.monotonic()) > 0:
            if self._original.high_watermark(after + 1) > after:
                return True
            await self._clock.sleep(min(left_s, 0.02))
        return False


class _Batch:
    """Messages of the next atomic write of a standby."""

    def __init__(self) -> None:
        self._messages: list[LogMessage] = []
        self._replacing: dict[str, int] = {}
        """Subject of a message that replaces earlier ones -> its place."""
        self._whole = 0
        """Number of messages up to the last end of a write of the active centre."""

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: LogMessage, *, is_end: bool) -> None:
        """Add a message; `is_end`: a write of the active centre ends with it."""
        if message.rollup:
            if (before := self._replacing.get(message.subject)) is not None:
                self._messages[before] = _FILLER  # it would be gone with this batch
            self._replacing[message.subject] = len(self._messages)
        # Padding between two writes belongs to neither.
        is_between = message is _FILLER and self._whole == len(self._messages)
        self._messages.append(message)
        if is_end or is_between:
            self._whole = len(self._messages)

    def take(self) -> tuple[list[LogMessage], bool]:
        """Take the messages out, up to the end of a write of the active centre; return them, and whether there is one.

        Where none of the messages ends a write, all are taken.
        """
        count = self._whole or len(self._messages)
        taken, self._messages = self._messages[:count], self._messages[count:]
        self._replacing = {message.subject: at for at, message in enumerate(self._messages) if message.rollup}
        has_end, self._whole = self._whole > 0, 0
        return taken, has_end


class Replica:
    """The standby's side: copies the log."""

    def __init__(self, log: Log, store: StoreConfig, clock: Clock, term: Term | None = None) -> None:
        """`term`: stored term, with the history of the log."""
        self._own = log
        self.term = term or Term()
        self._store = store
        self._clock = clock
        self._end = -1
        self._fresh = False
        self._open: list[ReplicatedEntry] = []
        """Entries that were received, but do not end in a whole state of the log yet."""
        self._open_bytes = 0
        self._held: list[ReplicatedEntry] = []
        """Entries to be written once the term that says `partial` is on the disk."""
        self._received = -1
        """Last sequence that was received."""
        self._barrier = 0
        """Sequence up to which all entries are needed: one of them replaced an entry that is missing in `_open`."""
        self._vacant = 0
        """Last sequence of the active centre's log where it had no entry after those received; 0: it had."""
        self._writing = asyncio.Lock()
        self.behind = -1
        """Number of entries that the active centre had more at its last answer; -1: none came yet."""

    @property
    def epoch(self) -> str:
        """Epoch of the log."""
        return self._own.epoch

    async def copy_next(self, ask: Callable[[str, bytes], Awaitable[bytes]], term: int = 0) -> None:
        """Copy the next chunk.

        A copy that has just begun, lags by more than `PENDING_BYTES_MAX`, or needs several atomic writes from one whole
        state of the log to the next, is `partial` in `term` until it is whole.
        The caller stores `term` after each change, before the next chunk.

        Raises:
            Unavailable: the active centre does not answer, or the outcome of a write is unknown; try again.
            Fenced: our log is not a copy of the active centre's, or has entries that it has lost.
            StoreFull: the timelines cannot be written.
        """
        if self._held and self._end >= 0:
            await self._write_held()
            return
        if self._end < 0:
            self._take_open()
            self._held = []
            first, self._end = await self._own.bounds()
            self._received, self._barrier = self._end, 0
            # A new log begins where that of the active centre does, and has no entries of any term.
            self._fresh = first > self._end and not self.term.history
            if self._fresh:
                self.term = msgspec.structs.replace(self.term, partial=True)
        known = self._own.timelines.fingerprint
        chunk = _read_chunk(await ask("log", _encode(LogRequest(self._end, self._received, term, known))))
        if chunk.log_epoch != self._own.epoch or chunk.last < self._end:
            raise Fenced(
                f"our log (epoch {self._own.epoch}, up to {self._end}) is not a copy of the active centre's "
                f"(epoch {chunk.log_epoch}, up to {chunk.last})"
            )
        if not self._fresh and self.term.diverged(chunk.history, self._end):
            raise Fenced(f"our log ends with {self._end}; a later term began before that, without our last entries")
        if chunk.timelines is not None:
            # Before the entries that were written on these timelines.
            await self._follow(chunk.timelines)
        if chunk.history != self.term.history:
            self.term = msgspec.structs.replace(self.term, history=chunk.history)
        if self.term.partial and not self._barrier:
            self._barrier = chunk.last  # what was written before a restart lacks records up to there
        ready, until, is_whole = self._due(chunk)
        if ready or until:
            async with self._writing:
                await self._write(ready, until)
        if self.term.partial and (is_whole or chunk.last <= self._end):
            self.term = msgspec.structs.replace(self.term, partial=False)
        self.behind = max(0, chunk.last - self._end)

    async def _write_held(self) -> None:
        """Write the entries that waited for the term on the disk; the copy is whole after that."""
        entries, before, self._held = self._held, self._end, []
        async with self._writing:
            await self._write(entries, 0)
        self.term = msgspec.structs.replace(self.term, partial=False)
        self.behind = max(0, self.behind - (self._end - before))

    def _due(self, chunk: LogChunk) -> tuple[list[ReplicatedEntry], int, bool]:
        """Return (entries to write, sequence up to which to fill holes or 0, whether the copy is whole after that)."""
        ready = self._receive(chunk)
        vacant = chunk.last if not chunk.entries and chunk.last > self._received else 0
        is_vacant = vacant > 0 and vacant == self._vacant
        self._vacant = vacant
        if is_vacant:
            # The last entries have expired before they were copied. Two answers must say so: padding is for ever.
            self._received = vacant
            return self._take_open(), vacant, True
        if self._open_bytes > PENDING_BYTES_MAX:
            if self.term.partial:
                return [*ready, *self._take_open()], 0, False
            self.term = msgspec.structs.replace(self.term, partial=True)  # on the disk before the log is
        elif not self.term.partial and self._is_divided(ready):
            self.term = msgspec.structs.replace(self.term, partial=True)
            self._held = ready
            return [], 0, False
        return ready, 0, bool(ready)

    def _is_divided(self, entries: Sequence[ReplicatedEntry]) -> bool:
        """Return whether the copy would end in a state that the log never had between the writes of some entries."""
        if not entries or entries[-1].sequence - self._end <= BATCH_MESSAGES_MAX:
            return False
        batches = [is_whole for _, is_whole in self._batches(entries, self._end, 0)]
        return not all(batches[:-1])

    def _take_open(self) -> list[ReplicatedEntry]:
        taken, self._open, self._open_bytes = self._open, [], 0
        return taken

    def _receive(self, chunk: LogChunk) -> list[ReplicatedEntry]:
        """Add the entries of a chunk to those received; return those that end in a whole state of the log.

        Where a record was replaced, the entries before it lack their record until the one that replaced it is here.
        """
        complete = 0
        for entry in chunk.entries:
            if entry.sequence != self._received + 1:
                self._barrier = chunk.last
            self._received = entry.sequence
            self._open.append(entry if entry.left_h >= 0 else self._completed(entry, chunk.last))
            self._open_bytes += len(entry.payload) + len(entry.subject)
            if self._open[-1].ends_write and entry.sequence >= self._barrier:
                complete = len(self._open)
        ready, self._open = self._open[:complete], self._open[complete:]
        self._open_bytes -= sum(len(entry.payload) + len(entry.subject) for entry in ready)
        return ready

    def _completed(self, entry: ReplicatedEntry, last: int) -> ReplicatedEntry:
        """Return an entry of a centre of an earlier version, with what its subject says of it."""
        is_state = entry.subject.startswith(STATE)
        is_record = entry.subject.startswith(COMMIT)
        return msgspec.structs.replace(
            entry,
            left_h=self._ttl_h(entry.subject),
            rollup=is_state or is_record,
            ends_write=is_record or (is_state and entry.sequence == last),
        )

    async def _follow(self, history: TimelineHistory) -> None:
        """Adopt the timelines of the active centre. Raises `Fenced` where its log has lost entries that ours has."""
        own = self._own.timelines
        if own.history.current and self._end:
            agreed = Timelines(history).diverged_at(own.timeline_at(self._end))
            if agreed is None or agreed < self._end:
                raise Fenced(
                    f"our log ends with {self._end}; the active centre has lost our last entries and has continued "
                    f"after {agreed or 0}"
                )
        await asyncio.to_thread(own.adopt, history)

    async def _write(self, entries: Sequence[ReplicatedEntry], until: int) -> None:
        """Write entries with their holes filled; `until`: as in `_batches`."""
        end, self._end = self._end, -1  # unknown until the write is confirmed
        for messages, _ in self._batches(entries, end, until):
            end = await self._append(messages, end)
        self._end = end

    def _batches(
        self, entries: Sequence[ReplicatedEntry], end: int, until: int
    ) -> Iterator[tuple[list[LogMessage], bool]]:
        """Yield (messages of an atomic write, whether the copy is whole after it), the holes filled.

        They end with whole states of the log where possible; a copy that is partial ends with writes of the active
        centre.

        Args:
            entries: to be written.
            end: last sequence of the copy before them.
            until: sequence up to which holes are filled behind the last entry; 0: there are none.
        """
        batch = _Batch()
        for entry in entries:
            is_end = entry.ends_write and (self.term.partial or entry.sequence >= self._barrier)
            # It replaces the one before, here as there: else the copy would keep each state that an alarm ever had.
            message = LogMessage(entry.subject, entry.payload, entry.left_h, rollup=entry.rollup)
            for member in (*repeat(_FILLER, entry.sequence - end - 1), message):
                if len(batch) == BATCH_MESSAGES_MAX:
                    yield batch.take()
                batch.add(member, is_end=member is message and is_end)
            end = entry.sequence
            if is_end and len(batch) >= BATCH_MESSAGES_MAX // 4:
                yield batch.take()
        for _ in range(end, until):
            if len(batch) == BATCH_MESSAGES_MAX:
                yield batch.take()
            batch.add(_FILLER, is_end=False)
        while len(batch):
            yield batch.take()

    async def _append(self, members: Sequence[LogMessage], end: int) -> int:
        last = await self._own.write(members)
        if last != end + len(members):
            raise Fenced(f"the copy of the log has diverged: it ends with {last}, not {end + len(members)}")
        return last

    def _ttl_h(self, subject: str) -> int:
        store = self._store
        ttls_h = {
            "raw": store.raw_ttl_h,
            "quarantine": store.quarantine_ttl_h,
            "refused": store.quarantine_ttl_h,
            "recovered": store.quarantine_ttl_h,
            "observations": store.observations_ttl_h,
            "commit": 0,
            "alarm": 0,
        }
        return ttls_h.get(subject.partition(".")[0], store.readings_ttl_h)

    async def end(self) -> int:
        """Return the last sequence of the copy. Raises `Unavailable`."""
        return (await self._own.bounds())[1]

    async def seal(self) -> int:
        """Copy nothing more, once what is being written is whole; return the last sequence. Raises `Unavailable`."""
        # Never released: a term begins, and no entry of the last one may come after it.
        await self._writing.acquire()
        return await self.end()


async def describe_log(ask: Callable[[str, bytes], Awaitable[bytes]]) -> LogChunk:
    """Return the bounds, epoch and history of the active centre's log, without entries. Raises `Unavailable`."""
    return _read_chunk(await ask("log", _encode(LogRequest(0, 2**62, 0))))
